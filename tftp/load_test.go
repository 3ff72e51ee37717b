package tftp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// load is the same lock-step client for every server that is measured: many boards in one epoll loop, each with an
// address and a socket of its own, as cheap as it can be so that the server decides the result.
type load struct {
	server  netip.AddrPort
	name    string
	clients int
	block   int
	size    int64   // of the file
	loss    float64 // share of datagrams that is lost on purpose, in each direction
}

type board struct {
	fd        int
	loss      func() bool
	connected bool
	next      uint16
	got       int64
	last      []byte // sent last, for a repetition
	heard     time.Time
	done      bool
}

// run reads the file once with every board at the same time.
func (l load) run() (time.Duration, error) {
	ep, err := unix.EpollCreate1(0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(ep)
	boards := make([]*board, l.clients)
	byFD := map[int32]*board{}
	dice := rand.New(rand.NewPCG(1, 2)) // the same for every server
	for i := range boards {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 1, byte(i + 1)}}); err != nil {
			return 0, err
		}
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return 0, err
		}
		boards[i] = &board{fd: fd, next: 1, loss: func() bool { return l.loss > 0 && dice.Float64() < l.loss }}
		byFD[int32(fd)] = boards[i]
	}
	begin := time.Now()
	to := &unix.SockaddrInet4{Port: int(l.server.Port()), Addr: l.server.Addr().As4()}
	for _, b := range boards {
		b.heard = begin
		b.last = rrq(l.name, "octet", "tsize", "0", "blksize", fmt.Sprint(l.block))
		if err := b.send(to); err != nil {
			return 0, err
		}
	}
	repeated := begin
	events := make([]unix.EpollEvent, l.clients)
	buf := make([]byte, 2048)
	for left := l.clients; left > 0; {
		n, err := unix.EpollWait(ep, events, 100)
		if err != nil && err != unix.EINTR {
			return 0, err
		}
		now := time.Now()
		for _, e := range events[:max(n, 0)] {
			b := byFD[e.Fd]
			if err := b.receive(buf, l.block, now); err != nil {
				return 0, err
			}
			if b.done && b.fd >= 0 {
				unix.EpollCtl(ep, unix.EPOLL_CTL_DEL, b.fd, nil)
				b.fd = -1
				if left--; b.got != l.size {
					return 0, fmt.Errorf("a board got %d of %d bytes", b.got, l.size)
				}
			}
		}
		if now.Sub(repeated) > 100*time.Millisecond {
			if repeated = now; now.Sub(begin) > 2*time.Minute {
				return 0, fmt.Errorf("%d of %d boards are still reading after two minutes", left, l.clients)
			}
			for _, b := range boards {
				if !b.done && now.Sub(b.heard) > time.Second {
					b.heard = now
					b.send(to)
				}
			}
		}
	}
	return time.Since(begin), nil
}

// send sends what was said last, to the server's well-known port as long as nothing came back.
func (b *board) send(to unix.Sockaddr) error {
	switch {
	case b.loss():
		return nil
	case b.connected:
		_, err := unix.Write(b.fd, b.last)
		return err
	}
	return unix.Sendto(b.fd, b.last, 0, to)
}

func (b *board) receive(buf []byte, block int, now time.Time) error {
	n, from, err := unix.Recvfrom(b.fd, buf, 0)
	switch {
	case err == unix.EAGAIN || err == unix.ECONNREFUSED:
		return nil
	case err != nil || b.loss():
		return err
	case !b.connected:
		b.connected = true
		if err := unix.Connect(b.fd, from); err != nil {
			return err
		}
	}
	switch op := binary.BigEndian.Uint16(buf); {
	case op == opOACK:
		b.last = append(b.last[:0], 0, opACK, 0, 0)
	case op == opDATA && binary.BigEndian.Uint16(buf[2:]) == b.next:
		b.last = append(b.last[:0], 0, opACK, buf[2], buf[3])
		b.next++
		b.got += int64(n - headerSize)
		b.done = n-headerSize < block
	case op == opDATA && binary.BigEndian.Uint16(buf[2:]) == b.next-1:
		// a duplicate is acknowledged (RFC 1350)
	case op == opERROR:
		return fmt.Errorf("the server says %q", buf[4:n])
	default:
		return nil
	}
	b.heard = now
	return b.send(nil)
}

// rrq is a read request with options in pairs.
func rrq(name, mode string, options ...string) []byte {
	b := []byte{0, opRRQ}
	for _, s := range append([]string{name, mode}, options...) {
		b = append(append(b, s...), 0)
	}
	return b
}

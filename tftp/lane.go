package tftp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lane is a socket that carries many conversations, told apart by the client's address and port. It sits on one of
// the machine's addresses, so that every answer comes from the address that was asked.
type lane struct {
	fd int

	mu    sync.Mutex
	talks map[netip.AddrPort]*talk
	out   outbox
}

// talk is a conversation on a lane.
type talk struct {
	conversation
	name sockaddr
	key  netip.AddrPort // the client; its zone is a number
	over chan struct{}  // closed at the end, after which nobody touches the conversation
}

func newTalk(client netip.AddrPort, c conversation) *talk {
	t := &talk{conversation: c, name: sockaddrOf(client), over: make(chan struct{})}
	t.key = t.name.addrPort()
	return t
}

func newLane(local netip.Addr) (*lane, error) {
	family := unix.AF_INET
	var at unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{}}
	switch {
	case local.Is4():
		at = &unix.SockaddrInet4{Addr: local.As4()}
	case local.Is6():
		family = unix.AF_INET6
		at = &unix.SockaddrInet6{Addr: local.As16(), ZoneId: zoneIndex(local)}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("no socket for TFTP transfers from %s: %w", local, err)
	}
	if err := unix.Bind(fd, at); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("no port for TFTP transfers from %s: %w", local, err)
	}
	for _, option := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1<<20) // what the kernel grants will do
	}
	return &lane{fd: fd, talks: map[netip.AddrPort]*talk{}}, nil
}

// read runs until close.
func (l *lane) read() {
	in := newInbox()
	for {
		n, err := in.read(l.fd)
		now := time.Now()
		l.mu.Lock()
		if l.talks == nil {
			unix.Close(l.fd)
			l.mu.Unlock()
			return
		}
		for i := range n {
			from, datagram := in.datagram(i)
			if t := l.talks[from]; t != nil {
				l.step(t, t.receive(now, datagram))
			}
		}
		l.out.flush(l.fd)
		l.mu.Unlock()
		if err != nil && !errors.Is(err, unix.EINTR) {
			time.Sleep(time.Millisecond) // an ICMP error of an earlier answer: nothing to be done
		}
	}
}

// step queues what a conversation wants to be sent, and takes it off the lane when it has ended.
func (l *lane) step(t *talk, datagram []byte) {
	if datagram != nil {
		l.out.add(l.fd, &t.name, datagram)
	}
	if t.end != talking {
		if l.talks[t.key] == t {
			delete(l.talks, t.key)
		}
		l.out.flush(l.fd) // the datagram's bytes are free after this
		close(t.over)
	}
}

// begin puts t on the lane and answers its request.
func (l *lane) begin(t *talk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.talks == nil {
		t.end = stopped
		close(t.over)
		return
	}
	if old := l.talks[t.key]; old != nil {
		old.end = replaced
		l.step(old, nil)
	}
	l.talks[t.key] = t
	l.step(t, t.begin(time.Now()))
	l.out.flush(l.fd)
}

// resume goes on with t after its file was read further.
func (l *lane) resume(t *talk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.end == talking {
		l.step(t, t.resume(time.Now()))
		l.out.flush(l.fd)
	}
}

// finish ends t from outside.
func (l *lane) finish(t *talk, why ending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.end == talking {
		t.end = why
		l.step(t, nil)
	}
}

// almostOver reports whether only the last ACK of t is missing.
func (l *lane) almostOver(t *talk) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return t.end != talking || t.met && t.last
}

// refuse sends an ERROR to somebody who has no conversation here.
func (l *lane) refuse(client netip.AddrPort, code uint16, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.talks == nil {
		return
	}
	to := sockaddrOf(client)
	l.out.add(l.fd, &to, appendERROR(nil, code, text))
	l.out.flush(l.fd)
}

// expire sends again what is due, and says when to look next; never is the zero time.
func (l *lane) expire(now time.Time) (next time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.talks {
		l.step(t, t.expire(now))
		if t.end == talking && (next.IsZero() || t.due.Before(next)) {
			next = t.due
		}
	}
	l.out.flush(l.fd)
	return next
}

// close ends every conversation and makes read return.
func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.talks {
		t.end = stopped
		l.step(t, nil)
	}
	l.talks = nil
	unix.Shutdown(l.fd, unix.SHUT_RDWR) // wakes read although the socket is not connected
}

func zoneIndex(a netip.Addr) uint32 {
	if a.Zone() == "" {
		return 0
	}
	if i, err := net.InterfaceByName(a.Zone()); err == nil {
		return uint32(i.Index)
	}
	n, _ := strconv.ParseUint(a.Zone(), 10, 32)
	return uint32(n)
}

package tftp

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A lane has two ports. Consecutive requests of a board go out from the one and the other, since its client port grows by
// one each time: what belongs to the transfer before (firmware#1025) then never meets the new one.
const portsPerLane = 2

// lane carries the conversations of one of the machine's addresses, so that every answer comes from the address that
// was asked. They share a few sockets and one goroutine, and are told apart by the two ends' ports.
type lane struct {
	fds [portsPerLane]int

	mu    sync.Mutex
	talks map[ends]*talk
	in    inbox
	out   outbox
}

// ends is what a conversation is known by.
type ends struct {
	port   int // of the lane
	client netip.AddrPort
}

// talk is a conversation on a lane.
type talk struct {
	conversation
	ends
	name sockaddr
	late atomic.Bool   // waits for its file
	over chan struct{} // closed at the end, after which nobody touches the conversation
}

func newTalk(client netip.AddrPort, port int, c conversation) *talk {
	t := &talk{conversation: c, name: sockaddrOf(client), over: make(chan struct{})}
	t.ends = ends{port, t.name.addrPort()}
	return t
}

func newLane(local netip.Addr) (*lane, error) {
	l := &lane{talks: map[ends]*talk{}}
	l.in.prepare()
	for i := range l.fds {
		fd, err := openPort(local)
		if err != nil {
			for _, fd := range l.fds[:i] {
				unix.Close(fd)
			}
			return nil, fmt.Errorf("no port for TFTP transfers from %s: %w", local, err)
		}
		l.fds[i] = fd
	}
	return l, nil
}

func openPort(local netip.Addr) (fd int, err error) {
	family := unix.AF_INET6
	var at unix.Sockaddr = &unix.SockaddrInet6{Addr: local.As16(), ZoneId: zoneIndex(local)}
	if local.Is4() {
		family, at = unix.AF_INET, &unix.SockaddrInet4{Addr: local.As4()}
	}
	if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, at); err != nil {
		unix.Close(fd)
		return 0, err
	}
	for _, option := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1<<20) // what the kernel grants will do
	}
	return fd, nil
}

// run receives until close.
func (l *lane) run() {
	var ready [portsPerLane]unix.PollFd
	for i, fd := range l.fds {
		ready[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	for {
		unix.Poll(ready[:], -1)
		l.mu.Lock()
		if l.talks == nil {
			for _, fd := range l.fds {
				unix.Close(fd)
			}
			l.mu.Unlock()
			return
		}
		for port := range ready {
			if ready[port].Revents != 0 {
				l.receive(port)
			}
		}
		l.mu.Unlock()
	}
}

// receive takes one batch from a port. What is left makes the next poll return at once.
func (l *lane) receive(port int) (n int) {
	n = l.in.read(l.fds[port])
	now := time.Now()
	l.out.heard = true
	for i := range n {
		from, datagram := l.in.datagram(i)
		if t := l.talks[ends{port, from}]; t != nil {
			l.step(t, t.receive(now, datagram))
		}
	}
	l.out.flush()
	l.out.heard = false
	return n
}

// step queues what a conversation wants to be sent, and takes it off the lane when it has ended.
func (l *lane) step(t *talk, datagram []byte) {
	if datagram != nil {
		l.out.add(l.fds[t.port], &t.name, datagram)
	}
	t.late.Store(t.waits())
	if t.end != talking {
		if l.talks[t.ends] == t {
			delete(l.talks, t.ends)
		}
		l.out.flush() // the datagram's bytes are free after this
		close(t.over)
	}
}

// begin puts t on the lane and answers its request.
func (l *lane) begin(t *talk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case t.end != talking: // replaced before it began
		return
	case l.talks == nil:
		t.end = stopped
		close(t.over)
		return
	}
	if old := l.talks[t.ends]; old != nil {
		old.end = replaced
		l.step(old, nil)
	}
	l.talks[t.ends] = t
	l.step(t, t.begin(time.Now()))
	l.out.flush()
}

// resume goes on with t after its file was read further.
func (l *lane) resume(t *talk) {
	if !t.late.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.end == talking {
		l.step(t, t.resume(time.Now()))
		l.out.flush()
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

// overtaken tells t that its client has asked for the next file.
func (l *lane) overtaken(t *talk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t.conversation.overtaken()
}

// refuse sends an ERROR to somebody who has no conversation here.
func (l *lane) refuse(port int, client netip.AddrPort, code uint16, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.talks == nil {
		return
	}
	to := sockaddrOf(client)
	l.out.add(l.fds[port], &to, appendERROR(nil, code, text))
	l.out.flush()
}

// expire sends again what is due, and says when to look next; never is the zero time. What has come in meanwhile is
// heard first: if this process had to wait for a processor, no client shall get a duplicate for it.
func (l *lane) expire(now time.Time) (next time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.due(now) {
		for port := range l.fds {
			for l.receive(port) == batchSize {
			}
		}
	}
	for _, t := range l.talks {
		l.step(t, t.expire(now))
		if t.end == talking && (next.IsZero() || t.due.Before(next)) {
			next = t.due
		}
	}
	l.out.flush()
	return next
}

func (l *lane) due(now time.Time) bool {
	for _, t := range l.talks {
		if !now.Before(t.due) {
			return true
		}
	}
	return false
}

// close ends every conversation and makes run return.
func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.talks {
		t.end = stopped
		l.step(t, nil)
	}
	l.talks = nil
	unix.Shutdown(l.fds[0], unix.SHUT_RDWR) // makes poll return, although the socket is not connected
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

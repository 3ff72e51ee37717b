package pisim

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Host is a machine on a segment in this process, with an address and UDP sockets: for a server written over
// net.PacketConn, and for tests with a fake clock.
type Host struct {
	Addr netip.Addr
	MAC  MAC

	port  *Port
	mu    sync.Mutex
	conns map[uint16]*hostConn
	seen  map[netip.Addr]MAC // who was heard from
	next  uint16             // ephemeral port
}

// Host plugs a machine into the segment. A TFTP server needs a socket per transfer: Listen with port 0.
func (s *Segment) Host(addr netip.Addr, mac MAC) *Host {
	h := &Host{Addr: addr, MAC: mac, conns: map[uint16]*hostConn{}, seen: map[netip.Addr]MAC{}, next: 32768}
	h.port = s.plug(mac, nil, nil, h.receive)
	return h
}

// Close unplugs the host and closes its sockets.
func (h *Host) Close() {
	h.port.Unplug()
	h.mu.Lock()
	conns := h.conns
	h.conns = map[uint16]*hostConn{}
	h.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// Listen opens a UDP socket; port 0 is a free one.
func (h *Host) Listen(port uint16) (net.PacketConn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if port == 0 {
		for h.conns[h.next] != nil || h.next < 32768 {
			h.next++
		}
		port = h.next
		h.next++
	}
	if h.conns[port] != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Err: errors.New("address already in use")}
	}
	c := &hostConn{
		host: h, local: netip.AddrPortFrom(h.Addr, port), queue: make(chan datagram, 1024),
		done: make(chan struct{}), moved: make(chan struct{}),
	}
	h.conns[port] = c
	return c, nil
}

func (h *Host) receive(b []byte) {
	f, ok := parseFrame(b)
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if f.kind == etherARP {
		h.receiveARP(f.arp)
		return
	}
	if f.to.Addr() != h.Addr && f.to.Addr() != netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return
	}
	h.seen[f.from.Addr()] = f.src
	if c := h.conns[f.to.Port()]; c != nil {
		select {
		case c.queue <- datagram{bytes.Clone(f.payload), f.from}:
		default: // the receive buffer is full
		}
	}
}

func (h *Host) receiveARP(a arp) {
	if a.senderIP.IsValid() && !a.senderIP.IsUnspecified() {
		h.seen[a.senderIP] = a.sender
	}
	if a.op == arpRequest && a.targetIP == h.Addr {
		go h.port.Send(arpFrame(a.sender, arp{op: arpReply, sender: h.MAC, senderIP: h.Addr, target: a.sender, targetIP: a.senderIP}))
	}
}

// way is the Ethernet address of a neighbour; everybody's while it is unknown.
func (h *Host) way(ip netip.Addr) MAC {
	h.mu.Lock()
	defer h.mu.Unlock()
	if mac, ok := h.seen[ip]; ok && !ip.IsUnspecified() {
		return mac
	}
	return broadcast
}

// SendTo sends a datagram from a port to an Ethernet address, as a router does with an OFFER to a board that has no
// address yet.
func (h *Host) SendTo(mac MAC, fromPort uint16, to netip.AddrPort, payload []byte) {
	h.port.Send(udpFrame(mac, h.MAC, netip.AddrPortFrom(h.Addr, fromPort), to, payload))
}

type datagram struct {
	data []byte
	from netip.AddrPort
}

// hostConn is a UDP socket of a Host.
type hostConn struct {
	host  *Host
	local netip.AddrPort
	queue chan datagram
	done  chan struct{}
	once  sync.Once

	mu       sync.Mutex
	deadline time.Time
	moved    chan struct{} // closed when the deadline changes
}

func (c *hostConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		c.mu.Lock()
		deadline, moved := c.deadline, c.moved
		c.mu.Unlock()
		var expired <-chan time.Time
		if !deadline.IsZero() {
			t := time.NewTimer(time.Until(deadline))
			defer t.Stop()
			expired = t.C
		}
		select {
		case d := <-c.queue:
			return copy(b, d.data), net.UDPAddrFromAddrPort(d.from), nil
		case <-moved:
		case <-expired:
			return 0, nil, &net.OpError{Op: "read", Net: "udp", Addr: c.LocalAddr(), Err: os.ErrDeadlineExceeded}
		case <-c.done:
			return 0, nil, net.ErrClosed
		}
	}
}

func (c *hostConn) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-c.done:
		return 0, net.ErrClosed
	default:
	}
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: to, Err: errors.New("not a UDP address")}
	}
	ap := udp.AddrPort()
	ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	c.host.SendTo(c.host.way(ap.Addr()), c.local.Port(), ap, b)
	return len(b), nil
}

func (c *hostConn) Close() error {
	c.once.Do(func() {
		close(c.done)
		c.host.mu.Lock()
		defer c.host.mu.Unlock()
		if c.host.conns[c.local.Port()] == c {
			delete(c.host.conns, c.local.Port())
		}
	})
	return nil
}

func (c *hostConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.local) }

func (c *hostConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	close(c.moved)
	c.moved = make(chan struct{})
	return nil
}

// SetDeadline is SetReadDeadline: writes never wait.
func (c *hostConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetWriteDeadline does nothing: writes never wait.
func (c *hostConn) SetWriteDeadline(time.Time) error { return nil }

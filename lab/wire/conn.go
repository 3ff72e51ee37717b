package wire

import (
	"net"
	"os"
	"sync"
	"time"
)

// Conn is a socket behind a faulty cable: both what it sends and what it receives pass through.
type Conn struct {
	net.PacketConn
	plug    *plug
	out, in *lane
	arrived chan packet
	done    chan struct{}
	stop    sync.Once

	mu       sync.Mutex
	deadline time.Time
	moved    chan struct{} // closed when the deadline changes
	err      error         // why reading from the socket ended; set before arrived is closed
}

// Wrap puts conn behind a cable with faults, plugged in now. The new socket owns conn.
func Wrap(conn net.PacketConn, f Faults) *Conn {
	c := &Conn{
		PacketConn: conn,
		plug:       newPlug(),
		arrived:    make(chan packet, 1024),
		done:       make(chan struct{}),
		moved:      make(chan struct{}),
	}
	c.out = newLane(f, 0, c.plug, func(p packet) {
		// A cable does not tell its sender what became of a packet.
		_, _ = conn.WriteTo(p.data, p.addr.(net.Addr))
	})
	c.in = newLane(f, 1, c.plug, func(p packet) {
		p.data = append([]byte(nil), p.data...)
		select {
		case c.arrived <- p:
		default: // the receive buffer is full: lost, as in a kernel
		}
	})
	go c.receive()
	return c
}

// receive feeds the incoming lane until the socket is closed.
func (c *Conn) receive() {
	buf := make([]byte, 65536)
	for {
		n, addr, err := c.PacketConn.ReadFrom(buf)
		if err != nil {
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			c.stop.Do(func() { close(c.done) })
			return
		}
		c.in.send(buf[:n], addr)
	}
}

// ReadFrom returns the next packet that got through.
func (c *Conn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		c.mu.Lock()
		deadline, moved := c.deadline, c.moved
		c.mu.Unlock()
		n, addr, err, again := c.await(b, deadline, moved)
		if !again {
			return n, addr, err
		}
	}
}

// await is one wait of ReadFrom, to be repeated when the deadline moved meanwhile.
func (c *Conn) await(b []byte, deadline time.Time, moved <-chan struct{}) (n int, addr net.Addr, err error, again bool) {
	var expired <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case p := <-c.arrived:
		return copy(b, p.data), p.addr.(net.Addr), nil, false
	case <-moved:
		return 0, nil, nil, true
	case <-expired:
		return 0, nil, &net.OpError{Op: "read", Net: "wire", Addr: c.LocalAddr(), Err: os.ErrDeadlineExceeded}, false
	case <-c.done:
		c.mu.Lock()
		defer c.mu.Unlock()
		return 0, nil, c.closed(), false
	}
}

// WriteTo sends a packet and reports success also when the cable loses it.
func (c *Conn) WriteTo(b []byte, addr net.Addr) (int, error) {
	select {
	case <-c.done:
		c.mu.Lock()
		defer c.mu.Unlock()
		return 0, c.closed()
	default:
		c.out.send(b, addr)
		return len(b), nil
	}
}

func (c *Conn) closed() error {
	if c.err != nil {
		return c.err
	}
	return net.ErrClosed
}

// SetDeadline sets the deadline of reads; writes never block.
func (c *Conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline sets when reads give up.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	close(c.moved)
	c.moved = make(chan struct{})
	return nil
}

// Cut pulls the cable, Plug puts it in again, which starts DropFirst anew.
func (c *Conn) Cut()  { c.plug.cut.Store(true) }
func (c *Conn) Plug() { c.plug.in() }

// Stats counts the packets sent and received.
func (c *Conn) Stats() (out, in Stats) { return c.out.counted(), c.in.counted() }

// Close closes the socket; packets under way are lost.
func (c *Conn) Close() error {
	c.out.close()
	c.in.close()
	c.stop.Do(func() { close(c.done) })
	return c.PacketConn.Close()
}

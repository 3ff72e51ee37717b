package wire_test

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"bramble/lab/wire"
)

func listen(t *testing.T) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// receive returns the next packet within a short time, or "".
func receive(t *testing.T, c net.PacketConn) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, _, err := c.ReadFrom(buf)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func send(t *testing.T, from, to net.PacketConn, text string) {
	t.Helper()
	if n, err := from.WriteTo([]byte(text), to.LocalAddr()); err != nil || n != len(text) {
		t.Fatalf("WriteTo = %d, %v", n, err)
	}
}

func TestConn(t *testing.T) {
	plain := listen(t)
	conn := wire.Wrap(listen(t), wire.Faults{})
	send(t, conn, plain, "out")
	if got := receive(t, plain); got != "out" {
		t.Errorf("received %q, want out", got)
	}
	send(t, plain, conn, "in")
	if got := receive(t, conn); got != "in" {
		t.Errorf("received %q, want in", got)
	}

	conn.Cut()
	send(t, conn, plain, "lost")
	send(t, plain, conn, "lost")
	if got := receive(t, plain) + receive(t, conn); got != "" {
		t.Errorf("received %q through a cut cable", got)
	}
	conn.Plug()
	send(t, plain, conn, "back")
	if got := receive(t, conn); got != "back" {
		t.Errorf("received %q, want back", got)
	}
	if out, in := conn.Stats(); out != (wire.Stats{Sent: 1, Blocked: 1}) || in != (wire.Stats{Sent: 2, Blocked: 1}) {
		t.Errorf("counted out %+v, in %+v", out, in)
	}
}

func TestConnDuplicates(t *testing.T) {
	plain := listen(t)
	conn := wire.Wrap(listen(t), wire.Faults{Dup: 1})
	send(t, plain, conn, "twice")
	if a, b := receive(t, conn), receive(t, conn); a != "twice" || b != "twice" {
		t.Errorf("received %q and %q, want the same twice", a, b)
	}
}

func TestConnDeadlineMoves(t *testing.T) {
	conn := wire.Wrap(listen(t), wire.Faults{})
	time.AfterFunc(20*time.Millisecond, func() { _ = conn.SetReadDeadline(time.Now()) })
	_, _, err := conn.ReadFrom(make([]byte, 1))
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("a read whose deadline was moved to now ended with %v, want a timeout", err)
	}
}

func TestConnClose(t *testing.T) {
	conn := wire.Wrap(listen(t), wire.Faults{})
	time.AfterFunc(20*time.Millisecond, func() { conn.Close() })
	if _, _, err := conn.ReadFrom(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read during Close ended with %v, want net.ErrClosed", err)
	}
	if _, err := conn.WriteTo([]byte("x"), conn.LocalAddr()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write after Close ended with %v, want net.ErrClosed", err)
	}
}

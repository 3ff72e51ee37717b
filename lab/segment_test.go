package lab_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"bramble/lab"
	"bramble/lab/wire"
)

func TestHostsReachEachOther(t *testing.T) {
	lab.Need(t, "ip", "nsenter", "ping")
	t.Parallel()
	seg := lab.NewSegment(t)
	a := seg.Host("a", "10.1.0.1/24")
	b := seg.Host("b", "10.1.0.2/24")
	if err := a.Run("ping", "-c", "1", "-W", "2", "10.1.0.2"); err != nil {
		t.Error(err)
	}

	var conn net.PacketConn
	err := b.Do(func() (err error) {
		conn, err = net.ListenPacket("udp4", "10.1.0.2:69")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = a.Do(func() error {
		c, err := net.Dial("udp4", "10.1.0.2:69")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = fmt.Fprint(c, "hello")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	n, from, err := conn.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "hello" || !strings.HasPrefix(from.String(), "10.1.0.1:") {
		t.Errorf("received %q from %v, %v; want hello from 10.1.0.1", buf[:n], from, err)
	}
}

func TestSegmentsAreApart(t *testing.T) {
	lab.Need(t, "ip", "nsenter", "ping")
	t.Parallel()
	one, other := lab.NewSegment(t), lab.NewSegment(t)
	a := one.Host("host", "10.1.0.1/24")
	other.Host("host", "10.1.0.2/24")
	if err := a.Run("ping", "-c", "1", "-W", "1", "10.1.0.2"); err == nil {
		t.Fatal("a ping crossed from one segment to another")
	}
	w, err := one.Connect(other.Segment, "link", wire.Faults{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run("ping", "-c", "1", "-W", "2", "10.1.0.2"); err != nil {
		t.Errorf("segments joined by a wire: %v", err)
	}
	w.Cut()
	if err := a.Run("ping", "-c", "1", "-W", "1", "10.1.0.2"); err == nil {
		t.Error("a ping crossed a wire that is cut")
	}
}

func TestPortNames(t *testing.T) {
	lab.Need(t, "ip", "nsenter")
	t.Parallel()
	seg := lab.NewSegment(t)
	seg.Host("thirteen-char")
	for _, name := range []string{"thirteen-char", "fourteen-chars", "", "bridge"} {
		if _, err := seg.AddHost(name); err == nil {
			t.Errorf("AddHost(%q) succeeded, want an error", name)
		}
	}
}

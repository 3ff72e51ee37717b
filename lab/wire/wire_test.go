package wire_test

import (
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"testing"
	"time"

	"bramble/lab"
	"bramble/lab/wire"
)

// pings sends count pings through a wire with faults and returns ping's own counts.
func pings(t *testing.T, f wire.Faults, count int) (received, duplicates int, out string) {
	t.Helper()
	seg := lab.NewSegment(t)
	seg.HostBehind(f, "far", "10.2.0.2/24")
	near := seg.Host("near", "10.2.0.1/24")
	// ping fails when all are lost, which its output says just as well.
	out, _ = near.Output("ping", "-q", "-i", "0.005", "-W", "1", "-c", strconv.Itoa(count), "10.2.0.2")
	number := func(pattern string) int {
		m := regexp.MustCompile(pattern).FindStringSubmatch(out)
		if m == nil {
			return 0
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return number(`(\d+) received`), number(`\+(\d+) duplicates`), out
}

func TestPingThroughFaults(t *testing.T) {
	lab.Need(t, "ip", "nsenter", "ping")
	const count = 200
	for _, test := range []struct {
		name                 string
		faults               wire.Faults
		received, duplicates [2]int // at least, at most
	}{
		{"none", wire.Faults{}, [2]int{count, count}, [2]int{0, 0}},
		{"loss", wire.Faults{Loss: 0.1, Seed: 1}, [2]int{130, 185}, [2]int{0, 0}}, // 81 % are expected to survive both ways
		{"duplication", wire.Faults{Dup: 0.1, Seed: 1}, [2]int{count, count}, [2]int{20, 70}},
		{"reordering", wire.Faults{Reorder: 0.3, Hold: 20 * time.Millisecond, Seed: 1}, [2]int{count, count}, [2]int{0, 0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			received, duplicates, out := pings(t, test.faults, count)
			if received < test.received[0] || received > test.received[1] {
				t.Errorf("%d of %d received, want %v:\n%s", received, count, test.received, out)
			}
			if duplicates < test.duplicates[0] || duplicates > test.duplicates[1] {
				t.Errorf("%d duplicates, want %v:\n%s", duplicates, test.duplicates, out)
			}
		})
	}
}

func TestDelayShows(t *testing.T) {
	lab.Need(t, "ip", "nsenter", "ping")
	t.Parallel()
	_, _, out := pings(t, wire.Faults{Delay: 30 * time.Millisecond}, 20)
	m := regexp.MustCompile(`min/avg/max/mdev = ([0-9.]+)/`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no round trip times in:\n%s", out)
	}
	if ms, err := strconv.ParseFloat(m[1], 64); err != nil || ms < 60 {
		t.Errorf("shortest round trip %s ms (%v), want 30 ms each way", m[1], err)
	}
}

// TestStream sends TCP, whose segments and checksums virtual interfaces leave unfinished unless told otherwise.
func TestStream(t *testing.T) {
	lab.Need(t, "ip", "nsenter")
	t.Parallel()
	const size = 4 << 20
	seg := lab.NewSegment(t)
	near := seg.Host("near", "10.2.0.1/24")
	far := seg.HostBehind(wire.Faults{Loss: 0.001, Seed: 3}, "far", "10.2.0.2/24")

	for _, way := range []struct {
		name           string
		client, server *lab.Host
		addr           string
	}{{"away", near, far, "10.2.0.2:80"}, {"back", far, near, "10.2.0.1:80"}} {
		t.Run(way.name, func(t *testing.T) {
			var listener net.Listener
			err := way.server.Do(func() (err error) { listener, err = net.Listen("tcp4", way.addr); return err })
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			got := make(chan error, 1)
			go func() {
				c, err := listener.Accept()
				if err != nil {
					got <- err
					return
				}
				defer c.Close()
				n, err := io.Copy(io.Discard, c)
				if err == nil && n != size {
					err = fmt.Errorf("%d bytes arrived, want %d", n, size)
				}
				got <- err
			}()
			var c net.Conn
			err = way.client.Do(func() (err error) { c, err = net.DialTimeout("tcp4", way.addr, 5*time.Second); return err })
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-got:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(20 * time.Second):
				t.Error("the stream does not end")
			}
		})
	}
	if there, back := far.Wire.Stats(); there.Lost+back.Lost == 0 {
		t.Errorf("the wire lost nothing: %+v, %+v", there, back)
	}
}

func TestCutAndPlug(t *testing.T) {
	lab.Need(t, "ip", "nsenter", "ping")
	t.Parallel()
	seg := lab.NewSegment(t)
	near := seg.Host("near", "10.2.0.1/24")
	far := seg.HostBehind(wire.Faults{}, "far", "10.2.0.2/24")
	ping := func() error { return near.Run("ping", "-c", "1", "-W", "1", "10.2.0.2") }
	if err := ping(); err != nil {
		t.Error(err)
	}
	far.Wire.Cut()
	if ping() == nil {
		t.Error("a ping came through a wire that is cut")
	}
	far.Wire.Plug()
	if err := ping(); err != nil {
		t.Error(err)
	}
}

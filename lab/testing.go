package lab

import (
	"bufio"
	"os"
	"os/exec"
	"testing"

	"bramble/lab/netns"
	"bramble/lab/pisim"
	"bramble/lab/wire"
)

// Bench is a Segment for tests: what cannot be built fails the test, and all of it ends with the test.
type Bench struct {
	*Segment
	t testing.TB
}

// NewSegment makes a segment for a test that has called Need.
func NewSegment(t testing.TB) *Bench {
	t.Helper()
	s, err := OpenSegment()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("cannot remove the segment: %v", err)
		}
	})
	return &Bench{s, t}
}

// Host is AddHost.
func (b *Bench) Host(name string, addrs ...string) *Host {
	b.t.Helper()
	h, err := b.AddHost(name, addrs...)
	return must(b.t, h, err)
}

// HostBehind is AddHostBehind.
func (b *Bench) HostBehind(faults wire.Faults, name string, addrs ...string) *Host {
	b.t.Helper()
	h, err := b.AddHostBehind(faults, name, addrs...)
	return must(b.t, h, err)
}

// Tap is AddTap; it returns the name of the tap interface.
func (b *Bench) Tap(name string) string {
	b.t.Helper()
	return must(b.t, name, b.AddTap(name))
}

// HouseRouter is AddRouter.
func (b *Bench) HouseRouter(cfg RouterConfig) *Router {
	b.t.Helper()
	r, err := b.AddRouter(cfg)
	return must(b.t, r, err)
}

// Boards is a switch for simulated boards behind a host's eth0. The host needs no address.
func (b *Bench) Boards(h *Host) *pisim.Segment {
	b.t.Helper()
	boards := &pisim.Segment{}
	var up *pisim.Uplink
	err := h.Do(func() (err error) {
		up, err = boards.Uplink("eth0")
		return err
	})
	must(b.t, up, err)
	b.t.Cleanup(func() { _ = up.Close() })
	return boards
}

// Again runs this test binary a second time, in a network namespace and with a variable by which its TestMain knows
// what to be, until it has printed a line; what it prints then is for the caller to read. The caller ends it.
func Again(t testing.TB, ns *netns.NS, variable, value string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	exe, err := os.Executable()
	cmd := ns.Command(must(t, exe, err))
	cmd.Env = append(os.Environ(), variable+"="+value)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	lines := bufio.NewScanner(must(t, out, err))
	must(t, cmd, cmd.Start())
	if !lines.Scan() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatal("the process did not start; its reason stands above")
	}
	return cmd, lines
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

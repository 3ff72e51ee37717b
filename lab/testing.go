package lab

import (
	"testing"

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

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

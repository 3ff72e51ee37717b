package tftp

import (
	"context"
	"net/netip"
	"sync"
)

// gate bounds the transfers that are open at once, in total and for each client address. Who comes too many waits
// in the order of arrival: a boot ROM would take a refusal for a missing file.
type gate struct {
	mu      sync.Mutex
	free    int
	each    int
	open    map[netip.Addr]int
	waiting []*waiter
}

type waiter struct {
	client netip.Addr
	in     chan struct{}
}

func newGate(total, each int) *gate {
	return &gate{free: total, each: each, open: map[netip.Addr]int{}}
}

// enter waits for a place; every success wants a leave.
func (g *gate) enter(ctx context.Context, client netip.Addr) error {
	g.mu.Lock()
	if g.admit(client) {
		g.mu.Unlock()
		return nil
	}
	w := &waiter{client, make(chan struct{})}
	g.waiting = append(g.waiting, w)
	g.mu.Unlock()

	select {
	case <-w.in:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.waiting {
		if g.waiting[i] == w {
			g.waiting = append(g.waiting[:i], g.waiting[i+1:]...)
			return ctx.Err()
		}
	}
	g.release(client) // the place came in the same moment
	return ctx.Err()
}

// leave gives a place back.
func (g *gate) leave(client netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.release(client)
}

func (g *gate) admit(client netip.Addr) bool {
	if g.free == 0 || g.open[client] >= g.each {
		return false
	}
	g.free--
	g.open[client]++
	return true
}

func (g *gate) release(client netip.Addr) {
	g.free++
	if g.open[client]--; g.open[client] == 0 {
		delete(g.open, client)
	}
	still := g.waiting[:0]
	for _, w := range g.waiting {
		if g.admit(w.client) {
			close(w.in)
		} else {
			still = append(still, w)
		}
	}
	clear(g.waiting[len(still):])
	g.waiting = still
}

package node

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Registry holds the state of every board that was seen booting: the fold, kept up to date. Safe for concurrent use.
// Only netboot clients come into it, at most MaxNodes of them (design rule 2: strangers cost nothing).
type Registry struct {
	mu    sync.RWMutex
	nodes map[MAC]State
}

// MaxNodes bounds a registry. A board that never got past its boot ROM makes room for a new one.
const MaxNodes = 4096

// NewRegistry returns an empty registry.
func NewRegistry() *Registry { return &Registry{nodes: map[MAC]State{}} }

// Apply folds e into its node's state. Events that are about no board change nothing.
func (r *Registry) Apply(e Event) {
	if e.Node.IsZero() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Kind == Forgotten {
		delete(r.nodes, e.Node)
		return
	}
	s, known := r.nodes[e.Node]
	if !known && len(r.nodes) >= MaxNodes && !r.evict() {
		return
	}
	s = Apply(s, e)
	if s.Addr.IsValid() && s.Addr != r.nodes[e.Node].Addr {
		r.release(s.Addr, e.Node)
	}
	r.nodes[e.Node] = s
}

// release takes an address from the node that had it before: two boards never hold one (the boot ROM's offers
// bind nobody, so a router may give the same address again, firmware#1303).
func (r *Registry) release(a netip.Addr, keep MAC) {
	for m, s := range r.nodes {
		if s.Addr == a && m != keep {
			s.Addr = netip.Addr{}
			r.nodes[m] = s
		}
	}
}

// evict drops the board that was silent longest among those that never fetched a file.
func (r *Registry) evict() bool {
	var oldest MAC
	for m, s := range r.nodes {
		if s.Stage > StageROM || s.Boots > 1 {
			continue
		}
		if oldest.IsZero() || s.Last.Time.Before(r.nodes[oldest].Last.Time) {
			oldest = m
		}
	}
	delete(r.nodes, oldest)
	return !oldest.IsZero()
}

// Get returns the state of one board; ok is false for a board never seen.
func (r *Registry) Get(m MAC) (s State, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s, ok = r.nodes[m]
	return s, ok
}

// BySerial finds a board by its serial number.
func (r *Registry) BySerial(serial Serial) (State, bool) {
	if serial == 0 {
		return State{}, false
	}
	return r.find(func(s State) bool { return s.Serial == serial })
}

// ByAddr finds the board that was last seen with an address.
func (r *Registry) ByAddr(a netip.Addr) (State, bool) {
	return r.find(func(s State) bool { return s.Addr == a })
}

// Find looks a board up by what a person types: name, serial number or MAC address.
func (r *Registry) Find(word string) (State, bool) {
	if m, err := ParseMAC(word); err == nil {
		return r.Get(m)
	}
	if serial, err := ParseSerial(word); err == nil {
		if s, ok := r.BySerial(serial); ok {
			return s, true
		}
	}
	return r.find(func(s State) bool { return s.Name != "" && strings.EqualFold(s.Name, word) })
}

func (r *Registry) find(is func(State) bool) (State, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var found State
	for _, s := range r.nodes {
		// of several, the one heard of last
		if is(s) && !s.Last.Time.Before(found.Last.Time) {
			found = s
		}
	}
	return found, !found.MAC.IsZero()
}

// All returns every state, ordered by name and then by MAC.
func (r *Registry) All() []State {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]State, 0, len(r.nodes))
	for _, s := range r.nodes {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b State) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.MAC.String(), b.MAC.String())
	})
	return all
}

// Restore puts states into the registry in the place of all that it held.
func (r *Registry) Restore(states []State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes = make(map[MAC]State, len(states))
	for _, s := range states {
		r.nodes[s.MAC] = s
	}
}

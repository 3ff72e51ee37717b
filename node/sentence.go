package node

// Restore puts states into the registry in the place of all that it held.
func (r *Registry) Restore(states []State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes = make(map[MAC]State, len(states))
	for _, s := range states {
		r.nodes[s.MAC] = s
	}
}

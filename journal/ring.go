package journal

import "bramble/node"

// ring holds the newest events, at most size of them. Their Seq are consecutive and end before next.
type ring struct {
	size   int
	origin uint64 // Seq of the first event that was ever added
	next   uint64 // Seq of the event to come
	events []node.Event
}

func (r *ring) add(e node.Event) {
	if len(r.events) == 0 {
		r.origin = e.Seq
	}
	if len(r.events) < r.size {
		r.events = append(r.events, e)
	} else {
		r.events[r.slot(e.Seq)] = e
	}
	r.next = e.Seq + 1
}

func (r *ring) slot(seq uint64) int { return int((seq - r.origin) % uint64(r.size)) }

// first is the Seq of the oldest event held; next when there is none.
func (r *ring) first() uint64 { return r.next - uint64(len(r.events)) }

// after returns up to limit events with a Seq above seq, of one board or, with the zero MAC, of all.
func (r *ring) after(seq uint64, mac node.MAC, limit int) []node.Event {
	var found []node.Event
	for s := max(seq+1, r.first()); s < r.next && len(found) < limit; s++ {
		if e := r.events[r.slot(s)]; mac.IsZero() || e.Node == mac {
			found = append(found, e)
		}
	}
	return found
}

package boot

import (
	"sync"
	"time"

	"bramble/node"
)

// Desk is where servers ask. It puts a board's state, the present rules and the clock to Decide, and records
// that a boot has begun, so that two packets of one board at the same moment never open two boots.
type Desk struct {
	Nodes  *node.Registry
	Rules  func() Rules     // the present snapshot
	Record func(node.Event) // appends to the journal and folds into Nodes before it returns
	Now    func() time.Time

	// At is the rules of an older commit, for the boots that are pinned to it; false when it is not known any more.
	// nil: boots under way follow the present rules.
	At func(commit string) (Rules, bool)

	mu sync.Mutex
}

// rules are those that hold for a question: a boot under way keeps the commit that it began with (design rule 1).
func (d *Desk) rules(q Request, n node.State) Rules {
	now := d.Rules()
	if d.At == nil || n.Commit == "" || n.Commit == now.Commit || Begins(q, n) {
		return now
	}
	if then, ok := d.At(n.Commit); ok {
		return then
	}
	return now
}

// Ask answers one question of a server. q.Now may be left zero.
func (d *Desk) Ask(q Request) Plan {
	d.mu.Lock()
	defer d.mu.Unlock()
	if q.Now.IsZero() {
		q.Now = d.Now()
	}
	n, _ := d.Nodes.Get(q.MAC)
	p := Decide(q, n, d.rules(q, n))
	switch {
	case p.Serve && p.Begins:
		d.Record(node.Event{
			Time: q.Now, Kind: node.BootStarted, Node: q.MAC, Boot: p.Boot, Serial: q.Serial, Model: q.Model,
			Name: p.Name, Image: p.Image, Commit: p.Commit, Text: p.Reason,
		})
	case !p.Serve && q.Step == Discover && n.Problem != p.Reason:
		// once per change of mind, not once per DISCOVER
		d.Record(node.Event{
			Time: q.Now, Kind: node.BootRefused, Node: q.MAC, Serial: q.Serial, Model: q.Model, Text: p.Reason,
		})
	}
	return p
}

// Peek is what Ask would answer, without anything beginning or being recorded.
func (d *Desk) Peek(q Request) Plan {
	if q.Now.IsZero() {
		q.Now = d.Now()
	}
	n, _ := d.Nodes.Get(q.MAC)
	return Decide(q, n, d.rules(q, n))
}

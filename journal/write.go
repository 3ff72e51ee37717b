package journal

import (
	"context"
	"fmt"
	"time"

	"bramble/node"
)

// store is what the journal needs of a disk. One goroutine appends; any number read.
type store interface {
	// append adds events in order. After an error an unknown number of the first ones are stored, and the store is
	// only good for close.
	append(context.Context, []node.Event) error
	// last is the Seq of the newest event that was there when the store was opened.
	last() uint64
	read(context.Context, query) ([]node.Event, error)
	// lastBoot is the Seq of a board's newest boot; 0 when there is none.
	lastBoot(context.Context, node.MAC) (uint64, error)
	saveFold(context.Context, fold) error
	loadFold(context.Context) (fold, error)
	// remarks are sentences about what opening found.
	remarks() []string
	close()
}

// query asks for events with after < Seq, and Seq <= upTo unless that is 0; of one board unless node is zero.
type query struct {
	after, upTo uint64
	node        node.MAC
	limit       int
}

// fold is the registry as it was after the event Seq.
type fold struct {
	Seq   uint64       `json:"seq"`
	Nodes []node.State `json:"nodes"`
}

// write is the goroutine that owns the store.
func (j *Journal) write(ctx context.Context) {
	defer close(j.done)
	retry := time.NewTimer(j.wait)
	for {
		wake := j.wake
		if j.Stats().Trouble != "" {
			wake = nil // not before the timer says so
		} else {
			retry.Stop()
		}
		select {
		case <-ctx.Done():
			j.finish()
			return
		case <-wake:
		case <-retry.C:
		}
		// An append that is under way is never cut off: what it did could not be known.
		if err := j.drain(context.WithoutCancel(ctx), snapshotEvery); err != nil {
			j.fail(err)
			retry.Reset(j.wait)
		}
	}
}

// finish is the last try, with a snapshot, so that the next start replays nothing.
func (j *Journal) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := j.drain(ctx, 1)
	if err == nil {
		err = j.drain(ctx, 1) // the first may have had something to say itself
	}
	if err != nil {
		j.opt.Log.Error("the journal was not stored to its end", "err", err)
	}
	if j.store != nil {
		j.store.close()
	}
}

// drain stores everything that was recorded, and a snapshot once every events came since the last one.
func (j *Journal) drain(ctx context.Context, every uint64) error {
	if err := j.reopen(ctx); err != nil {
		return err
	}
	missed := uint64(0)
	for {
		j.mu.Lock()
		events := j.recent.after(j.stored, node.MAC{}, batch)
		if len(events) > 0 { // those before them were pushed out of memory
			missed += events[0].Seq - 1 - j.stored
			j.lost += events[0].Seq - 1 - j.stored
			j.stored = events[0].Seq - 1
		}
		j.mu.Unlock()
		if len(events) == 0 {
			break
		}
		if err := j.store.append(ctx, events); err != nil {
			return err
		}
		j.mu.Lock()
		j.stored = events[len(events)-1].Seq
		j.announce()
		j.mu.Unlock()
	}
	if !j.well() && missed > 0 {
		j.Record(node.Event{Kind: node.Warning, Step: "journal", Text: fmt.Sprintf(
			"%d events are missing on disk: they came faster than it takes them.", missed)})
	}
	j.mu.Lock()
	if j.last < j.snapped+every || j.stored != j.last {
		j.mu.Unlock()
		return nil
	}
	f := fold{Seq: j.last, Nodes: j.nodes.All()} // under mu, so that the two belong together
	j.mu.Unlock()
	if err := j.store.saveFold(ctx, f); err != nil {
		return err
	}
	j.mu.Lock()
	j.snapped = f.Seq
	j.mu.Unlock()
	return nil
}

// reopen gets a store when there is none. How much the old one took of its last batch is told by its end.
func (j *Journal) reopen(ctx context.Context) error {
	if j.store != nil {
		return nil
	}
	st, err := j.open(ctx)
	if err != nil {
		return err
	}
	f := fold{}
	if !j.known {
		if f, err = replay(ctx, st); err != nil {
			st.close()
			return err
		}
	}
	j.mu.Lock()
	j.store = st
	if !j.known {
		j.adopt(f)
	} else if last := st.last(); last > j.stored && last <= j.last {
		j.stored = last
	}
	j.snapped = 0 // the next snapshot bridges whatever is missing
	j.mu.Unlock()
	for _, text := range st.remarks() {
		j.Record(node.Event{Kind: node.Warning, Step: "store", Text: text})
	}
	return nil
}

// adopt puts what the store knows under what happened since the start. The caller holds mu.
func (j *Journal) adopt(f fold) {
	j.known = true
	if j.last == 0 {
		j.nodes.Restore(f.Nodes)
		j.last, j.stored, j.recent.next = f.Seq, f.Seq, f.Seq+1
		return
	}
	both := node.NewRegistry()
	both.Restore(f.Nodes)
	for _, e := range j.recent.after(0, node.MAC{}, j.recent.size) {
		both.Apply(e)
	}
	j.nodes.Restore(both.All())
}

// replay rebuilds the fold: the newest snapshot, and the events after it.
func replay(ctx context.Context, st store) (fold, error) {
	f, err := st.loadFold(ctx)
	if err != nil {
		return fold{}, err
	}
	nodes := node.NewRegistry()
	nodes.Restore(f.Nodes)
	for {
		events, err := st.read(ctx, query{after: f.Seq, limit: 1024})
		if err != nil {
			return fold{}, err
		}
		if len(events) == 0 {
			return fold{Seq: max(f.Seq, st.last()), Nodes: nodes.All()}, nil
		}
		for _, e := range events {
			nodes.Apply(e)
			f.Seq = e.Seq
		}
	}
}

// fail lets go of a store that does not work, and says so once.
func (j *Journal) fail(err error) {
	j.mu.Lock()
	st, before := j.store, j.trouble
	j.store, j.trouble = nil, err.Error()
	j.mu.Unlock()
	if st != nil {
		st.close()
	}
	if before != "" {
		return
	}
	j.opt.Log.Error("the journal's store does not work", "err", err)
	j.Record(node.Event{Kind: node.Warning, Step: "journal", Text: fmt.Sprintf(
		"The journal cannot be written: %v. Boots go on; what happens now will be missing after a restart if this lasts.", err)})
}

// well says, after a failure, that it is over, and reports whether there was one.
func (j *Journal) well() bool {
	j.mu.Lock()
	was, lost := j.trouble, j.lost
	j.trouble = ""
	j.mu.Unlock()
	if was == "" {
		return false
	}
	text := "The journal can be written again; nothing was lost."
	if lost > 0 {
		text = fmt.Sprintf("The journal can be written again; %d events of the time in between are missing on disk.", lost)
	}
	j.opt.Log.Info("the journal's store works again", "lost", lost)
	j.Record(node.Event{Kind: node.Warning, Step: "journal", Text: text})
	return true
}

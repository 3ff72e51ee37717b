package journal

import (
	"context"
	"fmt"

	"bramble/node"
)

// MaxLimit bounds what one call returns.
const MaxLimit = 10_000

// Since returns up to limit events with a Seq above seq, oldest first: of one board, or of all with the zero MAC.
// What was recorded before the call is seen, stored or not. A limit of 0 means MaxLimit.
func (j *Journal) Since(ctx context.Context, seq uint64, mac node.MAC, limit int) ([]node.Event, error) {
	if limit <= 0 || limit > MaxLimit {
		limit = MaxLimit
	}
	var found []node.Event
	for len(found) < limit {
		j.mu.Lock()
		first, st := j.recent.first(), j.store
		if seq+1 >= first || st == nil {
			found = append(found, j.recent.after(seq, mac, limit-len(found))...)
			j.mu.Unlock()
			break
		}
		j.mu.Unlock()
		q := query{after: seq, upTo: first - 1, node: mac, limit: limit - len(found)}
		events, err := st.read(ctx, q)
		if err != nil {
			return nil, fmt.Errorf("the journal cannot be read: %w", err)
		}
		found = append(found, events...)
		seq = q.upTo
		if len(events) == q.limit {
			break
		}
	}
	return found, nil
}

// Boot returns the newest boot of a board: its first event and the limit-1 newest after it. It is empty for a board
// that never booted.
func (j *Journal) Boot(ctx context.Context, mac node.MAC, limit int) ([]node.Event, error) {
	begin, err := j.lastBoot(ctx, mac)
	if err != nil || begin == 0 {
		return nil, err
	}
	events, err := j.Since(ctx, begin-1, mac, MaxLimit)
	if cut := len(events) - limit; err == nil && limit > 0 && cut > 0 {
		events = append(events[:1], events[1+cut:]...)
	}
	return events, err
}

func (j *Journal) lastBoot(ctx context.Context, mac node.MAC) (uint64, error) {
	j.mu.Lock()
	st := j.store
	var begin uint64
	for _, e := range j.recent.after(0, mac, j.recent.size) {
		if e.Kind == node.BootStarted {
			begin = e.Seq
		}
	}
	oldest := j.recent.first()
	j.mu.Unlock()
	if begin != 0 || st == nil || oldest <= 1 {
		return begin, nil
	}
	begin, err := st.lastBoot(ctx, mac)
	if err != nil {
		return 0, fmt.Errorf("the last boot of %s cannot be looked up: %w", mac, err)
	}
	return begin, nil
}

// Subscribe hands over every event with a Seq above fromSeq, in the order of the journal, until ctx ends; then the
// channel is closed. Older events come from the store. A reader that falls more than Options.Recent events behind
// while it follows loses the oldest of them: a Warning without Seq says how many, and nobody waits for the reader.
// A fromSeq beyond the end means: only what is new.
func (j *Journal) Subscribe(ctx context.Context, fromSeq uint64) <-chan node.Event {
	out := make(chan node.Event, 16)
	j.mu.Lock()
	at := min(fromSeq, j.last)
	j.mu.Unlock()
	go func() {
		defer close(out)
		following := false
		for {
			events, changed := j.next(ctx, &at, &following)
			for _, e := range events {
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			}
			if len(events) > 0 {
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// next returns the events after *at and moves *at behind them, or a channel that closes when something changes.
// following is set once the reader has reached the events in memory.
func (j *Journal) next(ctx context.Context, at *uint64, following *bool) ([]node.Event, <-chan struct{}) {
	const few = 64
	j.mu.Lock()
	first, st, changed := j.recent.first(), j.store, j.changed
	if *at+1 >= first {
		*following = true
		events := j.recent.after(*at, node.MAC{}, few)
		j.mu.Unlock()
		if len(events) > 0 {
			*at = events[len(events)-1].Seq
		}
		return events, changed
	}
	j.mu.Unlock()
	if !*following && st != nil {
		events, err := st.read(ctx, query{after: *at, upTo: first - 1, limit: few})
		if err == nil && len(events) == few {
			*at = events[few-1].Seq
			return events, changed
		}
		if err == nil {
			*at = first - 1
			if len(events) > 0 {
				return events, changed
			}
			return j.next(ctx, at, following)
		}
	}
	missed := first - 1 - *at
	*at = first - 1
	return []node.Event{{
		Time: j.opt.Now().UTC(), Kind: node.Warning, Step: "reader",
		Text: fmt.Sprintf("%d events are left out here: they came faster than this reader took them.", missed),
	}}, changed
}

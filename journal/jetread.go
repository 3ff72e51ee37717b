package journal

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"

	"bramble/node"
)

// direct is JetStream's batched direct get (NATS ADR-31): no consumer is made on the server.
type direct struct {
	Seq      uint64 `json:"seq"`
	NextFor  string `json:"next_by_subj,omitempty"`
	Batch    int    `json:"batch"`
	MaxBytes int    `json:"max_bytes"`
}

func (s *jetStore) read(ctx context.Context, q query) ([]node.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	number, err := s.numberAfter(ctx, q.after)
	if err != nil {
		return nil, err
	}
	var found []node.Event
	for len(found) < q.limit {
		events, next, err := s.get(ctx, number, q)
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			if q.upTo != 0 && e.Seq > q.upTo {
				return found, nil
			}
			if e.Seq > q.after && len(found) < q.limit {
				found = append(found, e)
			}
		}
		if next == number {
			break
		}
		number = next
	}
	return found, nil
}

// get reads one batch from a JetStream number on; next is number when there was nothing more. Events that cannot
// be understood are left out.
func (s *jetStore) get(ctx context.Context, number uint64, q query) (events []node.Event, next uint64, err error) {
	ask := direct{Seq: number, NextFor: ">", Batch: min(max(q.limit, 16), 512), MaxBytes: 1 << 20}
	if !q.node.IsZero() {
		ask.NextFor = "bramble.node." + hex.EncodeToString(q.node[:]) + ".>"
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, 0, err
	}
	inbox := nats.NewInbox()
	sub, err := s.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, 0, err
	}
	defer sub.Unsubscribe()
	if err := s.nc.PublishRequest("$JS.API.DIRECT.GET."+eventStream, inbox, body); err != nil {
		return nil, 0, err
	}
	next = number
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, 0, fmt.Errorf("its store does not answer: %w", err)
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204", "404": // the end of the batch; nothing from here on
			return events, next, nil
		default:
			return nil, 0, fmt.Errorf("its store refuses to be read: %s %s", status, m.Header.Get("Description"))
		}
		var at uint64
		if _, err := fmt.Sscan(m.Header.Get("Nats-Sequence"), &at); err != nil {
			return nil, 0, fmt.Errorf("its store sent an event without a number: %w", err)
		}
		next = at + 1
		var e node.Event
		if json.Unmarshal(m.Data, &e) == nil {
			events = append(events, e)
		}
	}
}

// numberAfter is the JetStream number of the first event with a Seq above seq, or one before it. The difference
// between the two only grows along the stream, so that a search between its ends finds it.
func (s *jetStore) numberAfter(ctx context.Context, seq uint64) (uint64, error) {
	gap := s.gapHigh.Load()
	low, high := uint64(1), uint64(1)
	if seq+1 > gap {
		low = seq + 1 - gap
	}
	if seq+1 > s.gapLow {
		high = seq + 1 - s.gapLow
	}
	if low == high {
		return max(low, 1), nil
	}
	info, err := s.events.Info(ctx)
	if err != nil {
		return 0, err
	}
	low, high = max(low, info.State.FirstSeq), min(high, info.State.LastSeq)
	for low < high {
		middle := low + (high-low)/2
		at, err := s.seqAt(ctx, middle)
		if err != nil {
			return 0, err
		}
		if at > seq {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return max(low, 1), nil
}

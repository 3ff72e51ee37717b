package stage1

import (
	"context"
	"sync"
	"time"

	"bramble/firstboot/talk"
	"bramble/firstboot/wire"
)

// Reporter sends reports in their order, in the background: a boot never waits for them, and those that the appliance
// did not take yet are kept and sent again.
type Reporter struct {
	mu    sync.Mutex
	queue []wire.Report
	last  wire.Report
	more  chan struct{}
}

// maxQueue bounds what is kept while the appliance is away.
const maxQueue = 64

// NewReporter returns a reporter that keeps reports until Send runs.
func NewReporter() *Reporter { return &Reporter{more: make(chan struct{}, 1)} }

// Report queues one report. The same failure as the one before is not told again.
func (r *Reporter) Report(w wire.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !w.OK && w.Step == r.last.Step && w.Text == r.last.Text {
		return
	}
	r.last = w
	if len(r.queue) == maxQueue {
		r.queue = r.queue[1:]
	}
	r.queue = append(r.queue, w)
	select {
	case r.more <- struct{}{}:
	default:
	}
}

// Send delivers reports until ctx ends. Fill adds what all of them have in common.
func (r *Reporter) Send(ctx context.Context, to talk.Appliance, fill func(*wire.Report)) {
	for ctx.Err() == nil {
		w, ok := r.first()
		if !ok {
			select {
			case <-r.more:
			case <-ctx.Done():
			}
			continue
		}
		fill(&w)
		if err := to.Report(ctx, w); err != nil {
			select {
			case <-time.After(2 * time.Second):
			case <-ctx.Done():
			}
			continue
		}
		r.mu.Lock()
		r.queue = r.queue[min(1, len(r.queue)):]
		r.mu.Unlock()
	}
}

func (r *Reporter) first() (wire.Report, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		return wire.Report{}, false
	}
	return r.queue[0], true
}

// Flush waits until all is delivered, or until ctx ends.
func (r *Reporter) Flush(ctx context.Context) {
	for {
		if _, waiting := r.first(); !waiting {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

package agent

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"

	"bramble/firstboot/wire"
)

// outbox keeps reports in their order until the appliance has them: no step waits for that.
type outbox struct {
	mu     sync.Mutex
	queue  []wire.StepReport
	failed map[string]string // step → what it failed with last
	more   chan struct{}
}

// maxOutbox bounds what is kept while the appliance is away; the oldest go first.
const maxOutbox = 64

// news tells whether a report says something new: the same failure of the same step is told once.
func (o *outbox) news(r wire.StepReport) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.OK {
		delete(o.failed, r.Step)
		return true
	}
	if o.failed == nil {
		o.failed = map[string]string{}
	}
	known := o.failed[r.Step] == r.Text
	o.failed[r.Step] = r.Text
	return !known
}

func (o *outbox) add(r wire.StepReport) {
	if !o.news(r) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == maxOutbox {
		o.queue = slices.Delete(o.queue, 0, 1)
	}
	o.queue = append(o.queue, r)
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
}

// next waits for a report.
func (o *outbox) next(ctx context.Context) (wire.StepReport, error) {
	for {
		o.mu.Lock()
		if len(o.queue) > 0 {
			defer o.mu.Unlock()
			r := o.queue[0]
			o.queue = slices.Delete(o.queue, 0, 1)
			return r, nil
		}
		if o.more == nil {
			o.more = make(chan struct{})
		}
		more := o.more
		o.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return wire.StepReport{}, ctx.Err()
		}
	}
}

// send delivers reports until ctx ends.
func (o *outbox) send(ctx context.Context, a *Agent) {
	for {
		r, err := o.next(ctx)
		if err != nil {
			return
		}
		for n := 0; ; n++ {
			err := a.client.post(ctx, wire.StepPath, r, nil)
			var no refusal
			if err == nil || errors.As(err, &no) && no.code == http.StatusBadRequest {
				break // another time it would be as wrong
			}
			a.Log.Warn(sentence(err), "report", r.Step)
			if a.Pause(ctx, backoff(n)) != nil {
				return
			}
		}
	}
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"bramble/firstboot/wire"
)

// step is one thing to be made true. done may be nil: then it is made true every time the agent starts.
type step struct {
	name string
	done func() bool
	do   func(context.Context) (wire.StepReport, error)
}

// do makes a step true, however long it takes. It returns only ctx's error.
func (a *Agent) do(ctx context.Context, s step) error {
	if s.done != nil && s.done() {
		a.Log.Info("done before", "step", s.name)
		return nil
	}
	began := time.Now()
	for n := 0; ; n++ {
		err := a.attempt(ctx, s, began)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if err := a.Pause(ctx, backoff(n)); err != nil {
			return err
		}
	}
}

// attempt tries a step once and reports what came of it.
func (a *Agent) attempt(ctx context.Context, s step, began time.Time) error {
	report, err := s.do(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	report.Step, report.Took = s.name, time.Since(began)
	if err == nil {
		report.OK = true
		a.Log.Info(report.Text, "step", s.name, "took", report.Took)
		if s.name != "login" { // which has told it on its own way
			a.outbox.add(report)
		}
		return nil
	}
	a.failed(ctx, report, err)
	return err
}

// failed reports a failure. Before the node is enrolled, only the plain way is open; what the appliance itself refused, it
// knows.
func (a *Agent) failed(ctx context.Context, r wire.StepReport, err error) {
	r.Text = sentence(err)
	a.Log.Warn(r.Text, "step", r.Step)
	switch {
	case r.Step != "login" && r.Step != "enroll" || a.has(identityFile)():
		a.outbox.add(r)
	case errors.As(err, new(refusal)) || !a.outbox.news(r):
	default:
		if err := a.plainly(ctx, wire.Report{Step: r.Step, Text: r.Text, Took: r.Took}); err != nil {
			a.Log.Warn(sentence(err), "step", r.Step)
		}
	}
}

// Waits between two attempts.
const (
	shortest = time.Second
	longest  = time.Minute
)

// backoff is the wait after n+1 failures: doubling, and by chance up to half of it shorter, so that a hundred nodes do not
// come at the same time when the appliance is back.
func backoff(n int) time.Duration {
	d := longest
	if n < 6 {
		d = min(shortest<<n, longest)
	}
	return d/2 + rand.N(d/2+1)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sentence makes an error's text one.
func sentence(err error) string {
	text := []rune(fmt.Sprint(err))
	if len(text) == 0 {
		return "Something failed."
	}
	if 'a' <= text[0] && text[0] <= 'z' {
		text[0] -= 'a' - 'A'
	}
	if last := text[len(text)-1]; last != '.' && last != '?' && last != '!' {
		text = append(text, '.')
	}
	return string(text)
}

package stage1

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bramble/firstboot/wire"
)

// step is a piece of the boot. do returns a sentence about what it did.
type step struct {
	name string
	do   func(context.Context) (string, error)
}

// hopeless is an error that retrying is not likely to cure.
type hopeless struct{ error }

func (h hopeless) Unwrap() error { return h.error }

// Patience of the runner.
const (
	attempt  = 45 * time.Second // for one attempt of a step
	longest  = 15 * time.Second // between two attempts
	giveUp   = 5 * time.Minute  // of hopeless attempts, until a reboot is worth a try
	shortest = time.Second
)

// errReboot says that only a reboot can help.
var errReboot = errors.New("the board reboots")

// runner runs steps until they have worked.
type runner struct {
	say    func(format string, args ...any)
	report func(wire.Report)
	now    func() time.Time
	sleep  func(time.Duration)
}

// run runs one step until it works. The error is errReboot.
func (r runner) run(ctx context.Context, s step) error {
	began := r.now()
	var hopelessSince time.Time
	for wait := shortest; ; wait = min(2*wait, longest) {
		try, cancel := context.WithTimeout(ctx, attempt)
		text, err := s.do(try)
		cancel()
		took := r.now().Sub(began)
		if err == nil {
			r.say("%-9s %8s  %s", s.name, took.Round(time.Millisecond), text)
			r.report(wire.Report{Step: s.name, OK: true, Text: text, Took: took})
			return nil
		}
		text = sentence(err)
		r.say("%-9s %8s  FAILED: %s Trying again in %v.", s.name, took.Round(time.Millisecond), text, wait)
		r.report(wire.Report{Step: s.name, Text: text, Took: took})
		switch {
		case !errors.As(err, new(hopeless)):
			hopelessSince = time.Time{}
		case hopelessSince.IsZero():
			hopelessSince = r.now()
		case r.now().Sub(hopelessSince) > giveUp:
			return fmt.Errorf("%w: %w", errReboot, err)
		}
		r.sleep(wait)
	}
}

// sentence makes an error's text one.
func sentence(err error) string {
	text := []rune(err.Error())
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

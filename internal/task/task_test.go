package task

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	wait := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	boom := errors.New("boom")
	for _, test := range []struct {
		name string
		task func(context.Context) error
		want string
	}{
		{"a failure ends all", func(context.Context) error { return boom }, "x: boom"},
		{"a panic is an error", func(context.Context) error { panic("ouch") }, "x: panic: ouch"},
		{"an early end is an error", func(context.Context) error { return nil }, "x ended by itself"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := Run(t.Context(), slog.New(slog.DiscardHandler), Task{"waits", wait}, Task{"x", test.task})
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "waits") {
				t.Errorf("Run = %v; want only %q", err, test.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, slog.New(slog.DiscardHandler), Task{"waits", wait}); err != nil {
		t.Errorf("a normal end is %v; want nil", err)
	}
}

// Package task runs the parts of a daemon together: the first that fails ends them all.
package task

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// Task is one part. Run works until ctx ends and then returns nil; any other return ends the group.
type Task struct {
	Name string
	Run  func(ctx context.Context) error
}

// Run runs all tasks until ctx ends or one of them returns. It waits for all and returns every error, with the
// names of the tasks that they come from. A panic in a task is that task's error.
func Run(ctx context.Context, log *slog.Logger, tasks ...Task) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(tasks))
	var wg sync.WaitGroup
	for i, t := range tasks {
		wg.Go(func() {
			defer cancel()
			errs[i] = run(ctx, t)
			log.Debug("task ended", "task", t.Name, "err", errs[i])
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func run(ctx context.Context, t Task) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: panic: %v", t.Name, p)
		}
	}()
	err = t.Run(ctx)
	switch {
	case err == nil && ctx.Err() == nil:
		return fmt.Errorf("%s ended by itself", t.Name)
	case err == nil, errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return nil
	}
	return fmt.Errorf("%s: %w", t.Name, err)
}

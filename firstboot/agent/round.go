package agent

import (
	"context"
	"reflect"
	"time"

	"bramble/firstboot/wire"
)

// follow makes the node what the configuration says, and again whenever that changes or a highstate is due.
func (a *Agent) follow(ctx context.Context) error {
	var c wire.Config
	known := a.load(configFile, &c) == nil // of an agent before this one
	for n := 0; ; {
		var err error
		if !known {
			c, _, err = a.fetchConfig(ctx, "")
		}
		if err == nil {
			err = a.round(ctx, c)
		} else if ctx.Err() == nil {
			a.failed(ctx, wire.StepReport{Step: "config"}, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if known = err == nil; !known {
			if err := a.Pause(ctx, backoff(n)); err != nil {
				return err
			}
			n++
			continue
		}
		n = 0
		if c, err = a.await(ctx, c); err != nil {
			return err
		}
	}
}

// round makes one configuration true. What is true already costs nothing.
func (a *Agent) round(ctx context.Context, c wire.Config) error {
	for _, s := range []step{
		{"users", a.hasUsers(c.Users), func(ctx context.Context) (wire.StepReport, error) { return a.makeUsers(ctx, c.Users) }},
		{"config", a.hasTree(c), func(ctx context.Context) (wire.StepReport, error) { return a.bring(ctx, c) }},
	} {
		if s.done() {
			continue
		}
		if err := a.attempt(ctx, s, time.Now()); err != nil {
			return err
		}
	}
	if err := a.save(configFile, c); err != nil {
		return err
	}
	return a.highstate(ctx, c)
}

func (a *Agent) hasUsers(users []wire.LoginUser) func() bool {
	return func() bool {
		var have []wire.LoginUser
		err := a.load("users.json", &have)
		return err == nil && reflect.DeepEqual(have, users) || err != nil && len(users) == 0
	}
}

// await waits until there is another configuration or something is due, and sees to it that the certificate stays good.
func (a *Agent) await(ctx context.Context, c wire.Config) (wire.Config, error) {
	for n := 0; ; {
		if err := a.renew(ctx); err != nil && ctx.Err() != nil {
			return c, ctx.Err()
		}
		due, ok := a.nextRun(c)
		if ok && !a.Now().Before(due) {
			return c, nil
		}
		wait := a.renewal().Sub(a.client.Now())
		if ok {
			wait = min(wait, due.Sub(a.Now()))
		}
		began := time.Now()
		next, news, err := a.poll(ctx, c, wait)
		switch {
		case ctx.Err() != nil:
			return c, ctx.Err()
		case news && !reflect.DeepEqual(next, c):
			return next, nil
		case err == nil && time.Since(began) >= shortest:
			n = 0
			continue
		case err != nil:
			a.Log.Info(sentence(err), "step", "config")
			n++
		}
		if err := a.Pause(ctx, max(0, min(backoff(n), wait))); err != nil {
			return c, err
		}
	}
}

// pollPatience is longer than the appliance lets a poll wait.
const pollPatience = 90 * time.Second

// poll waits for another commit, for the given time at the most. Running out of that time is no error.
func (a *Agent) poll(ctx context.Context, c wire.Config, wait time.Duration) (wire.Config, bool, error) {
	ours := wait < pollPatience
	ctx, cancel := context.WithTimeout(ctx, max(0, min(wait, pollPatience)))
	defer cancel()
	next, news, err := a.fetchConfig(ctx, c.Commit)
	if err != nil && ours && ctx.Err() != nil {
		err = nil
	}
	return next, news, err
}

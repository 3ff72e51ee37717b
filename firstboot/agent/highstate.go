package agent

import (
	"context"
	"fmt"
	"io"
	"time"

	"bramble/firstboot/salt"
	"bramble/firstboot/wire"
)

const runFile = "run.json"

// run is what the agent knows of the last highstate.
type run struct {
	Commit string    `json:"commit"`
	Mode   string    `json:"mode"`
	At     time.Time `json:"at"` // when it ended
	OK     bool      `json:"ok"`
	Fails  int       `json:"fails"` // in a row
	Told   bool      `json:"told"`  // the appliance knows that the node is ready
}

// Waits before a highstate that failed is tried again with the same files.
const (
	retryFirst = time.Minute
	retryMost  = 15 * time.Minute
)

// nextRun is when a highstate is due; not ok means only for another commit.
func (a *Agent) nextRun(c wire.Config) (due time.Time, ok bool) {
	var last run
	if a.load(runFile, &last) != nil || last.Commit != c.Commit || last.Mode != c.Salt.Mode || last.At.After(a.Now()) {
		return time.Time{}, true
	}
	if !runsHere(c.Salt.Mode) {
		return time.Time{}, !last.Told
	}
	if !last.OK {
		wait := min(retryFirst<<min(last.Fails-1, 8), retryMost)
		if c.Salt.Every > 0 {
			wait = min(wait, c.Salt.Every)
		}
		return last.At.Add(wait), true
	}
	if !last.Told {
		return time.Time{}, true
	}
	return last.At.Add(c.Salt.Every), c.Salt.Every > 0
}

func runsHere(mode string) bool { return mode == salt.Masterless || mode == salt.Master }

// highstate runs Salt if it is due, and says what the node is then. A highstate that fails is no failure of the agent: the
// node is degraded, and the next try comes by its own schedule.
func (a *Agent) highstate(ctx context.Context, c wire.Config) error {
	if due, ok := a.nextRun(c); !ok || a.Now().Before(due) {
		return nil
	}
	var last run
	_ = a.load(runFile, &last) // none before the first
	now := run{Commit: c.Commit, Mode: c.Salt.Mode, OK: true}
	result := salt.Result{OK: true, Text: "Salt is not run by this node."}
	if runsHere(c.Salt.Mode) {
		result = a.runSalt(ctx, c)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		now.OK = result.OK
		a.outbox.add(wire.StepReport{
			Step: "salt", OK: result.OK, Text: result.Text, Took: result.Took, Commit: c.Commit,
			States: result.States, Changed: result.Changed, Failed: result.Failed, Peak: result.Peak,
		})
		a.Log.Info(result.Text, "step", "salt", "took", result.Took, "peak", result.Peak)
	}
	now.At = a.Now()
	switch {
	case !result.OK:
		if last.Commit == c.Commit {
			now.Fails = last.Fails
		}
		now.Fails++
		a.outbox.add(wire.StepReport{Step: "degraded", Text: result.Text, Commit: c.Commit})
	case !last.Told || !last.OK || last.Commit != c.Commit:
		a.outbox.add(wire.StepReport{Step: "ready", OK: true, Commit: c.Commit, Text: fmt.Sprintf("This node is what commit %s asks for.", short(c.Commit))})
	}
	now.Told = result.OK
	return a.save(runFile, now)
}

// runSalt runs one highstate. Whatever keeps it from running is its result too.
func (a *Agent) runSalt(ctx context.Context, c wire.Config) salt.Result {
	began := time.Now()
	dirs := salt.Dirs{
		States: a.tree(c.Commit) + "/states", Pillar: a.tree(c.Commit) + "/pillar",
		Work: a.path("run/bramble/salt"), Etc: a.path("etc/salt"),
	}
	failed := func(err error) salt.Result { return salt.Result{Text: sentence(err), Took: time.Since(began)} }
	if c.Salt.Mode == salt.Master {
		if err := a.join(ctx, dirs); err != nil {
			return failed(err)
		}
	}
	output := a.stream(ctx, "salt")
	result, err := a.Salt(ctx, c.Salt, dirs, output)
	output.close()
	if err != nil {
		return failed(err)
	}
	if c.Salt.Mode == salt.Master {
		if err := a.Command(ctx, "systemctl", "restart", "salt-minion.service"); err != nil {
			return failed(fmt.Errorf("the salt-minion does not start: %w", err))
		}
	}
	return result
}

// join has the appliance accept this node's minion key at the master, before the minion asks there itself.
func (a *Agent) join(ctx context.Context, d salt.Dirs) error {
	if a.has("minion")() {
		return nil
	}
	public, err := salt.Keys(d)
	if err != nil {
		return err
	}
	if _, err := a.again(ctx, public); err != nil {
		return fmt.Errorf("the minion's key cannot be made known to the master: %w", err)
	}
	return a.write("minion", nil)
}

// runSalt is how a node runs Salt.
func runSalt(ctx context.Context, s wire.Salt, d salt.Dirs, output io.Writer) (salt.Result, error) {
	call, err := salt.Find()
	if err != nil {
		return salt.Result{}, err
	}
	return salt.Runner{Call: call, Output: output, Systemd: salt.Booted()}.Run(ctx, s, d)
}

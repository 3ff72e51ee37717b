package talk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"bramble/firstboot/wire"
	"bramble/node"
)

// Appliance is the other end.
type Appliance struct {
	Server string // host:port
	MAC    node.MAC
	Boot   node.BootID
}

// patience with one exchange.
const patience = 20 * time.Second

// Clock asks for the appliance's time, and returns it as it is at the moment of the return.
func (a Appliance) Clock(ctx context.Context) (time.Time, error) {
	began := time.Now()
	var c wire.Clock
	if err := a.get(ctx, "time", wire.ClockPath, &c); err != nil {
		return time.Time{}, err
	}
	if c.Now.Year() < 2020 {
		return time.Time{}, fmt.Errorf("the appliance says that it is %s, which cannot be", c.Now.Format(time.RFC3339))
	}
	return c.Now.Add(time.Since(began) / 2), nil
}

// Plan asks what this boot is to be.
func (a Appliance) Plan(ctx context.Context) (wire.Plan, error) {
	var p wire.Plan
	if err := a.get(ctx, "plan", wire.PlanPath+a.query(), &p); err != nil {
		return wire.Plan{}, err
	}
	if p.Root.Addr == "" || p.Root.Export == "" || p.Root.FSType == "" {
		return wire.Plan{}, errors.New("the appliance's plan names no root file system")
	}
	return p, nil
}

// Files fetches the node's own files, a tar with the given SHA-256 in hex.
func (a Appliance) Files(ctx context.Context, sha string) ([]byte, error) {
	tar, err := a.ask(ctx, "GET", wire.FilesPath+a.query(), nil)
	if err != nil {
		return nil, fmt.Errorf("the node's files cannot be fetched from %s: %w", a.Server, err)
	}
	sum := sha256.Sum256(tar)
	if got := hex.EncodeToString(sum[:]); got != sha {
		return nil, fmt.Errorf("the node's files have the SHA-256 %s, the plan says %s", got, sha)
	}
	return tar, nil
}

// Report tells the appliance of a step.
func (a Appliance) Report(ctx context.Context, r wire.Report) error {
	r.MAC, r.Boot = a.MAC, a.Boot
	body, err := json.Marshal(r)
	if err == nil {
		_, err = a.ask(ctx, "POST", wire.ReportPath, body)
	}
	if err != nil {
		return fmt.Errorf("the report of the step %s does not reach %s: %w", r.Step, a.Server, err)
	}
	return nil
}

func (a Appliance) query() string { return fmt.Sprintf("?mac=%s&boot=%s", a.MAC, a.Boot) }

func (a Appliance) get(ctx context.Context, what, target string, into any) error {
	body, err := a.ask(ctx, "GET", target, nil)
	if err != nil {
		return fmt.Errorf("the %s cannot be fetched from %s: %w", what, a.Server, err)
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(into); err != nil {
		return fmt.Errorf("the %s from %s cannot be read: %w", what, a.Server, err)
	}
	return nil
}

func (a Appliance) ask(ctx context.Context, method, target string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %v", patience))
	defer cancel()
	return exchange(ctx, a.Server, method, target, body)
}

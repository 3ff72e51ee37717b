// Package agent makes a booted board a node: it enrolls, gives sshd its certificate, brings the configuration and runs
// Salt, and goes on doing so when the configuration changes or its time has come. It never gives up, and what it has
// done it does not do again.
package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"bramble/firstboot/facts"
	"bramble/firstboot/salt"
	"bramble/firstboot/stage1"
	"bramble/firstboot/talk"
	"bramble/firstboot/wire"
	"bramble/node"
)

// Orders is what the kernel command line says to the agent.
type Orders struct {
	stage1.Orders
	Token  string // buys this boot's certificate
	Pin    string // SHA-256 in hex of the CA's certificate
	Secure string // host:port of the appliance's HTTPS server
}

// ReadOrders takes the orders from a command line. One without a token is good for a report of the login only.
func ReadOrders(cmdline string) (Orders, error) {
	common, err := stage1.ReadOrders(cmdline)
	words := stage1.Words(cmdline)
	return Orders{common, words[wire.TokenWord], words[wire.PinWord], words[wire.SecureWord]}, err
}

// Agent is one node's. All fields but Orders have to be set; New sets them for a node.
type Agent struct {
	Orders Orders
	Root   string       // of the system
	SSH    string       // address of sshd
	Log    *slog.Logger // what happens
	Say    func(format string, args ...any)

	Command   func(ctx context.Context, name string, args ...string) error
	Salt      func(ctx context.Context, s wire.Salt, d salt.Dirs, output io.Writer) (salt.Result, error)
	Throttled func() (string, error)
	Now       func() time.Time
	Pause     func(ctx context.Context, d time.Duration) error

	facts   facts.Facts
	outbox  outbox
	client  *client
	renewed time.Time // when the last attempt to renew the certificate failed
}

// New is the agent of the system that it runs on.
func New(o Orders, log *slog.Logger, say func(format string, args ...any)) *Agent {
	return &Agent{
		Orders: o, Root: "/", SSH: "127.0.0.1:22", Log: log, Say: say,
		Command: command, Salt: runSalt, Throttled: facts.Throttled, Now: time.Now, Pause: pause,
	}
}

// Run does everything, until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	if err := os.MkdirAll(a.state(""), 0o700); err != nil {
		return fmt.Errorf("the agent has no place for its state: %w", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A node whose sshd does not start needs its configuration more than ever.
	wg.Go(func() { _ = a.do(ctx, step{"login", a.has("login"), a.login}) })
	for _, s := range []step{
		{"facts", nil, a.readFacts},
		{"enroll", func() bool { return a.has(identityFile)() && a.resume(ctx) == nil }, a.enroll},
	} {
		if err := a.do(ctx, s); err != nil {
			return err
		}
	}
	wg.Go(func() { a.outbox.send(ctx, a) })
	if err := a.do(ctx, step{"ssh", a.certified, a.certify}); err != nil {
		return err
	}
	return a.follow(ctx)
}

// path is a file's place on this system.
func (a *Agent) path(name string) string { return filepath.Join(a.Root, name) }

// state is a file's place in the agent's own folder, which is RAM and ends with the boot.
func (a *Agent) state(name string) string { return filepath.Join(a.Root, "run/bramble/agent", name) }

// has tells whether a file of the state is there.
func (a *Agent) has(name string) func() bool {
	return func() bool {
		_, err := os.Stat(a.state(name))
		return err == nil
	}
}

// login waits for sshd and says so on stage 1's plain path: enrolment may take an admin's time.
func (a *Agent) login(ctx context.Context) (wire.StepReport, error) {
	if err := stage1.Banner(ctx, a.SSH); err != nil {
		return wire.StepReport{}, fmt.Errorf("nobody can log in yet: sshd does not answer: %w", err)
	}
	up := uptime()
	text := fmt.Sprintf("One can log in over SSH, %v after the kernel started.", up)
	if err := a.plainly(ctx, wire.Report{Step: "login", OK: true, Text: text, Took: up}); err != nil {
		return wire.StepReport{}, err
	}
	return wire.StepReport{Text: text}, os.WriteFile(a.state("login"), nil, 0o600)
}

func (a *Agent) readFacts(context.Context) (wire.StepReport, error) {
	a.facts = facts.Read(os.DirFS(a.Root))
	throttled, err := a.Throttled()
	if err != nil {
		a.Log.Info("throttling is not known", "err", err)
	}
	a.facts.Throttled = throttled
	if a.Orders.MAC.IsZero() && len(a.facts.MACs) > 0 {
		a.Orders.MAC = a.facts.MACs[0]
	}
	return wire.StepReport{Text: a.facts.String(), Facts: a.facts.Map()}, nil
}

// plain is the appliance as stage 1 knows it: without TLS, for what is no secret and comes before enrolment.
func (a *Agent) plain() talk.Appliance {
	return talk.Appliance{Server: a.Orders.Server, MAC: a.Orders.MAC, Boot: a.Orders.Boot}
}

func (a *Agent) plainly(ctx context.Context, r wire.Report) error {
	serial, _ := node.ParseSerial(readLine(a.path("proc/device-tree/serial-number")))
	r.Serial = serial
	return a.plain().Report(ctx, r)
}

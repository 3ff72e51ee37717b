// Firstboot is the agent on a node: it makes a booted board what the configuration says, and keeps it so.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"bramble/firstboot/agent"
	"bramble/firstboot/stage1"
)

// The agent lives beside what the node is for: it rather collects its garbage than grow.
const (
	memory  = 12 << 20
	garbage = 25
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bramble:", err)
		os.Exit(1)
	}
}

func run() error {
	debug.SetMemoryLimit(memory)
	debug.SetGCPercent(garbage)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("the kernel command line cannot be read: %w", err)
	}
	orders, err := agent.ReadOrders(string(cmdline))
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: noTime}))
	err = agent.New(orders, log, stage1.OpenConsole().Line).Run(ctx)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// noTime leaves the time to systemd's journal.
func noTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

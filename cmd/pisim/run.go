package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"sync"

	"bramble/lab/pisim"
)

// Exit statuses.
const (
	allBooted  = 0
	someHalted = 1
	badUsage   = 2
)

// run is the program. The timeline goes to out, or to errOut if out is for JSON.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	o, err := parse(args, errOut)
	if errors.Is(err, flag.ErrHelp) {
		return allBooted
	}
	if err != nil {
		fmt.Fprintln(errOut, "pisim:", err)
		return badUsage
	}
	var segment pisim.Segment
	up, err := segment.Uplink(o.iface)
	if err != nil {
		fmt.Fprintln(errOut, "pisim:", err)
		return badUsage
	}
	defer up.Close()
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	lines := out
	if o.json {
		lines = errOut
	}
	reports := o.fleet(&segment, &printer{w: lines}).Run(ctx)
	if o.json {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(reports); err != nil {
			fmt.Fprintln(errOut, "pisim: cannot write the reports:", err)
			return someHalted
		}
	}
	return summarize(lines, reports)
}

// summarize prints a line for each board and one for all.
func summarize(w io.Writer, reports []pisim.Report) int {
	booted := 0
	fmt.Fprintln(w)
	for _, r := range reports {
		fmt.Fprintln(w, r)
		for _, text := range r.Warnings {
			fmt.Fprintf(w, "    warning: %s\n", text)
		}
		if r.Outcome == pisim.Kernel {
			booted++
		}
	}
	fmt.Fprintf(w, "%d of %d boards reached the kernel, in %.1f s (median)\n", booted, len(reports), pisim.MedianTook(reports).Seconds())
	if booted < len(reports) {
		return someHalted
	}
	return allBooted
}

// printer writes whole lines from many goroutines.
type printer struct {
	mu sync.Mutex
	w  io.Writer
}

func (p *printer) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// fleet makes the boards.
func (o options) fleet(s *pisim.Segment, p *printer) pisim.Fleet {
	f := pisim.NewFleet(s, pisim.Board{
		Model: o.model, Serial: o.serial, Seed: o.seed, Faults: o.faults, Keep: o.keep(),
	}, o.count)
	f.Stagger = o.stagger
	for i := range f.Boards {
		b := &f.Boards[i]
		name := b.SerialName()
		b.Log = func(e pisim.Event) { p.line("%s %s", name, e) }
		if o.qemu != "" || o.dir != "" {
			h := handOver{o, i, func(line string) { p.line("%s console   %s", name, line) }}
			b.HandOver = h.take
		}
	}
	return f
}

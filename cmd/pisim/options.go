package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"bramble/lab/pisim"
	"bramble/lab/qemu"
)

// options are what the command line asks for.
type options struct {
	iface   string
	model   pisim.Model
	serial  uint32
	count   int
	stagger time.Duration
	faults  pisim.Faults
	seed    uint64
	timeout time.Duration
	json    bool

	qemu string // machine; no QEMU if empty
	tap  string // %d in it is the number of the board
	dir  string // where received files go
}

func parse(args []string, help io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("pisim", flag.ContinueOnError)
	f.SetOutput(help)
	f.StringVar(&o.iface, "iface", "", "`interface` of the network that the boards are on")
	model := f.String("model", "3b+", "one of "+strings.Join(pisim.Models(), ", "))
	build := f.String("build", "", "firmware of a 3-series model: one of "+strings.Join(pisim.Builds(), ", "))
	client := f.String("client", "strict", "strict: neither repeats a lost request nor acknowledges a duplicate; rfc1350: does both")
	serial := f.String("serial", "8b07bcc6", "serial `number` of the first board, in hexadecimal")
	f.IntVar(&o.count, "count", 1, "how many boards, with serial numbers that follow each other")
	f.DurationVar(&o.stagger, "stagger", 500*time.Millisecond, "`time` between the first and the last power-on")
	percent(f, &o.faults.Loss, "loss", "share of the frames lost in each direction, such as `1%`")
	percent(f, &o.faults.Dup, "dup", "share of the frames doubled, such as `1%`")
	percent(f, &o.faults.Reorder, "reorder", "share of the frames that others overtake, such as `1%`")
	f.Uint64Var(&o.seed, "seed", 1, "`number` that decides which frames")
	f.DurationVar(&o.timeout, "timeout", 0, "`time` after which all is switched off; 0: never")
	f.BoolVar(&o.json, "json", false, "print the reports as JSON, and the timeline to standard error")
	f.StringVar(&o.qemu, "qemu", "", "hand over to this QEMU `machine`: "+qemu.Virt+" or "+qemu.Raspi3)
	f.StringVar(&o.tap, "tap", "", "tap `interface` for QEMU; with more than one board it has %d in it, counted from 0")
	f.StringVar(&o.dir, "dir", "", "`folder` for what the boards received, a folder each")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%q is not an option: all options begin with --, see --help", f.Arg(0))
	}
	n, err := strconv.ParseUint(*serial, 16, 32)
	if err != nil {
		return o, fmt.Errorf("--serial %s: write up to eight hexadecimal digits", *serial)
	}
	o.serial = uint32(n)
	if o.model, err = chooseModel(*model, *build, *client); err != nil {
		return o, err
	}
	return o, o.check()
}

func chooseModel(name, build, client string) (pisim.Model, error) {
	m, err := pisim.NewModel(name)
	if err == nil && build != "" {
		m, err = m.WithBuild(build)
	}
	switch client {
	case "strict":
	case "rfc1350":
		m = m.WithRFC1350()
	default:
		err = errors.Join(err, fmt.Errorf("--client %s: choose strict or rfc1350", client))
	}
	return m, err
}

func (o options) check() error {
	switch {
	case o.iface == "":
		return errors.New("--iface is missing: name the interface of the network that the boards are on")
	case o.count < 1:
		return fmt.Errorf("--count %d: at least one board", o.count)
	case o.qemu != "" && o.qemu != qemu.Virt && o.qemu != qemu.Raspi3:
		return fmt.Errorf("--qemu %s: choose %s or %s", o.qemu, qemu.Virt, qemu.Raspi3)
	case o.qemu != "" && o.tap == "":
		return errors.New("--tap is missing: name the tap interface that QEMU's network card is connected to")
	case o.qemu != "" && o.count > 1 && !strings.Contains(o.tap, "%d"):
		return fmt.Errorf("--tap %s: with %d boards write %%d where the number of the board goes", o.tap, o.count)
	}
	return nil
}

// keep: files are only kept if somebody wants them afterwards.
func (o options) keep() pisim.Keep {
	if o.qemu != "" || o.dir != "" {
		return pisim.KeepAll
	}
	return pisim.KeepHashes
}

// percent adds an option for a share, written "1%" or "0.01".
func percent(f *flag.FlagSet, share *float64, name, usage string) {
	f.Func(name, usage, func(s string) error {
		number, isPercent := strings.CutSuffix(s, "%")
		v, err := strconv.ParseFloat(number, 64)
		if isPercent {
			v /= 100
		}
		if err != nil || !(v >= 0 && v <= 1) {
			return errors.New("write a share such as 1% or 0.01")
		}
		*share = v
		return nil
	})
}

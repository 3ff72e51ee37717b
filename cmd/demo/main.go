// Demo is `make demo`: it powers virtual Pi 3B+ boards on in a lab network, prints what happens until somebody can log
// in, and logs in.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"bramble/lab/tower"
	"bramble/node"
	"bramble/web/api"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	var o tower.Options
	flag.StringVar(&o.Bramble, "bramble", "build/bramble", "the appliance")
	flag.StringVar(&o.PiSim, "pisim", "build/pisim", "the boot ROM")
	flag.StringVar(&o.Image, "image", "", "the lab image, see lab/image/build")
	flag.StringVar(&o.Machine, "board", "virt", "virt (fast) or raspi3b (slow, faithful)")
	nodes := flag.Int("nodes", 1, "how many boards")
	patience := flag.Duration("patience", 15*time.Minute, "how long until all must be ready")
	verbose := flag.Bool("v", false, "show what boot ROMs and consoles print")
	flag.Parse()
	if *verbose {
		o.Log = os.Stderr
	}
	ctx, cancel := context.WithTimeout(ctx, *patience)
	defer cancel()

	say("A switch, a house router (dnsmasq) that gives the addresses, and bramble beside it.")
	t, err := tower.Open(o)
	if err != nil {
		return err
	}
	defer func() {
		if e := t.Close(); err == nil {
			err = e
		}
	}()
	if err := t.Serve(ctx); err != nil {
		return err
	}
	known := names{}
	go func() { _ = t.Client().Follow(ctx, 0, "", known.show) }()

	say("Power on: %d virtual Pi 3B+, no SD card (QEMU machine %s).", *nodes, o.Machine)
	begin := time.Now()
	for i := range *nodes {
		if err := t.PowerOn(i); err != nil {
			return err
		}
	}
	var wg sync.WaitGroup
	errs := make([]error, *nodes)
	took := make([]time.Duration, *nodes)
	for i := range *nodes {
		wg.Go(func() {
			_, errs[i] = t.Ready(ctx, i, begin.Add(-time.Second))
			took[i] = time.Since(begin)
		})
	}
	wg.Wait()
	failed := 0
	for i := range *nodes {
		answer := ""
		if errs[i] == nil {
			answer, errs[i] = t.SSH(ctx, i, "uname -a")
		}
		if errs[i] != nil {
			failed++
			say("FAILED after %.0f s: %v", took[i].Seconds(), errs[i])
			continue
		}
		say("$ ssh pi@%s uname -a        (ready %.1f s after power-on)\n%s", t.Name(i), took[i].Seconds(), answer)
	}
	if memory, err := t.Memory(); err == nil {
		say("The appliance has %s of memory resident.", node.Size(memory))
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d boards did not come up", failed, *nodes)
	}
	say("%d of %d boards came up.", *nodes, *nodes)
	return nil
}

func say(format string, args ...any) { fmt.Printf("\n"+format+"\n\n", args...) }

// names are what earlier lines told of whom a MAC address is.
type names map[node.MAC]string

func (n names) show(l api.Line) error {
	if l.Name != "" {
		n[l.Node] = l.Name
	}
	fmt.Printf("%s  %-12s %s\n", l.Time.Local().Format("15:04:05.0"), n[l.Node], l.Sentence)
	return nil
}

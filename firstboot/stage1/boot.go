// Package stage1 is the boot in the initramfs, from the kernel's hands to systemd's: network, clock, plan, root over
// NBD, RAM overlay, the node's own files. It decides nothing: the appliance's plan does.
package stage1

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bramble/firstboot/block"
	"bramble/firstboot/link"
	"bramble/firstboot/talk"
	"bramble/firstboot/wire"
	"bramble/node"
)

// boot is what the steps know.
type boot struct {
	console   *Console
	log       *slog.Logger
	reporter  *Reporter
	orders    Orders
	serial    node.Serial
	appliance talk.Appliance
	iface     link.Interface
	lease     link.Lease
	leased    time.Time
	plan      wire.Plan
	stale     bool // the plan has to be fetched again before a step is tried again
	keeper    *os.Process
	panics    []byte // what /proc/sys/kernel/panic said
}

// Run boots. It returns only if it cannot go on, and reboots the board then: PID 1 must not end.
func Run(ctx context.Context) {
	err := mountKernel()
	b := &boot{console: OpenConsole(), reporter: NewReporter()}
	b.log = b.console.Logger()
	b.console.Line("stage 1 on kernel %s", kernelRelease())
	if err != nil {
		b.console.Line("%s", sentence(err))
	}
	// Until systemd takes over, a fault of this program reboots the board instead of leaving it dead.
	b.panics, _ = os.ReadFile(panicFile)
	_ = os.WriteFile(panicFile, []byte("30"), 0)
	r := runner{b.console.Line, b.reporter.Report, time.Now, time.Sleep}
	err = b.run(ctx, r)
	b.console.Line("%s", sentence(err))
	flush, cancel := context.WithTimeout(ctx, 5*time.Second)
	b.reporter.Flush(flush)
	cancel()
	time.Sleep(5 * time.Second)
	for {
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
		time.Sleep(time.Minute)
	}
}

const panicFile = "/proc/sys/kernel/panic" // seconds until a reboot after a panic

func (b *boot) run(ctx context.Context, r runner) error {
	for _, s := range []step{
		{"modules", b.modules},
		{"network", b.network},
		{"clock", b.clock},
		{"plan", b.fetchPlan},
		{"root", b.again(b.root)},
		{"overlay", b.overlay},
		{"files", b.again(b.files)},
		{"handover", b.handover},
	} {
		if err := r.run(ctx, s); err != nil {
			return err
		}
	}
	return b.enter()
}

func (b *boot) modules(ctx context.Context) (string, error) {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", fmt.Errorf("the kernel command line cannot be read: %w", err)
	}
	if b.orders, err = ReadOrders(string(cmdline)); err != nil {
		return "", hopeless{err}
	}
	b.serial = boardSerial()
	b.appliance = talk.Appliance{Server: b.orders.Server, MAC: b.orders.MAC, Boot: b.orders.Boot}
	loaded, failed := loadModules("/modules")
	if failed != nil {
		b.console.Line("%s", sentence(failed))
	}
	return fmt.Sprintf("%d modules loaded into kernel %s.", loaded, kernelRelease()), nil
}

// boardSerial is the low half of the serial number that the firmware left in the device tree.
func boardSerial() node.Serial {
	text, err := os.ReadFile("/proc/device-tree/serial-number")
	if err != nil {
		return 0
	}
	serial, err := node.ParseSerial(strings.TrimRight(string(text), "\x00\n"))
	if err != nil {
		return 0
	}
	return serial
}

func (b *boot) network(ctx context.Context) (string, error) {
	i, err := link.Wait(ctx, os.DirFS("/sys/class/net"), b.orders.MAC, link.BringUp)
	if errors.Is(err, link.ErrNoInterface) {
		return "", hopeless{err}
	}
	if err != nil {
		return "", err
	}
	l, err := link.Acquire(ctx, i, "", netip.Addr{})
	if err != nil {
		return "", err
	}
	if err := link.Configure(i.Index, l); err != nil {
		return "", err
	}
	b.iface, b.lease, b.leased = i, l, time.Now()
	if b.appliance.MAC.IsZero() {
		b.appliance.MAC = i.MAC
	}
	go b.reporter.Send(context.WithoutCancel(ctx), b.appliance, func(w *wire.Report) { w.Serial = b.serial })
	return fmt.Sprintf("%s on %s from %s, for %v.", l.Addr, i.Name, l.Server, l.Life), nil
}

func (b *boot) clock(ctx context.Context) (string, error) {
	now, err := b.appliance.Clock(ctx)
	if err != nil {
		return "", err
	}
	was := clockError(now)
	tv := unix.NsecToTimeval(now.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return "", fmt.Errorf("the clock cannot be set: %w", err)
	}
	return fmt.Sprintf("%s; this board %s.", now.UTC().Format(time.DateTime+" MST"), was), nil
}

// clockError says how wrong the clock is, if now is the time.
func clockError(now time.Time) string {
	if off := time.Until(now); off.Abs() < time.Hour {
		return fmt.Sprintf("was off by %v", off.Round(time.Millisecond))
	}
	return "thought it was " + time.Now().UTC().Format(time.DateOnly)
}

func (b *boot) fetchPlan(ctx context.Context) (string, error) {
	p, err := b.appliance.Plan(ctx)
	if err != nil {
		return "", err
	}
	b.plan, b.stale = p, false
	return fmt.Sprintf("This is %s; its root is %q of %s.", p.Name, p.Root.Export, p.Root.Addr), nil
}

// again is a step that fetches the plan anew before it is tried again: it may be the plan that has to change.
func (b *boot) again(do func(context.Context) (string, error)) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		if b.stale {
			if _, err := b.fetchPlan(ctx); err != nil {
				return "", err
			}
		}
		text, err := do(ctx)
		b.stale = err != nil
		return text, err
	}
}

// kernelLacks tells whether mount says that the kernel does not know the file system.
func kernelLacks(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, block.ErrNoNBD)
}

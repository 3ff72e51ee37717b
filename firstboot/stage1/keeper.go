package stage1

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bramble/firstboot/block"
	"bramble/firstboot/link"
	"bramble/firstboot/wire"
)

// KeeperName is the keeper's argv[0]. The @ tells systemd to spare it when it kills what is left at shutdown
// (systemd.io/ROOT_STORAGE_DAEMONS).
const KeeperName = "@bramble-keeper"

// care is what the keeper looks after.
type care struct {
	Root     wire.Block
	Size     uint64
	Iface    link.Interface
	Lease    link.Lease
	Age      time.Duration // of the lease
	HostName string
}

// startKeeper starts this program again as the keeper. It inherits the socket of the root's connection.
func (b *boot) startKeeper(socket *os.File, size uint64) error {
	state, err := json.Marshal(care{b.plan.Root, size, b.iface, b.lease, time.Since(b.leased), b.plan.Name})
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("no pipe to the keeper: %w", err)
	}
	defer r.Close()
	kmsg, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("no log for the keeper: %w", err)
	}
	defer kmsg.Close()
	b.keeper, err = os.StartProcess("/init", []string{KeeperName}, &os.ProcAttr{
		Dir: "/", Env: []string{"GOTRACEBACK=none"}, Files: []*os.File{r, kmsg, kmsg, socket},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("the keeper does not start: %w", err)
	}
	_, err = w.Write(state) // a pipe takes 64 KiB without a reader
	if closeErr := w.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		b.stopKeeper()
		return fmt.Errorf("the keeper cannot be told what to keep: %w", err)
	}
	return nil
}

func (b *boot) stopKeeper() {
	_ = b.keeper.Kill() // it may have ended
	_, _ = b.keeper.Wait()
}

// Keep is the keeper: it holds the root's connection and the address that it runs over. It lives in RAM alone, opens no
// file after its start, and runs until the power goes.
func Keep() error {
	signal.Ignore(unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGPIPE)
	log := slog.New(lines{&Console{log: os.Stderr}})
	var c care
	if err := json.NewDecoder(os.Stdin).Decode(&c); err != nil {
		return fmt.Errorf("the keeper was not told what to keep: %w", err)
	}
	// Neither swap nor the OOM killer may take it: without it, the root may be gone for good.
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		log.Warn(fmt.Sprintf("The keeper's memory cannot be locked: %v.", err))
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		log.Warn(fmt.Sprintf("The keeper cannot be exempted from the OOM killer: %v.", err))
	}
	ctx := context.Background()
	go tend(ctx, log, c)
	return block.Keep(ctx, log, c.Root, c.Size, os.NewFile(3, "root"))
}

// tend renews the lease for ever. Until a server says no, the address stays: a node's root hangs on it, and RFC 2131's
// rule to fall silent when a lease runs out would turn a router's outage into the node's.
func tend(ctx context.Context, log *slog.Logger, c care) {
	next := link.Schedule(c.Lease, c.Age)
	for {
		time.Sleep(next)
		lease, err := renew(ctx, c)
		if err != nil {
			log.Warn(sentence(err))
			next = link.Retry(c.Lease)
			continue
		}
		if err := link.Configure(c.Iface.Index, lease); err != nil {
			log.Warn(sentence(err))
		}
		if lease.Addr != c.Lease.Addr {
			log.Warn(fmt.Sprintf("The DHCP server gives %s instead of %s now.", lease.Addr, c.Lease.Addr))
			if err := link.Remove(c.Iface.Index, c.Lease.Addr); err != nil {
				log.Warn(sentence(err))
			}
		}
		c.Lease = lease
		next = link.Schedule(lease, 0)
	}
}

// renew extends the lease, or, when its server is silent or says no, asks whoever is there for the same address.
func renew(ctx context.Context, c care) (link.Lease, error) {
	i, err := link.Named(c.Iface)
	if err != nil {
		return link.Lease{}, err
	}
	lease, err := link.Extend(ctx, i, c.HostName, c.Lease)
	if err != nil {
		return link.Acquire(ctx, i, c.HostName, c.Lease.Addr.Addr())
	}
	return lease, nil
}

package stage1

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"bramble/firstboot/link"
	"bramble/firstboot/talk"
	"bramble/firstboot/wire"
	"bramble/node"
)

// Ready waits until sshd answers, and tells the appliance that one can log in. It runs in the booted system.
func Ready(ctx context.Context) error {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("the kernel command line cannot be read: %w", err)
	}
	orders, err := ReadOrders(string(cmdline))
	if err != nil {
		return err
	}
	for Banner(ctx, "127.0.0.1:22") != nil {
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return fmt.Errorf("sshd did not come up: %w", err)
		}
	}
	if orders.MAC.IsZero() {
		orders.MAC = ownMAC()
	}
	report := wire.Report{
		Serial: boardSerial(), Step: "ready", OK: true, Took: uptime(),
		Text: fmt.Sprintf("One can log in over SSH, %v after the kernel started.", uptime()),
	}
	to := talk.Appliance{Server: orders.Server, MAC: orders.MAC, Boot: orders.Boot}
	for {
		err := to.Report(ctx, report)
		if err == nil {
			return nil
		}
		if pause(ctx, 5*time.Second) != nil {
			return err
		}
	}
}

// ownMAC is what stage 1 called itself by when the command line did not say.
func ownMAC() node.MAC {
	all, err := link.Candidates(os.DirFS("/sys/class/net"))
	if err != nil {
		return node.MAC{}
	}
	i, _ := link.Choose(all, node.MAC{}, false)
	return i.MAC
}

// Banner checks that an SSH server answers.
func Banner(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "SSH-") {
		err = fmt.Errorf("%s does not speak SSH", addr)
	}
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Package tower is the owner's tower in a box: a house router, the real bramble program on a host of its own, and virtual
// Pi 3B+ boards that boot from it in QEMU. The demo and the tests of whole boots stand on it.
package tower

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"bramble/lab"
	"bramble/node"
	"bramble/web/api"
	"bramble/web/client"
)

// Options of a tower. Bramble, PiSim and Image are required.
type Options struct {
	Bramble string    // the program under test
	PiSim   string    // the boot ROM
	Image   string    // the lab image
	Machine string    // of QEMU: "virt" or "raspi3b"
	Log     io.Writer // what the programs print; nil: nowhere
	Serve   []string  // more arguments for bramble serve
}

// Tower is a running lab. Close it when done.
type Tower struct {
	Options
	Router    *lab.Router
	Appliance *lab.Host
	Dir       string // state directory, SSH key, consoles

	segment *lab.Segment
	serving *exec.Cmd
	boards  map[int]*exec.Cmd
	mu      sync.Mutex // of Log
}

const (
	addr = "10.77.0.2"
	port = "boards" // of the switch, where the boot ROMs sit
)

// Open builds the network, and puts the image into the appliance's catalogue.
func Open(o Options) (t *Tower, err error) {
	t = &Tower{Options: o, boards: map[int]*exec.Cmd{}}
	if t.Log == nil {
		t.Log = io.Discard
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	if t.Dir, err = os.MkdirTemp("", "bramble-tower-"); err != nil {
		return t, err
	}
	if t.segment, err = lab.OpenSegment(); err != nil {
		return t, err
	}
	if t.Router, err = t.segment.AddRouter(lab.RouterConfig{First: netip.MustParseAddr("10.77.0.10"), Last: netip.MustParseAddr("10.77.0.250")}); err != nil {
		return t, err
	}
	if t.Appliance, err = t.segment.AddHost("appliance", addr+"/24"); err != nil {
		return t, err
	}
	if err = t.Appliance.Run("ip", "link", "set", "lo", "up"); err != nil {
		return t, err
	}
	if _, err = t.segment.AddPort(port); err != nil {
		return t, err
	}
	if err = t.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tower", "-f", t.key()); err != nil {
		return t, err
	}
	return t, t.run(o.Bramble, "image", "add", o.Image, "lab", "--state-dir", t.state())
}

func (t *Tower) key() string   { return filepath.Join(t.Dir, "key") }
func (t *Tower) state() string { return filepath.Join(t.Dir, "state") }

// Console is the file with what a board printed since its last power-on.
func (t *Tower) Console(i int) string {
	return filepath.Join(t.Dir, "boards", t.Serial(i).String(), "console.log")
}

func (t *Tower) run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// Close switches everything off and removes it.
func (t *Tower) Close() error {
	for i := range t.boards {
		t.PowerOff(i)
	}
	t.Kill()
	var err error
	if t.segment != nil {
		err = t.segment.Close()
	}
	return errors.Join(err, os.RemoveAll(t.Dir))
}

// Serve starts the appliance and waits until it answers.
func (t *Tower) Serve(ctx context.Context) error {
	args := append([]string{"serve", "-i", "eth0", "--state-dir", t.state(), "--image", "lab", "--authorized-keys", t.key() + ".pub"}, t.Options.Serve...)
	t.serving = t.Appliance.Command(t.Bramble, args...)
	var said bytes.Buffer
	t.serving.Stdout = t.log("")
	t.serving.Stderr = io.MultiWriter(&said, t.log(""))
	if err := t.serving.Start(); err != nil {
		return err
	}
	for {
		if _, err := t.Client().Health(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("bramble serve does not answer: %w: %s", ctx.Err(), said.String())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Kill ends the appliance as kill -9 does.
func (t *Tower) Kill() { kill(t.serving) }

func kill(cmd *exec.Cmd) {
	if cmd != nil && cmd.Process != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// Memory is the appliance's resident memory in bytes.
func (t *Tower) Memory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", t.serving.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	var kib int64
	_, err = fmt.Sscan(rest, &kib)
	return kib << 10, err
}

// Serial is the serial number of board i, from 0.
func (t *Tower) Serial(i int) node.Serial { return node.Serial(0x8b07bcc6 + i) }

// Name is the host name that board i gets.
func (t *Tower) Name(i int) string { return "pi-" + t.Serial(i).String() }

// PowerOn switches board i on: the boot ROM in software, then QEMU with what it received.
func (t *Tower) PowerOn(i int) error {
	if t.boards[i] != nil {
		t.PowerOff(i)
	}
	tap := fmt.Sprintf("board%d", i)
	if t.segment.Run("ip", "link", "show", "dev", tap) != nil {
		if err := t.segment.AddTap(tap); err != nil {
			return err
		}
	}
	cmd := t.segment.Command(t.PiSim, "--iface", port+".w", "--serial", t.Serial(i).String(), "--qemu", t.Machine, "--tap", tap,
		"--client", "rfc1350", // a program on a busy machine pauses as no board does, and must not hang on the block sent again
		"--dir", filepath.Join(t.Dir, "boards"))
	cmd.Stdout, cmd.Stderr = t.log("board "), t.log("board ")
	t.boards[i] = cmd
	return cmd.Start()
}

// Simulate switches count more boards on at once that exist only up to their kernel, and waits until all have it.
func (t *Tower) Simulate(ctx context.Context, count int) error {
	cmd := t.segment.Command(t.PiSim, "--iface", port+".w", "--serial", "00100000", "--count", fmt.Sprint(count), "--client", "rfc1350")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%d simulated boards did not all come to their kernel: %w: %s", count, err, out.Bytes()[max(0, out.Len()-2000):])
	}
	return nil
}

// PowerOff pulls board i's plug.
func (t *Tower) PowerOff(i int) {
	kill(t.boards[i])
	delete(t.boards, i)
}

// Client asks the appliance's API from the router's place on the network.
func (t *Tower) Client() *client.Client {
	return &client.Client{Base: "http://" + addr + ":8080", HTTP: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, to string) (conn net.Conn, err error) {
			err = t.Router.Do(func() error {
				conn, err = new(net.Dialer).DialContext(ctx, network, to)
				return err
			})
			return conn, err
		},
	}}}
}

// Ready waits until board i says that one can log in, in a boot that began after since.
func (t *Tower) Ready(ctx context.Context, i int, since time.Time) (api.Detail, error) {
	var last api.Detail
	for {
		d, err := t.Client().Node(ctx, t.Serial(i).String())
		if err == nil {
			last = d
			if d.Stage == node.StageReady && d.BootTime.After(since) {
				return d, nil
			}
		}
		select {
		case <-ctx.Done():
			return last, fmt.Errorf("%s is not ready; its stage is %q, its problem %q: %w", t.Name(i), last.Stage, last.Problem, ctx.Err())
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// SSH runs a command on board i with the tower's key.
func (t *Tower) SSH(ctx context.Context, i int, command string) (string, error) {
	d, err := t.Client().Node(ctx, t.Serial(i).String())
	if err != nil {
		return "", err
	}
	cmd := t.Router.Command("ssh", "-i", t.key(), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60", "pi@"+d.Addr.String(), command)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Start(); err != nil {
		return "", err
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("ssh pi@%s %s: %w: %s", d.Addr, command, err, complaints.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// log is where a program prints, whole writes at a time.
func (t *Tower) log(prefix string) io.Writer { return &lines{t, prefix} }

type lines struct {
	t      *Tower
	prefix string
}

func (l *lines) Write(b []byte) (int, error) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	for line := range bytes.Lines(b) {
		fmt.Fprintf(l.t.Log, "%s%s", l.prefix, line)
	}
	return len(b), nil
}

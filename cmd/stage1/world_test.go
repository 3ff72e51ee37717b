package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bramble/firstboot/nodefiles"
	"bramble/firstboot/wire"
	"bramble/images/ext4"
	"bramble/images/initramfs"
	"bramble/images/partition"
	"bramble/lab"
	"bramble/lab/qemu"
	"bramble/nbd"
	"bramble/node"
)

var mac = node.MAC{0xb8, 0x27, 0xeb, 0, 0, 0x51}

const (
	applianceIP = "10.77.0.2"
	httpAddr    = applianceIP + ":8080"
	nbdAddr     = applianceIP + ":10809"
)

// world is a house with a router, an appliance that is only what stage 1 talks to, and one board.
type world struct {
	t         *testing.T
	bench     *lab.Bench
	appliance *lab.Host
	router    *lab.Router
	key       string // path of the private key
	machine   string
	kernel    string
	dtb       string
	initrd    string
	root      partition.Part
	image     string

	tar []byte
	sha string

	reports  chan wire.Report
	off      <-chan struct{} // closed when the board has powered itself off or reset
	console  chan string
	opened   atomic.Int32 // connections to the root
	stopNBD  func()
	stopHTTP func()
}

func newWorld(t *testing.T) *world {
	lab.Need(t, "qemu-system-aarch64", "dnsmasq", "mcopy", "ssh", "ssh-keygen", "nsenter", "ip")
	w := &world{t: t, bench: lab.NewSegment(t), image: lab.Image(t), reports: make(chan wire.Report, 100), console: make(chan string, 10000)}
	w.router = w.bench.HouseRouter(lab.RouterConfig{Args: []string{"--dhcp-option=6,10.77.0.1", "--dhcp-option=option:T1,40"}})
	w.appliance = w.bench.Host("appliance", applianceIP+"/24")
	w.key = filepath.Join(t.TempDir(), "key")
	w.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", w.key)
	w.kernel = filepath.Join(t.TempDir(), "kernel8.img")
	w.run("mcopy", "-i", w.image+"@@8M", "::kernel8.img", w.kernel)
	w.machine = qemu.Virt
	if os.Getenv("BOARD") == qemu.Raspi3 {
		w.machine, w.dtb = qemu.Raspi3, filepath.Join(t.TempDir(), "board.dtb")
		w.run("mcopy", "-i", w.image+"@@8M", "::bcm2837-rpi-3-b.dtb", w.dtb)
	}
	w.initrd = w.buildInitramfs(w.buildStage1())
	public, err := os.ReadFile(w.key + ".pub")
	w.must(err)
	w.tar, w.sha, err = nodefiles.Render(nodefiles.Spec{
		Name: "pi-51", MAC: mac, MachineIDSeed: "test", User: "pi", Keys: []string{strings.TrimSpace(string(public))},
	})
	w.must(err)
	w.startHTTP()
	w.startNBD()
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) run(name string, args ...string) {
	w.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		w.t.Fatalf("%s: %v: %s", name, err, out)
	}
}

func (w *world) buildStage1() []byte {
	file := filepath.Join(w.t.TempDir(), "stage1")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, ".")
	build.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		w.t.Fatalf("go build: %v: %s", err, out)
	}
	program, err := os.ReadFile(file)
	w.must(err)
	return program
}

func (w *world) buildInitramfs(stage1 []byte) string {
	f, err := os.Open(w.image)
	w.must(err)
	defer f.Close()
	info, err := f.Stat()
	w.must(err)
	table, err := partition.Read(f, info.Size())
	w.must(err)
	w.root = table.Parts[1]
	section := w.root.Section(f)
	root, err := ext4.New(section, section.Size())
	w.must(err)
	modules, err := fs.Sub(root, "usr/lib/modules")
	w.must(err)
	kernel, err := os.Open(w.kernel)
	w.must(err)
	defer kernel.Close()
	release, err := initramfs.KernelRelease(kernel)
	w.must(err)
	packed, err := initramfs.Build(context.Background(), initramfs.Spec{
		Init: stage1, Modules: modules, Release: release, Need: []string{"nbd", "overlay", "ext4"},
		Want: []string{"crc32c_generic", "virtio_net", "virtio_pci", "dwc2", "phy_generic", "lan78xx", "smsc95xx", "microchip", "cdc_ether", "rndis_host"},
	})
	w.must(err)
	const most = 6 << 20
	w.t.Logf("the initramfs has %d bytes, stage 1 in it %d", len(packed), len(stage1))
	if len(packed) > most {
		w.t.Errorf("the initramfs has %d bytes; at most %d are to cross TFTP", len(packed), most)
	}
	file := filepath.Join(w.t.TempDir(), "initramfs")
	w.must(os.WriteFile(file, packed, 0o600))
	return file
}

func (w *world) listen(addr string) net.Listener {
	var ln net.Listener
	w.must(w.appliance.Do(func() (err error) {
		ln, err = net.Listen("tcp4", addr)
		return err
	}))
	return ln
}

// startHTTP starts the web server; stopHTTP is like its death.
func (w *world) startHTTP() {
	mux := http.NewServeMux()
	answer := func(out http.ResponseWriter, v any) {
		if err := json.NewEncoder(out).Encode(v); err != nil {
			w.t.Errorf("cannot answer: %v", err)
		}
	}
	mux.HandleFunc("GET "+wire.ClockPath, func(out http.ResponseWriter, r *http.Request) { answer(out, wire.Clock{Now: time.Now()}) })
	mux.HandleFunc("GET "+wire.PlanPath, func(out http.ResponseWriter, r *http.Request) {
		if r.FormValue("mac") != mac.String() || r.FormValue("boot") != "0badcafe" {
			http.Error(out, "who is that?", http.StatusNotFound)
			return
		}
		answer(out, wire.Plan{
			Boot: "0badcafe", Name: "pi-51", Now: time.Now(), Root: wire.Block{Addr: nbdAddr, Export: "root", FSType: "ext4"},
			Overlay: "50%", FilesSHA: w.sha, User: &wire.User{Name: "pi", UID: 1000},
		})
	})
	mux.HandleFunc("GET "+wire.FilesPath, func(out http.ResponseWriter, r *http.Request) {
		if _, err := out.Write(w.tar); err != nil {
			w.t.Errorf("cannot send the files: %v", err)
		}
	})
	mux.HandleFunc("POST "+wire.ReportPath, func(out http.ResponseWriter, r *http.Request) {
		var report wire.Report
		if err := json.NewDecoder(r.Body).Decode(&report); err != nil {
			w.t.Errorf("a report cannot be read: %v", err)
		}
		w.t.Logf("report: %-9s %v %v %s", report.Step, report.OK, report.Took.Round(time.Millisecond), report.Text)
		out.WriteHeader(http.StatusNoContent)
		w.reports <- report
	})
	server := &http.Server{Handler: mux}
	ln := w.listen(httpAddr)
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(ln) })
	w.stopHTTP = sync.OnceFunc(func() { _ = server.Close(); done.Wait() })
	w.t.Cleanup(w.stopHTTP)
}

// startNBD starts the block server; stopNBD is like its death.
func (w *world) startNBD() {
	server := &nbd.Server{
		Exports: exports{w.image, w.root},
		Opened:  func(*nbd.Session) { w.opened.Add(1) },
	}
	ctx, cancel := context.WithCancel(context.Background())
	ln := w.listen(nbdAddr)
	var done sync.WaitGroup
	done.Go(func() {
		if err := server.Serve(ctx, ln); err != nil {
			w.t.Errorf("the block server ended: %v", err)
		}
	})
	w.stopNBD = sync.OnceFunc(func() { cancel(); done.Wait() })
	w.t.Cleanup(w.stopNBD)
}

// exports is one image's root.
type exports struct {
	image string
	root  partition.Part
}

func (e exports) Names() []string { return []string{"root"} }

func (e exports) Open(_ context.Context, name string) (nbd.Export, error) {
	if name != "root" {
		return nil, fs.ErrNotExist
	}
	f, err := os.Open(e.image)
	if err != nil {
		return nil, err
	}
	section := e.root.Section(f)
	_, offset, n := section.Outer()
	return nbd.NewFileSection(f, offset, n), nil
}

// powerOn starts the board.
func (w *world) powerOn(cmdline string) *qemu.Machine {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "console.log")
	if dir := os.Getenv("CONSOLES"); dir != "" {
		file = filepath.Join(dir, w.t.Name()+".log")
	}
	board := qemu.Board{
		Machine: w.machine, DTB: w.dtb, Kernel: w.kernel, Initrd: w.initrd, MAC: mac[:], Tap: w.bench.Tap("node"), NetNS: w.bench.Path(),
		Cmdline:     "console=serial0 quiet " + cmdline,
		ConsoleFile: file,
		ConsoleLine: func(line string) {
			select {
			case w.console <- line:
			default: // nobody is looking
			}
		},
	}
	m, err := board.Start()
	w.must(err)
	w.t.Cleanup(m.Stop)
	w.off = m.Done()
	return m
}

// orders is the command line that the appliance would render.
func orders() string {
	return fmt.Sprintf("%s=%s %s=0badcafe %s=%s", wire.ServerWord, httpAddr, wire.BootWord, wire.MACWord, mac)
}

// await waits for the report of a finished step.
func (w *world) await(step string, ok bool, patience time.Duration) wire.Report {
	w.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case r := <-w.reports:
			if r.Step == step && r.OK == ok {
				return r
			}
		case <-w.off:
			w.t.Fatalf("the board went off before it reported %s", step)
		case <-timeout:
			w.t.Fatalf("no report of %s within %v", step, patience)
		}
	}
}

// awaitLine waits for a line on the console.
func (w *world) awaitLine(part string, patience time.Duration) string {
	w.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line := <-w.console:
			if strings.Contains(line, part) {
				return line
			}
		case <-timeout:
			w.t.Fatalf("the console did not say %q within %v", part, patience)
		}
	}
}

// address is what the router leased to the board.
func (w *world) address() string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	line, err := w.router.WaitLog(ctx, "DHCPACK(eth0) ")
	w.must(err)
	_, rest, _ := strings.Cut(line, "DHCPACK(eth0) ")
	addr, _, _ := strings.Cut(rest, " ")
	return addr
}

// ssh runs a command on the board, with the test's key.
func (w *world) ssh(patience time.Duration, command string) (string, error) {
	cmd := w.router.Command("ssh", "-i", w.key, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60", "pi@"+w.address(), command)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Start(); err != nil {
		return "", err
	}
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("ssh %s: %w: %s", command, err, complaints.String())
	}
	return strings.TrimSpace(out.String()), nil
}

func (w *world) mustSSH(command string) string {
	w.t.Helper()
	out, err := w.ssh(2*time.Minute, command)
	w.must(err)
	return out
}

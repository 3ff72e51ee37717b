package house

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"bramble/boot"
	"bramble/dhcp"
	"bramble/internal/neigh"
	"bramble/internal/task"
	"bramble/lab"
	"bramble/node"
	"bramble/tftp"
	"bramble/tftp/tree"
)

// serverVar makes the test binary the appliance, so that it runs inside a network namespace with a neighbour table of
// its own.
const serverVar = "BRAMBLE_TEST_HOUSE"

func TestMain(m *testing.M) {
	if os.Getenv(serverVar) != "" {
		if err := beAppliance(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// A row waits most of its time, so that more of them run at once than the machine has processors.
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// shelf has one image, with files of a fraction of their real size, and an initramfs that is only bytes.
type shelf struct{}

func (shelf) Boot(string) (fs.FS, error) {
	image := fstest.MapFS{
		"config.txt":  {Data: []byte("arm_64bit=1\ndtoverlay=vc4-kms-v3d\n")},
		"cmdline.txt": {Data: []byte("console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4 rootwait\n")},
	}
	for name, size := range map[string]int{
		"bootcode.bin": 52_476, "start.elf": 180_000, "fixup.dat": 7_300, "kernel8.img": 800_000,
		"start4.elf": 180_000, "fixup4.dat": 5_400, "bcm2711-rpi-4-b.dtb": 54_000,
		"bcm2710-rpi-3-b-plus.dtb": 35_000, "overlays/overlay_map.dtb": 2_000, "overlays/vc4-kms-v3d.dtbo": 3_900,
	} {
		image[name] = &fstest.MapFile{Data: bytes.Repeat([]byte{'x'}, size)}
	}
	return image, nil
}

func (shelf) Stage1(context.Context, string) ([]byte, error) {
	return bytes.Repeat([]byte{'x'}, 190_000), nil
}

// beAppliance wires the servers as bramble serve does, prints "listening", and then each event as a line of JSON.
func beAppliance() error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	nodes := node.NewRegistry()
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	record := func(e node.Event) {
		if e.Time.IsZero() {
			e.Time = time.Now() // as the journal does
		}
		nodes.Apply(e)
		mu.Lock()
		defer mu.Unlock()
		_ = out.Encode(e)
	}
	rules := boot.Rules{Default: boot.Profile{Image: "lab"}, Images: map[string]string{"lab": "sha256-lab"}}
	desk := &boot.Desk{Nodes: nodes, Rules: func() boot.Rules { return rules }, Record: record, Now: time.Now}
	files := &tree.Tree{Desk: desk, Shelf: shelf{}, MAC: new(neigh.Table).Lookup, HTTP: 8080}
	dhcpServer := &dhcp.Server{
		Interfaces: []string{"eth0"}, Ask: desk.Ask, Record: record, Nodes: nodes, Log: log,
		ProbeWait: 3 * time.Second, // a switch says every two seconds what it is
	}
	tftpServer := &tftp.Server{Tree: files, Log: log, Observe: func(r tftp.Report) {
		if e, ok := files.Event(r); ok {
			record(e)
		}
	}}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 69})
	if err != nil {
		return err
	}
	if err := dhcpServer.Listen(); err != nil {
		return err
	}
	fmt.Println("listening")
	return task.Run(ctx, log,
		task.Task{Name: "tftp", Run: func(ctx context.Context) error { return tftpServer.Serve(ctx, conn) }},
		task.Task{Name: "dhcp", Run: dhcpServer.Run},
	)
}

// appliance is what its owner can know of it: the events.
type appliance struct {
	mu     sync.Mutex
	events []node.Event
	heard  func(node.Event)
}

// start runs the appliance on a host; heard is called with each event.
func start(t *testing.T, host *lab.Host, heard func(node.Event)) *appliance {
	t.Helper()
	cmd, lines := lab.Again(t, host.NS, serverVar, "1")
	a := &appliance{heard: heard}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines.Scan() {
			a.take(lines.Bytes())
		}
	}()
	t.Cleanup(func() { end(t, cmd, read) })
	return a
}

func end(t *testing.T, cmd *exec.Cmd, read <-chan struct{}) {
	_ = cmd.Process.Signal(unix.SIGTERM)
	<-read
	if err := cmd.Wait(); err != nil {
		t.Errorf("the appliance ended with: %v", err)
	}
}

func (a *appliance) take(line []byte) {
	var e node.Event
	if json.Unmarshal(line, &e) != nil {
		return
	}
	a.mu.Lock()
	a.events = append(a.events, e)
	a.mu.Unlock()
	if a.heard != nil {
		a.heard(e)
	}
}

func (a *appliance) all() []node.Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.events)
}

// later is when the owner comes to look: the boot ROM has given up by then, and a kernel would not have been heard of.
const later = 40 * time.Second

// page is what the owner reads: what is known of the segment, and how the board is, some time after its last event.
func (a *appliance) page(board node.MAC) (says []string) {
	nodes := node.NewRegistry()
	for _, e := range a.all() {
		nodes.Apply(e)
		if e.Kind == node.Finding || e.Kind == node.Warning {
			says = append(says, e.Text)
		}
	}
	s, known := nodes.Get(board)
	if !known {
		return append(says, "The board was never heard of.")
	}
	if why := boot.Explain(s, s.Last.Time.Add(later), slices.Clone(says)); why != "" {
		return append(says, why)
	}
	return append(says, node.Sentence(s.Last))
}

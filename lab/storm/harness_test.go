package storm

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bramble/boot"
	"bramble/dhcp"
	"bramble/internal/neigh"
	"bramble/internal/task"
	"bramble/journal"
	"bramble/lab"
	"bramble/lab/pisim"
	"bramble/tftp"
	"bramble/tftp/tree"
)

// serverVar makes the test binary the appliance, so that it runs inside a network namespace with a neighbour table of
// its own.
const serverVar = "BRAMBLE_TEST_STORM"

type serverConfig struct {
	Files   string // folder of the firmware
	Journal string // folder
	Stage1  int    // bytes
}

func TestMain(m *testing.M) {
	if cfg := os.Getenv(serverVar); cfg != "" {
		if err := beAppliance(cfg); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// shelf has one image: a folder instead of a FAT partition, and an initramfs that is only bytes.
type shelf struct {
	files  fs.FS
	stage1 []byte
}

func (s shelf) Boot(string) (fs.FS, error)                     { return s.files, nil }
func (s shelf) Stage1(context.Context, string) ([]byte, error) { return s.stage1, nil }

// beAppliance wires the servers as bramble serve does, and prints "listening" when boards can come.
func beAppliance(text string) error {
	var cfg serverConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	journal, err := journal.Open(ctx, journal.Options{Dir: cfg.Journal, Log: log})
	if err != nil {
		return err
	}
	defer journal.Close()
	rules := boot.Rules{Default: boot.Profile{Image: "lab"}, Images: map[string]string{"lab": "sha256-lab"}}
	desk := &boot.Desk{Nodes: journal.Nodes(), Rules: func() boot.Rules { return rules }, Record: journal.Record, Now: time.Now}
	files := &tree.Tree{Desk: desk, Shelf: shelf{os.DirFS(cfg.Files), noise(cfg.Stage1)}, MAC: new(neigh.Table).Lookup, HTTP: 8080}
	dhcpServer := &dhcp.Server{Interfaces: []string{"eth0"}, Ask: desk.Ask, Record: journal.Record, Nodes: journal.Nodes(), Log: log}
	tftpServer := &tftp.Server{Tree: files, Log: log, Observe: func(r tftp.Report) {
		if e, ok := files.Event(r); ok {
			journal.Record(e)
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

func noise(size int) []byte {
	dice, b := rand.NewChaCha8([32]byte{}), make([]byte, size)
	_, _ = dice.Read(b)
	return b
}

// sizes of what a 3B+ loads with Raspberry Pi OS of bookworm, in bytes.
var sizes = map[string]int{
	"bootcode.bin": 52_476, "start.elf": 2_980_000, "fixup.dat": 7_300, "kernel8.img": 9_000_000,
	"bcm2710-rpi-3-b-plus.dtb": 35_000, "overlays/overlay_map.dtb": 2_000, "overlays/vc4-kms-v3d.dtbo": 3_900,
}

const stage1Size = 3_000_000

// firmware is a folder of files of those sizes, scaled, and the size of stage 1.
func firmware(t *testing.T, scale func(int) int) serverConfig {
	t.Helper()
	cfg := serverConfig{Files: t.TempDir(), Journal: t.TempDir(), Stage1: scale(stage1Size)}
	put := func(name string, b []byte) {
		path := filepath.Join(cfg.Files, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, size := range sizes {
		put(name, noise(scale(size)))
	}
	put("config.txt", []byte("arm_64bit=1\ndtoverlay=vc4-kms-v3d\n"))
	put("cmdline.txt", []byte("console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4 rootwait\n"))
	return cfg
}

// lan is a house router, the appliance and a switch for boards.
func lan(t *testing.T, cfg serverConfig) *pisim.Segment {
	t.Helper()
	seg := lab.NewSegment(t)
	// The ROM never makes a lease, so dnsmasq picks each offer by a hash of the MAC address alone. With 1000
	// addresses the boards of this test get different ones; the test sees to it.
	seg.HouseRouter(lab.RouterConfig{
		Addr:  netip.MustParsePrefix("10.77.0.1/16"),
		First: netip.MustParseAddr("10.77.1.0"), Last: netip.MustParseAddr("10.77.4.231"),
	})
	host := seg.Host("bramble", "10.77.0.2/16")
	serve(t, host, cfg)

	boards := &pisim.Segment{}
	err := seg.Host("boards").Do(func() error {
		up, err := boards.Uplink("eth0")
		if err == nil {
			t.Cleanup(func() { _ = up.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return boards
}

func serve(t *testing.T, host *lab.Host, cfg serverConfig) {
	t.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := host.Command(exe)
	cmd.Env = append(os.Environ(), serverVar+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, cmd) })
	if lines := bufio.NewScanner(out); !lines.Scan() {
		t.Fatal("the appliance did not start; its reason stands above")
	}
}

// end lets the appliance close its journal.
func end(t *testing.T, cmd *exec.Cmd) {
	_ = cmd.Process.Signal(unix.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the appliance ended with: %v", err)
	}
}

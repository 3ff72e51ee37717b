package qemu_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bramble/lab"
	"bramble/lab/qemu"
)

// fromBootfs copies a file out of the lab image's first partition, which starts at 8 MiB.
func fromBootfs(t *testing.T, name string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("mcopy", "-i", lab.Image(t)+"@@8M", "::"+name, to).CombinedOutput(); err != nil {
		t.Fatalf("mcopy %s: %v: %s", name, err, out)
	}
	return to
}

// initramfs builds testdata/init for the board and packs it as /init.
func initramfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "init"), "./testdata/init")
	build.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	program, err := os.ReadFile(filepath.Join(dir, "init"))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	entry := func(name string, mode int, data []byte) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
		b.Write(data)
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	entry("init", 0o100755, program)
	entry("TRAILER!!!", 0, nil)
	path := filepath.Join(dir, "initramfs")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// boot powers a board on and returns the machine and the lines of its console.
func boot(t *testing.T, b qemu.Board) (*qemu.Machine, <-chan string) {
	t.Helper()
	lines := make(chan string, 10000)
	b.ConsoleLine = func(line string) { lines <- line }
	m, err := b.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop)
	return m, lines
}

// await waits for a line with text.
func await(t *testing.T, lines <-chan string, text string, patience time.Duration) string {
	t.Helper()
	timeout := time.After(patience)
	var last string
	for {
		select {
		case last = <-lines:
			if strings.Contains(last, text) {
				return last
			}
		case <-timeout:
			t.Fatalf("no line with %q after %v; the last was %q", text, patience, last)
		}
	}
}

func TestVirtBoots(t *testing.T) {
	lab.Need(t, "qemu-system-aarch64", "mcopy")
	console := filepath.Join(t.TempDir(), "console.log")
	m, lines := boot(t, qemu.Board{
		Machine: qemu.Virt, Kernel: fromBootfs(t, "kernel8.img"), Initrd: initramfs(t),
		Cmdline: "console=serial0,115200 bramble.test=1", ConsoleFile: console,
	})
	if line := await(t, lines, "hello from init", 2*time.Minute); !strings.Contains(line, "console=ttyAMA0,115200 bramble.test=1") {
		t.Errorf("the kernel's command line is not the board's: %s", line)
	}
	if err := m.Wait(); err != nil {
		t.Errorf("after a power-off by the system: %v", err)
	}
	if log, err := os.ReadFile(console); err != nil || !bytes.Contains(log, []byte("hello from init")) {
		t.Errorf("the console's file has %d bytes without the greeting (%v)", len(log), err)
	}
}

func TestRaspi3Boots(t *testing.T) {
	lab.Need(t, "qemu-system-aarch64", "mcopy")
	_, lines := boot(t, qemu.Board{
		Machine: qemu.Raspi3, Kernel: fromBootfs(t, "kernel8.img"), DTB: fromBootfs(t, "bcm2837-rpi-3-b.dtb"), Initrd: initramfs(t),
		Cmdline: "console=serial0,115200",
	})
	await(t, lines, "hello from init", 4*time.Minute)
}

func TestPowerCut(t *testing.T) {
	lab.Need(t, "qemu-system-aarch64", "mcopy", "ip", "nsenter")
	seg := lab.NewSegment(t)
	tap := seg.Tap("node1")
	m, lines := boot(t, qemu.Board{
		Machine: qemu.Virt, Kernel: fromBootfs(t, "kernel8.img"), Cmdline: "console=serial0",
		MAC: []byte{0xb8, 0x27, 0xeb, 0, 0, 1}, Tap: tap, NetNS: seg.Path(),
	})
	await(t, lines, "Linux version", time.Minute)
	m.Stop()
	select {
	case <-m.Done():
	default:
		t.Error("Stop returned before the board was off")
	}
	if m.Wait() == nil {
		t.Error("a power cut looks like an orderly end")
	}
}

func TestUnusable(t *testing.T) {
	lab.Need(t, "qemu-system-aarch64")
	m, _ := boot(t, qemu.Board{Machine: qemu.Virt, Kernel: filepath.Join(t.TempDir(), "none")})
	if err := m.Wait(); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a board without kernel ended with %v, want QEMU's complaint", err)
	}
}

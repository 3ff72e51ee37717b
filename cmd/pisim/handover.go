package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"bramble/lab/pisim"
	"bramble/lab/qemu"
)

// handOver writes what a board received to files, and powers QEMU on with them if that was asked for.
type handOver struct {
	options
	number  int
	console func(line string)
}

// take waits for QEMU to end, which is not an error, or for ctx.
func (h handOver) take(ctx context.Context, r pisim.Report) error {
	dir, err := h.folder(r)
	if err != nil {
		return err
	}
	b := qemu.Board{
		Machine: h.qemu, Kernel: filepath.Join(dir, "kernel"), DTB: filepath.Join(dir, "dtb"),
		Cmdline: kernelLine(r.Boot), MAC: r.MAC[:], Tap: strings.ReplaceAll(h.tap, "%d", strconv.Itoa(h.number)),
		ConsoleFile: filepath.Join(dir, "console.log"), ConsoleLine: h.console,
	}
	if len(r.Boot.Initramfs) > 0 {
		b.Initrd = filepath.Join(dir, "initramfs")
	}
	for name, data := range map[string][]byte{
		"kernel": r.Boot.Kernel, "dtb": r.Boot.DTB, "initramfs": r.Boot.Initramfs, "cmdline": []byte(b.Cmdline + "\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return fmt.Errorf("cannot keep what board %s received: %w", r.Serial, err)
		}
	}
	if h.qemu == "" {
		return nil
	}
	m, err := b.Start()
	if err != nil {
		return fmt.Errorf("board %s received all it needs, but: %w", r.Serial, err)
	}
	defer m.Stop()
	select {
	case <-m.Done():
		return m.Wait()
	case <-ctx.Done():
		return nil
	}
}

// folder is where the board's files go.
func (h handOver) folder(r pisim.Report) (string, error) {
	root := h.dir
	if root == "" {
		root = filepath.Join(os.TempDir(), "pisim")
	}
	dir := filepath.Join(root, r.Serial)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cannot keep what board %s received: %w", r.Serial, err)
	}
	return dir, nil
}

// kernelLine is the command line for QEMU's machines: their serial ports have other numbers than the board's, so
// console=serial0 stays for lab/qemu to replace, and the firmware's count of ports goes.
func kernelLine(b pisim.Boot) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(b.Line()), func(arg string) bool {
		return strings.HasPrefix(arg, "8250.nr_uarts=")
	}), " ")
}

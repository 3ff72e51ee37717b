package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bramble/lab"
	"bramble/lab/pisim"
)

func TestParse(t *testing.T) {
	for args, want := range map[string]string{ // part of the error; "" for none
		"--iface e":                             "",
		"--iface e --loss 1% --dup 0.5":         "",
		"--iface e --model 3b --client rfc1350": "",
		"--iface e --build bullseye-2022":       "",
		"--iface e --qemu virt --tap t":         "",
		"":                                      "--iface is missing",
		"--iface e x":                           `"x" is not an option`,
		"--iface e --model 9":                   "there is no model",
		"--iface e --model 5 --build bullseye-2022": "no firmware build",
		"--iface e --client lazy":                   "choose strict or rfc1350",
		"--iface e --serial zz":                     "hexadecimal digits",
		"--iface e --serial 123456789":              "hexadecimal digits",
		"--iface e --count 0":                       "at least one board",
		"--iface e --loss 101%":                     "write a share",
		"--iface e --loss NaN":                      "write a share",
		"--iface e --qemu vax --tap t":              "choose virt or raspi3b",
		"--iface e --qemu virt":                     "--tap is missing",
		"--iface e --qemu virt --count 2 --tap t":   "write %d",
	} {
		o, err := parse(strings.Fields(args), &bytes.Buffer{})
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", args, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: error %v; want ...%s", args, err, want)
		case args == "--iface e --loss 1% --dup 0.5" && o.faults != (pisim.Faults{Loss: 0.01, Dup: 0.5}):
			t.Errorf("%q: faults %+v", args, o.faults)
		}
	}
}

func TestHandOverWritesFiles(t *testing.T) {
	h := handOver{options: options{dir: t.TempDir()}}
	r := pisim.Report{Serial: "8b07bcc6", Boot: pisim.Boot{
		Kernel: []byte("k"), DTB: []byte("d"), Initramfs: []byte("i"),
		FirmwareArgs: "8250.nr_uarts=0 a=b", CmdlineTxt: "console=serial0,115200 ip=dhcp\nrest",
	}}
	if err := h.take(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"kernel": "k", "dtb": "d", "initramfs": "i", "cmdline": "a=b console=serial0,115200 ip=dhcp\n",
	} {
		got, err := os.ReadFile(filepath.Join(h.dir, "8b07bcc6", name))
		if err != nil || string(got) != want {
			t.Errorf("%s is %q (%v); want %q", name, got, err, want)
		}
	}
}

func TestUnknownInterface(t *testing.T) {
	var errOut bytes.Buffer
	if status := run(t.Context(), []string{"--iface", "nosuch0"}, &bytes.Buffer{}, &errOut); status != badUsage {
		t.Errorf("exit status %d", status)
	}
	if !strings.Contains(errOut.String(), "interface nosuch0") {
		t.Errorf("it said %q", errOut.String())
	}
}

// The whole program beside a dnsmasq.
func TestRun(t *testing.T) {
	lab.Need(t, "dnsmasq", "ip")
	dir := t.TempDir()
	for _, name := range []string{"bootcode.bin", "start.elf", "config.txt", "cmdline.txt", "kernel7.img", "bcm2710-rpi-3-b-plus.dtb"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("# "+name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b := lab.NewSegment(t)
	b.HouseRouter(lab.RouterConfig{TFTPServer: "10.77.0.1", Args: []string{"--enable-tftp", "--tftp-root=" + dir}})
	in := func(args ...string) (status int, out, errOut bytes.Buffer) {
		host := b.Host(fmt.Sprint("boards", len(args)))
		if err := host.Do(func() error {
			status = run(t.Context(), append([]string{"--iface", "eth0"}, args...), &out, &errOut)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return status, out, errOut
	}
	status, out, errOut := in("--count", "3", "--json")
	var reports []struct{ Serial, Outcome string }
	if err := json.Unmarshal(out.Bytes(), &reports); err != nil || len(reports) != 3 || reports[2].Serial != "8b07bcc8" || reports[2].Outcome != "kernel" {
		t.Errorf("the reports are %+v (%v)", reports, err)
	}
	if status != allBooted || !strings.Contains(errOut.String(), "3 of 3 boards reached the kernel") {
		t.Errorf("exit status %d: %s", status, errOut.String())
	}
	if err := os.Remove(filepath.Join(dir, "kernel7.img")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	status, out, _ = in("--count", "2", "--stagger", "0s", "--timeout", "20s")
	if status != someHalted || !strings.Contains(out.String(), "its LED flashes 7 times") {
		t.Errorf("exit status %d after %s: %s", status, time.Since(began), out.String())
	}
}

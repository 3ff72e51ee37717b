package pisim_test

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bramble/lab"
	"bramble/lab/pisim"
)

// firmwareDir is a folder of fake firmware, as large as the real one where size matters.
func firmwareDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"bootcode.bin": bytes.Repeat([]byte("b"), 52476), "start.elf": bytes.Repeat([]byte("s"), 2981056),
		"fixup.dat": bytes.Repeat([]byte("f"), 7300), "config.txt": []byte("auto_initramfs=1\narm_64bit=1\ndtoverlay=vc4-kms-v3d\n"),
		"cmdline.txt": []byte("console=serial0,115200 ip=dhcp\n"), "kernel8.img": bytes.Repeat([]byte("k"), 4<<20),
		"initramfs8": bytes.Repeat([]byte("i"), 2<<20), "bcm2710-rpi-3-b-plus.dtb": bytes.Repeat([]byte("d"), 32000),
		"overlays/overlay_map.dtb": []byte("map"), "overlays/vc4-kms-v3d.dtbo": []byte("vc4"),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// boardOn plugs a segment of boards into a lab segment and boots one 3B+ that is less patient than a real one.
func boardOn(t *testing.T, b *lab.Bench) pisim.Report {
	t.Helper()
	var boards pisim.Segment
	host := b.Host("boards")
	err := host.Do(func() error {
		up, err := boards.Uplink("eth0")
		if err == nil {
			t.Cleanup(func() { _ = up.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := pisim.NewModel("3b+")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range m.Stages {
		if s.DHCP != nil {
			s.DHCP.Interval = time.Second
		}
	}
	r := pisim.Board{Model: m, Serial: 0x8b07bcc6}.Boot(t.Context(), &boards)
	for _, e := range r.Timeline {
		t.Log(e)
	}
	return r
}

func addr(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func tftpArgs(dir string) []string {
	return []string{"--enable-tftp", "--tftp-root=" + dir}
}

func TestDnsmasqProxy(t *testing.T) {
	lab.Need(t, "dnsmasq", "ip")
	b, dir := lab.NewSegment(t), firmwareDir(t)
	b.HouseRouter(lab.RouterConfig{})
	b.HouseRouter(lab.RouterConfig{Name: "boot", Addr: addr("10.77.0.2/24"), Proxy: "Raspberry Pi Boot", Args: tftpArgs(dir)})
	r := boardOn(t, b)
	if r.Outcome != pisim.Kernel || r.Server != "10.77.0.2" || len(r.Warnings) > 0 {
		t.Fatalf("%s; server %s, warnings %q", r, r.Server, r.Warnings)
	}
	if len(r.Boot.Kernel) != 4<<20 || len(r.Boot.Initramfs) != 2<<20 || r.Duplicates != 0 {
		t.Errorf("kernel of %d bytes, initramfs of %d, %d duplicates", len(r.Boot.Kernel), len(r.Boot.Initramfs), r.Duplicates)
	}
}

func TestDnsmasqOption66(t *testing.T) {
	lab.Need(t, "dnsmasq", "ip")
	b, dir := lab.NewSegment(t), firmwareDir(t)
	b.HouseRouter(lab.RouterConfig{TFTPServer: "10.77.0.1", Args: tftpArgs(dir)})
	if r := boardOn(t, b); r.Outcome != pisim.Kernel || r.Server != "10.77.0.1" {
		t.Fatalf("%s; server %s", r, r.Server)
	}
}

func TestDnsmasqWithoutRouterOffer(t *testing.T) {
	lab.Need(t, "dnsmasq", "ip")
	b := lab.NewSegment(t)
	b.HouseRouter(lab.RouterConfig{NoOffers: true})
	b.HouseRouter(lab.RouterConfig{Name: "boot", Addr: addr("10.77.0.2/24"), Proxy: "Raspberry Pi Boot"})
	r := boardOn(t, b)
	if r.Outcome != pisim.NoOffer || !strings.Contains(r.Reason, "a proxy alone is not enough") {
		t.Fatalf("%s", r)
	}
}

func TestDnsmasqWithoutText(t *testing.T) {
	lab.Need(t, "dnsmasq", "ip")
	b := lab.NewSegment(t)
	b.HouseRouter(lab.RouterConfig{})
	b.HouseRouter(lab.RouterConfig{Name: "boot", Addr: addr("10.77.0.2/24"), Proxy: "Boot from network"})
	if r := boardOn(t, b); r.Outcome != pisim.NoServer || !strings.Contains(r.Reason, "no OFFER named a TFTP server") {
		t.Fatalf("%s", r)
	}
}

// A TFTP server that refuses all options: bootcode.bin is content, start.elf takes every file for absent.
func TestServerWithoutOptions(t *testing.T) {
	lab.Need(t, "dnsmasq", "ip", "in.tftpd")
	b, dir := lab.NewSegment(t), firmwareDir(t)
	b.HouseRouter(lab.RouterConfig{TFTPServer: "10.77.0.2"})
	host := b.Host("tftp", "10.77.0.2/24")
	server := host.Command("in.tftpd", "--foreground", "--secure", "--address", "10.77.0.2", "-r", "tsize", "-r", "blksize", dir)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	r := boardOn(t, b)
	if r.Outcome != pisim.MissingFile || r.Stage != "start" || !strings.Contains(r.Reason, "no OACK") {
		t.Fatalf("%s", r)
	}
}

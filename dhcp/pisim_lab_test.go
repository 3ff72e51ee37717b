package dhcp

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
	"bramble/node"
)

// firmware is a folder of files with the names that all models need, to boot them through every DHCP exchange.
func firmware(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "overlays"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"bootcode.bin", "start.elf", "fixup.dat", "start4.elf", "fixup4.dat", "kernel8.img", "kernel_2712.img", "cmdline.txt",
		"bcm2710-rpi-3-b.dtb", "bcm2710-rpi-3-b-plus.dtb", "bcm2711-rpi-4-b.dtb", "bcm2712-rpi-5-b.dtb", "overlays/overlay_map.dtb",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte("x"), 5000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "config.txt"), []byte("arm_64bit=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Every model boots to its kernel in both modes, and takes us for its TFTP server in every stage.
func TestSimulatedBoards(t *testing.T) {
	lab.Need(t, "ip", "dnsmasq")
	dir := firmware(t)
	for _, mode := range []string{"proxy", "authoritative"} {
		for _, name := range pisim.Models() {
			t.Run(mode+" "+name, func(t *testing.T) {
				t.Parallel()
				seg := lab.NewSegment(t)
				cfg := serverConfig{Interfaces: []string{"eth0"}, ProbeWait: -1}
				if mode == "proxy" {
					seg.HouseRouter(lab.RouterConfig{})
				} else {
					cfg.Authority = authority(t, "10.77.0.100", "10.77.0.199")
				}
				host := seg.Host("bramble", "10.77.0.2/24")
				server := startServer(t, host.NS, cfg)
				startDnsmasq(t, host, "--enable-tftp", "--tftp-root="+dir)
				model, err := pisim.NewModel(name)
				if err != nil {
					t.Fatal(err)
				}
				board := pisim.Board{Model: model, Serial: 0x8b07bcc6}
				r := board.Boot(t.Context(), seg.Boards(seg.Host("boards")))
				if r.Outcome != pisim.Kernel || r.Server != "10.77.0.2" || !netip.MustParsePrefix("10.77.0.0/24").Contains(ipOf(r.Address)) || len(r.Warnings) > 0 {
					t.Errorf("%s; address %s, server %s, warnings %q", r, r.Address, r.Server, r.Warnings)
					for _, e := range r.Timeline {
						t.Log(e)
					}
				}
				got := server.kinds(node.MAC(board.Address()))
				if !strings.HasPrefix(got, "boot.started ") || strings.Count(got, "boot.started") != 1 {
					t.Errorf("the board's timeline is %q; want one boot", got)
				}
			})
		}
	}
}

// A tower of boards powered on at once without a router: every one gets an address of its own.
func TestSimulatedTower(t *testing.T) {
	lab.Need(t, "ip", "dnsmasq")
	dir := firmware(t)
	for _, name := range []string{"3b", "3b+"} {
		t.Run(name, func(t *testing.T) {
			seg := lab.NewSegment(t)
			host := seg.Host("bramble", "10.77.0.2/24")
			startServer(t, host.NS, serverConfig{Interfaces: []string{"eth0"}, ProbeWait: -1, Authority: authority(t, "10.77.0.100", "10.77.0.199")})
			startDnsmasq(t, host, "--enable-tftp", "--tftp-root="+dir)
			model, err := pisim.NewModel(name)
			if err != nil {
				t.Fatal(err)
			}
			fleet := pisim.NewFleet(seg.Boards(seg.Host("boards")), pisim.Board{Model: model, Serial: 0x8b07bc00}, 32)
			fleet.Stagger = 500 * time.Millisecond
			has := map[string]string{}
			for _, r := range fleet.Run(t.Context()) {
				if r.Outcome != pisim.Kernel {
					t.Errorf("%s", r)
				}
				if other, taken := has[r.Address]; taken {
					t.Errorf("%s and %s both have %s", r.Name, other, r.Address)
				}
				has[r.Address] = r.Name
			}
		})
	}
}

package lab_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bramble/lab"
	"bramble/lab/wire"
)

// discoverHex is the DISCOVER of a Pi 3B+ ROM, MAC b8:27:eb:69:20:2e (pi-netboot.md section 6).
var discoverHex = "0101060026f3033900000000" + strings.Repeat("00", 16) + "b827eb69202e" + strings.Repeat("00", 10+192) +
	"63825363350101370e2b3c4380818283848586874201035d0200005e030102016111002e20694c2e20694c2e20694c2e20694c" +
	"3c20505845436c69656e743a417263683a30303030303a554e44493a303032303031ff"

// discover broadcasts the DISCOVER from host, which has no address.
func discover(t *testing.T, host *lab.Host) {
	t.Helper()
	packet, err := hex.DecodeString(discoverHex)
	if err != nil {
		t.Fatal(err)
	}
	bind := func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = syscall.BindToDevice(int(fd), "eth0") })
		if err != nil {
			return err
		}
		return failed
	}
	err = host.Do(func() error {
		c, err := (&net.ListenConfig{Control: bind}).ListenPacket(t.Context(), "udp4", "0.0.0.0:68")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.WriteTo(packet, &net.UDPAddr{IP: net.IPv4bcast, Port: 67})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestHouseRouter(t *testing.T) {
	lab.Need(t, "ip", "nsenter", "dnsmasq")
	for _, test := range []struct {
		name   string
		cfg    lab.RouterConfig
		want   []string // lines of the log contain these, in this order
		absent string
	}{
		{
			name: "plain", cfg: lab.RouterConfig{},
			want:   []string{"DHCPDISCOVER(eth0) b8:27:eb:69:20:2e", "DHCPOFFER(eth0) 10.77.0.", "option: 53 message-type  2"},
			absent: "option: 66",
		},
		{
			name: "option 66", cfg: lab.RouterConfig{TFTPServer: "10.77.0.5"},
			want: []string{"DHCPOFFER(eth0) 10.77.0.", "option: 66 tftp-server  10.77.0.5"},
		},
		{
			name: "no offers", cfg: lab.RouterConfig{NoOffers: true},
			want:   []string{"DHCPDISCOVER(eth0) b8:27:eb:69:20:2e no address available"},
			absent: "DHCPOFFER",
		},
		{
			name: "rival", cfg: lab.RouterConfig{Proxy: "Raspberry Pi Boot"},
			want:   []string{"PXE(eth0) b8:27:eb:69:20:2e proxy", "option: 43 vendor-encap"},
			absent: "DHCPOFFER",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			seg := lab.NewSegment(t)
			router := seg.HouseRouter(test.cfg)
			pi := seg.Host("pi")
			discover(t, pi)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			for _, want := range test.want {
				if _, err := router.WaitLog(ctx, want); err != nil {
					t.Fatal(err)
				}
			}
			if log := strings.Join(router.Log(), "\n"); test.absent != "" && strings.Contains(log, test.absent) {
				t.Errorf("the log has %q:\n%s", test.absent, log)
			}
		})
	}
}

func TestSpanningTreeHidesTheFirstDiscover(t *testing.T) {
	lab.Need(t, "ip", "nsenter", "dnsmasq")
	t.Parallel()
	seg := lab.NewSegment(t)
	router := seg.HouseRouter(lab.RouterConfig{})
	pi := seg.HostBehind(wire.Faults{DropFirst: time.Second}, "pi")
	discover(t, pi)
	for there, _ := pi.Wire.Stats(); there.Blocked == 0; there, _ = pi.Wire.Stats() {
		time.Sleep(time.Millisecond)
	}
	if log := strings.Join(router.Log(), "\n"); strings.Contains(log, "DHCPDISCOVER") {
		t.Errorf("the router heard the first DISCOVER:\n%s", log)
	}
	time.Sleep(time.Second)
	discover(t, pi)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := router.WaitLog(ctx, "DHCPOFFER(eth0)"); err != nil {
		t.Error(err)
	}
}

func TestHouseRouterRefusesHalfAnAnswer(t *testing.T) {
	lab.Need(t, "ip", "nsenter", "dnsmasq")
	seg := lab.NewSegment(t)
	_, err := seg.AddRouter(lab.RouterConfig{Args: []string{"--no-such-option"}})
	if err == nil || !strings.Contains(err.Error(), "command line option") {
		t.Errorf("dnsmasq with a wrong argument: %v; want what it said", err)
	}
}

// TestNothingOutlivesTheLab kills a process with a lab in it, which is this test in another process, and looks for the
// lab's dnsmasq.
func TestNothingOutlivesTheLab(t *testing.T) {
	lab.Need(t, "ip", "nsenter", "dnsmasq")
	if os.Getenv("LAB_VICTIM") != "" {
		lab.NewSegment(t).HouseRouter(lab.RouterConfig{})
		fmt.Println("ready")
		time.Sleep(time.Minute)
		return
	}
	victim := exec.Command(os.Args[0], "-test.run=^TestNothingOutlivesTheLab$")
	victim.Env = append(os.Environ(), "LAB_VICTIM=1", "TMPDIR="+t.TempDir())
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	children := func() (found []string) {
		processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range processes {
			// A process that ends meanwhile has no command line.
			if line, _ := os.ReadFile(p); strings.HasPrefix(string(line), "dnsmasq") && strings.Contains(string(line), t.Name()) {
				found = append(found, p)
			}
		}
		return found
	}
	if len(children()) != 1 {
		t.Fatalf("the other process has dnsmasqs %v, want one", children())
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait() // killed, as it should be
	for deadline := time.Now().Add(5 * time.Second); len(children()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("dnsmasq outlives its lab: %v", children())
		}
	}
}

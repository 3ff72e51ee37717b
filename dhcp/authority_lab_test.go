package dhcp

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"bramble/lab"
	"bramble/node"
)

func authority(t *testing.T, first, last string) *Authority {
	return &Authority{
		First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last),
		Router: netip.MustParseAddr("10.77.0.254"), DNS: []netip.Addr{netip.MustParseAddr("10.77.0.253")},
		File: filepath.Join(t.TempDir(), "leases"),
	}
}

// A laptop's conversation with udhcpc: address, mask, router and DNS; the same address after a kill -9.
func TestAuthorityWithUdhcpc(t *testing.T) {
	lab.Need(t, "ip", "busybox")
	seg := lab.NewSegment(t)
	host, laptop := seg.Host("bramble", "10.77.0.2/24"), seg.Host("laptop")
	cfg := serverConfig{Interfaces: []string{"eth0"}, ProbeWait: -1, Authority: authority(t, "10.77.0.100", "10.77.0.120")}
	server := startServer(t, host.NS, cfg)

	script := filepath.Join(t.TempDir(), "script")
	const text = "#!/bin/sh\n[ $1 = bound ] && echo got $ip mask $subnet router $router dns $dns for $lease from $serverid\nexit 0\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	dora := func(args ...string) string {
		t.Helper()
		out, err := laptop.Output("busybox", append([]string{"udhcpc", "-f", "-q", "-n", "-i", "eth0", "-s", script}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		_, got, _ := strings.Cut(out, "got ")
		got, _, _ = strings.Cut(got, "\n")
		return got
	}
	first := dora()
	address, rest, _ := strings.Cut(first, " ")
	if rest != "mask 255.255.255.0 router 10.77.0.254 dns 10.77.0.253 for 43200 from 10.77.0.2" || !strings.HasPrefix(address, "10.77.0.1") {
		t.Fatalf("udhcpc got %q", first)
	}
	if got := server.kinds(node.MAC{}); got != "" {
		t.Errorf("a laptop is on the timeline: %s", got)
	}
	server.kill()
	cfg.Authority.Router = netip.Addr{}
	startServer(t, host.NS, cfg)
	if second := dora(); second != strings.Replace(first, "router 10.77.0.254", "router", 1) {
		t.Errorf("after a kill -9 udhcpc got %q; want %q without the router", second, first)
	}
	if other := dora("-r", "192.168.1.5"); other != "" && !strings.HasPrefix(other, address) {
		t.Errorf("a laptop that comes from another network got %q; want %s again", other, address)
	}
}

// The library's client goes through discover, request, renewal and release.
func TestAuthorityWithNclient4(t *testing.T) {
	lab.Need(t, "ip")
	seg := lab.NewSegment(t)
	startServer(t, seg.Host("bramble", "10.77.0.2/24").NS,
		serverConfig{Interfaces: []string{"eth0"}, ProbeWait: -1, Authority: authority(t, "10.77.0.100", "10.77.0.120")})
	host := seg.Host("laptop")
	err := host.Do(func() error {
		c, err := nclient4.New("eth0")
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		lease, err := c.Request(ctx)
		if err != nil {
			return err
		}
		again, err := c.Request(ctx)
		if err != nil {
			return err
		}
		if !again.ACK.YourIPAddr.Equal(lease.ACK.YourIPAddr) {
			t.Errorf("the second lease is %s; want %s again", again.ACK.YourIPAddr, lease.ACK.YourIPAddr)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Two boards with the one transaction id of the 3-series, at the same moment: each hears its own OFFER only, and
// gets the same address from a server that was killed and started anew, at once and without a lease file as well.
func TestAuthorityTwoBoardsAtOnce(t *testing.T) {
	lab.Need(t, "ip")
	seg := lab.NewSegment(t)
	host := seg.Host("bramble", "10.77.0.2/24")
	cfg := serverConfig{Interfaces: []string{"eth0"}, ProbeWait: -1, Authority: authority(t, "10.77.0.100", "10.77.0.199")}
	server := startServer(t, host.NS, cfg)
	wire := newClient(t, seg.Host("boards"))
	macs := []node.MAC{mustMAC("b8:27:eb:69:20:2e"), mustMAC("b8:27:eb:69:20:2f")}
	boot := func() map[node.MAC]string {
		t.Helper()
		wire.clear()
		for _, m := range macs {
			wire.broadcast(request(0x26f30339, m.String(), options3BPlus))
		}
		got := map[node.MAC]string{}
		for _, h := range wire.answers(2) {
			if h.dst != node.MAC(h.dhcp.ClientHWAddr) || h.dhcp.TFTPServerName() != "10.77.0.2" || h.to.Addr().String() != h.dhcp.YourIPAddr.String() {
				t.Errorf("an OFFER that another board could take: %v %s", h.frame, h.dhcp.Summary())
			}
			got[h.dst] += h.dhcp.YourIPAddr.String()
		}
		if len(got) != 2 || got[macs[0]] == got[macs[1]] {
			t.Fatalf("the boards got %v; want an address each", got)
		}
		return got
	}
	first := boot()
	server.timeline(t, macs[0], "boot.started dhcp.leased dhcp.offered")
	server.kill()
	server = startServer(t, host.NS, cfg)
	if got := boot(); got[macs[0]] != first[macs[0]] || got[macs[1]] != first[macs[1]] {
		t.Errorf("after a kill -9 the boards got %v; want %v", got, first)
	}
	server.kill()
	cfg.Authority.File = ""
	startServer(t, host.NS, cfg)
	if got := boot(); got[macs[0]] != first[macs[0]] || got[macs[1]] != first[macs[1]] {
		t.Errorf("without the lease file the boards got %v; want %v", got, first)
	}
}

// Machines with fixed addresses sit inside the range: they are found by ARP and left alone, until nothing is left.
func TestAuthorityConflictsAndExhaustion(t *testing.T) {
	lab.Need(t, "ip")
	seg := lab.NewSegment(t)
	seg.Host("squatter", "10.77.0.100/24", "10.77.0.101/24")
	server := startServer(t, seg.Host("bramble", "10.77.0.2/24").NS,
		serverConfig{Interfaces: []string{"eth0"}, ProbeWait: -1, Authority: authority(t, "10.77.0.100", "10.77.0.102")})
	wire := newClient(t, seg.Host("boards"))
	ask := func(mac string) string {
		t.Helper()
		wire.broadcast(request(0x26f30339, mac, options3BPlus))
		all := wire.until(3*time.Second, func(h heard) bool { return h.dhcp != nil })
		if len(all) == 0 {
			return ""
		}
		return all[0].dhcp.YourIPAddr.String()
	}
	if got := ask("b8:27:eb:69:20:2e"); got != "10.77.0.102" {
		t.Errorf("the first board got %q; want the only address that is nobody's", got)
	}
	if got := ask("b8:27:eb:69:20:2f"); got != "" {
		t.Errorf("the second board got %q; want nothing", got)
	}
	server.said(t, node.Warning, "all addresses of the range are taken", "of the 3", "give --range more addresses")
	server.said(t, node.Warning, "without a lease", "10.77.0.10")
}

func TestAuthorityRefusesForeignAddresses(t *testing.T) {
	lab.Need(t, "ip")
	seg := lab.NewSegment(t)
	startServer(t, seg.Host("bramble", "10.77.0.2/24").NS,
		serverConfig{Interfaces: []string{"eth0"}, ProbeWait: -1, Authority: authority(t, "10.77.0.100", "10.77.0.199")})
	wire := newClient(t, seg.Host("laptop"))
	wire.broadcast(request(9, "00:1b:21:3c:4d:5e", cookie+asRouter+"3204c0a80105"+end))
	all := wire.answers(1)
	if len(all) != 1 || all[0].dhcp.MessageType() != dhcpv4.MessageTypeNak || all[0].dst != broadcastMAC ||
		!strings.Contains(all[0].dhcp.Message(), "192.168.1.5") {
		t.Errorf("got %+v; want a broadcast NAK that names the address", all)
	}
}

func TestAuthorityNeedsItsNetwork(t *testing.T) {
	lab.Need(t, "ip")
	host := lab.NewSegment(t).Host("bramble", "10.77.0.2/24")
	for addrs, want := range map[[2]string]string{
		{"10.78.0.100", "10.78.0.199"}: "lies in no served interface's network. eth0 has 10.77.0.2/24",
		{"10.77.0.199", "10.77.0.100"}: "ends before it begins",
		{"10.77.0.1", "10.78.0.1"}:     "too large",
		{"::1", "::2"}:                 "not two IPv4 addresses",
	} {
		err := host.Do(func() error {
			s := newServer(t.Output())
			s.Interfaces, s.Authority = []string{"eth0"}, authority(t, addrs[0], addrs[1])
			return s.Listen()
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the range %v: Listen says %v; want %q", addrs, err, want)
		}
	}
}

package dhcp

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bramble/internal/golden"
	"bramble/lab"
	"bramble/node"
)

func mustMAC(s string) node.MAC {
	m, err := node.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

// ours are the DHCP packets that came from an address.
func ours(all []heard, from string) (own []heard) {
	for _, h := range all {
		if h.dhcp != nil && h.from.Addr().String() == from {
			own = append(own, h)
		}
	}
	return own
}

// A conversation beside a real dnsmasq: each gives its part, and ours is the golden packet.
func TestBesideHouseRouter(t *testing.T) {
	lab.Need(t, "ip", "dnsmasq")
	seg := lab.NewSegment(t)
	router := seg.HouseRouter(lab.RouterConfig{})
	server := startServer(t, seg.Host("bramble", "10.77.0.2/24").NS, serverConfig{Interfaces: []string{"eth0"}, ProbeWait: -1})
	board := newClient(t, seg.Host("board"))

	for _, test := range []struct {
		name   string
		packet []byte
	}{
		{"offer-lab-3bplus", discover3BPlus()},
		{"offer-lab-4", discoverPi4()},
		{"offer-lab-5", discoverPi5()},
	} {
		board.broadcast(test.packet)
		all := board.answers(2)
		if from := ours(all, router.Addr.Addr().String()); len(from) != 1 || from[0].dhcp.YourIPAddr.IsUnspecified() {
			t.Errorf("%s: the router said %d times an address; want 1", test.name, len(from))
		}
		own := ours(all, "10.77.0.2")
		if len(own) != 1 {
			t.Fatalf("%s: %d OFFERs; want 1", test.name, len(own))
		}
		if own[0].dst != broadcastMAC {
			t.Errorf("%s: the OFFER went to %s; want a broadcast", test.name, own[0].dst)
		}
		golden.Compare(t, test.name+".hex", lines(own[0].raw))
	}
	server.timeline(t, mustMAC("b8:27:eb:69:20:2e"), "boot.started dhcp.offered")

	// bootcode.bin asks once more, and it is the same boot
	board.broadcast(discover3BPlus())
	board.answers(2)
	server.timeline(t, mustMAC("b8:27:eb:69:20:2e"), "boot.started dhcp.offered dhcp.offered")

	// not for us
	for name, packet := range map[string][]byte{
		"laptop":  request(9, "00:1b:21:3c:4d:5e", cookie+discover+"370401031c06"+end),
		"x86 PXE": request(9, "00:1b:21:3c:4d:5f", cookie+discover+sorted55+arch0+undi+guidPC+class60+end),
	} {
		board.broadcast(packet)
		if own := ours(board.hear(300*time.Millisecond), "10.77.0.2"); len(own) != 0 {
			t.Errorf("%s was answered", name)
		}
	}
}

func TestLate3B(t *testing.T) {
	lab.Need(t, "ip")
	seg := lab.NewSegment(t)
	startServer(t, seg.Host("bramble", "10.77.0.2/24").NS, serverConfig{Interfaces: []string{"eth0"}, ProbeWait: -1})
	board := newClient(t, seg.Host("board"))
	board.broadcast(discover3B())
	frames := 0
	all := board.until(10*time.Second, func(heard) bool { frames++; return frames == 3 })
	// not earlier than this; how much later is up to the machine's load
	want := []time.Duration{firstWakeUp, lateAnswer, secondWakeUp}
	if len(all) != len(want) {
		t.Fatalf("the 3B hears %d frames; want %d", len(all), len(want))
	}
	for i, h := range all {
		if isOffer := h.dhcp != nil; isOffer != (i == 1) || h.after < want[i]-10*time.Millisecond {
			t.Errorf("frame %d is an OFFER: %v, after %v; want wake-up, OFFER, wake-up, after %v", i, isOffer, h.after, want)
		}
	}
}

// Two interfaces with the same board on both: each is answered from its own address, also after that has changed.
func TestSeveralInterfaces(t *testing.T) {
	lab.Need(t, "ip")
	seg, other := lab.NewSegment(t), lab.NewSegment(t)
	host := seg.Host("bramble", "10.77.0.2/24")
	elsewhere := other.Host("bramble", "10.88.0.2/24")
	run := func(args ...string) {
		t.Helper()
		if err := host.Run("ip", args...); err != nil {
			t.Fatal(err)
		}
	}
	if err := elsewhere.Run("ip", "link", "set", "eth0", "name", "eth1"); err != nil {
		t.Fatal(err)
	}
	if err := elsewhere.Run("ip", "link", "set", "eth1", "netns", host.Path()); err != nil {
		t.Fatal(err)
	}
	run("addr", "add", "10.88.0.2/24", "dev", "eth1")
	run("link", "set", "eth1", "up")
	startServer(t, host.NS, serverConfig{Interfaces: []string{"eth0", "eth1"}, ProbeWait: -1})
	a, b := newClient(t, seg.Host("board")), newClient(t, other.Host("board"))

	answeredFrom := func(c *client, want string) {
		t.Helper()
		c.clear()
		c.broadcast(discover3BPlus())
		all := c.answers(1)
		if len(all) != 1 || all[0].from.Addr().String() != want || all[0].dhcp.ServerIPAddr.String() != want ||
			all[0].dhcp.TFTPServerName() != want || all[0].dhcp.ServerIdentifier().String() != want {
			t.Errorf("got %d answers %+v; want one from %s that names it everywhere", len(all), all, want)
		}
	}
	answeredFrom(a, "10.77.0.2")
	answeredFrom(b, "10.88.0.2")
	run("addr", "del", "10.88.0.2/24", "dev", "eth1")
	run("addr", "add", "10.88.0.9/24", "dev", "eth1")
	answeredFrom(b, "10.88.0.9")
	answeredFrom(a, "10.77.0.2")
	run("addr", "flush", "dev", "eth1")
	b.broadcast(discover3BPlus())
	if all := b.hear(200 * time.Millisecond); len(all) != 0 {
		t.Errorf("an interface without an address answered: %+v", all)
	}
}

func TestPortTaken(t *testing.T) {
	lab.Need(t, "ip", "dnsmasq")
	seg := lab.NewSegment(t)
	router := seg.HouseRouter(lab.RouterConfig{})
	err := router.Do(func() error {
		s := newServer(t.Output())
		s.Interfaces = []string{"eth0"}
		return s.Listen()
	})
	if err == nil || !strings.Contains(err.Error(), "dnsmasq (process ") || !strings.Contains(err.Error(), "stop it") {
		t.Errorf("beside a DHCP server on the same machine Listen says %v", err)
	}
	// one that keeps to another interface, as virtual machines have it, is in nobody's way
	both := seg.Host("both", "10.77.0.3/24")
	for _, c := range [][]string{{"link", "add", "virbr0", "type", "bridge"}, {"addr", "add", "10.99.0.1/24", "dev", "virbr0"}, {"link", "set", "virbr0", "up"}} {
		if err := both.Run("ip", c...); err != nil {
			t.Fatal(err)
		}
	}
	startDnsmasq(t, both, "--interface=virbr0", "--dhcp-range=10.99.0.5,10.99.0.6")
	startServer(t, both.NS, serverConfig{Interfaces: []string{"eth0"}, ProbeWait: -1})
	// nor does a second one start beside us
	host := seg.Host("bramble", "10.77.0.2/24")
	startServer(t, host.NS, serverConfig{Interfaces: []string{"eth0"}, ProbeWait: -1})
	out, err := host.Output("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--dhcp-range=10.77.0.5,10.77.0.6")
	if err == nil || !strings.Contains(out, "in use") {
		t.Errorf("dnsmasq beside us says %q, %v; want that the port is in use", out, err)
	}
}

func TestFindingsInTheLab(t *testing.T) {
	lab.Need(t, "ip", "dnsmasq")
	second := netip.MustParsePrefix("10.77.0.7/24")
	for _, test := range []struct {
		name    string
		routers []lab.RouterConfig
		want    []string // words of one finding
		absent  string
	}{
		{"a router", []lab.RouterConfig{{}}, []string{"10.77.0.1 gives out addresses on eth0."}, "option 66"},
		{"no router", nil, []string{"Nobody gives out addresses on eth0", "--dhcp=authoritative"}, "10.77"},
		{"a router without offers", []lab.RouterConfig{{NoOffers: true}}, []string{"Nobody gives out addresses on eth0"}, "10.77"},
		{"two routers", []lab.RouterConfig{{}, {Name: "second", Addr: second}}, []string{"2 DHCP servers", "10.77.0.1", "10.77.0.7", "Switch off all but one"}, "option 66"},
		{"option 66", []lab.RouterConfig{{TFTPServer: "10.77.0.66"}}, []string{`10.77.0.1 sends boards to another TFTP server: "10.77.0.66" in option 66`, "set it to 10.77.0.2"}, "Nobody"},
		{"option 66 that names us", []lab.RouterConfig{{TFTPServer: "10.77.0.2"}}, []string{"10.77.0.1 gives out addresses on eth0."}, "another TFTP"},
		{"a second proxyDHCP server", []lab.RouterConfig{{}, {Name: "rival", Addr: second, Proxy: "Raspberry Pi Boot"}}, []string{"10.77.0.7 answers Raspberry Pis too", "Stop that server"}, "Nobody"},
		{"a boot server for PCs", []lab.RouterConfig{{}, {Name: "rival", Addr: second, Proxy: "Install Debian"}}, []string{"10.77.0.7 is a boot server for PCs"}, "Nobody"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			seg := lab.NewSegment(t)
			for _, r := range test.routers {
				seg.HouseRouter(r)
			}
			server := startServer(t, seg.Host("bramble", "10.77.0.2/24").NS, serverConfig{Interfaces: []string{"eth0"}, ProbeWait: 1500 * time.Millisecond})
			server.said(t, node.Finding, test.want...)
			for _, e := range server.all() {
				if strings.Contains(e.Text, test.absent) {
					t.Errorf("the timeline also has %q", e.Text)
				}
			}
			if got := server.kinds(mustMAC("b8:27:eb:69:20:2e")); got != "" {
				t.Errorf("the probe looks like a board: %s", got)
			}
		})
	}
}

// The cable to the router is plugged in later: the timeline says what was wrong, and then that it is right.
func TestRouterComesLater(t *testing.T) {
	lab.Need(t, "ip", "dnsmasq")
	seg := lab.NewSegment(t)
	host := seg.Host("bramble", "10.77.0.2/24")
	if err := host.Run("ip", "link", "set", "eth0", "down"); err != nil {
		t.Fatal(err)
	}
	server := startServer(t, host.NS, serverConfig{Interfaces: []string{"eth0"}, ProbeWait: time.Second, ProbeAgain: time.Second})
	server.said(t, node.Finding, "It is not known who serves DHCP on eth0", "network is down")
	if err := host.Run("ip", "link", "set", "eth0", "up"); err != nil {
		t.Fatal(err)
	}
	server.said(t, node.Finding, "Nobody gives out addresses on eth0")
	seg.HouseRouter(lab.RouterConfig{})
	server.said(t, node.Finding, "10.77.0.1 gives out addresses on eth0.")
	if got := server.kinds(node.MAC{}); got != "segment.finding segment.finding segment.finding" {
		t.Errorf("the timeline has %q; want each finding once", got)
	}
}

// dnsmasq as it comes pings an address for three seconds before it offers it.
func TestProbeWaitsForAPing(t *testing.T) {
	lab.Need(t, "ip", "dnsmasq")
	seg := lab.NewSegment(t)
	startDnsmasq(t, seg.Host("router", "10.77.0.1/24"), "--interface=eth0", "--dhcp-range=10.77.0.100,10.77.0.199,1h")
	server := startServer(t, seg.Host("bramble", "10.77.0.2/24").NS, serverConfig{Interfaces: []string{"eth0"}})
	server.said(t, node.Finding, "10.77.0.1 gives out addresses on eth0.")
}

// A switch with the old spanning tree protocol: the Linux bridge, with its default forward delay.
func TestSpanningTree(t *testing.T) {
	lab.Need(t, "ip")
	seg := lab.NewSegment(t)
	host := seg.Host("bramble", "10.77.0.2/24")
	if err := seg.Run("ip", "link", "set", "dev", "bridge", "type", "bridge", "stp_state", "1", "forward_delay", "1500"); err != nil {
		t.Fatal(err)
	}
	server := startServer(t, host.NS, serverConfig{Interfaces: []string{"eth0"}, ProbeWait: 3 * time.Second})
	server.said(t, node.Finding, "keeps a port shut for 30 s", "PortFast")
}

// An interface that goes away and comes back, as a USB adapter's does, is served again.
func TestInterfaceComesBack(t *testing.T) {
	lab.Need(t, "ip")
	host := lab.NewSegment(t).Host("bramble")
	plug := func() *client {
		t.Helper()
		far := lab.NewSegment(t).Host("board") // for its namespace: its own eth0 makes room
		for _, c := range [][]string{
			{"link", "del", "eth0"},
			{"link", "add", "eth0", "type", "veth", "peer", "name", "usb0", "netns", host.Path()},
			{"link", "set", "eth0", "up"},
		} {
			if err := far.Run("ip", c...); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range [][]string{{"addr", "add", "10.77.0.2/24", "dev", "usb0"}, {"link", "set", "usb0", "up"}} {
			if err := host.Run("ip", c...); err != nil {
				t.Fatal(err)
			}
		}
		return newClient(t, far)
	}
	first := plug()
	startServer(t, host.NS, serverConfig{Interfaces: []string{"usb0"}, ProbeWait: -1})
	answered := func(c *client) bool {
		c.broadcast(discover3BPlus())
		return len(c.until(200*time.Millisecond, func(heard) bool { return true })) > 0
	}
	if !answered(first) {
		t.Fatal("no answer before the interface went away")
	}
	if err := host.Run("ip", "link", "del", "usb0"); err != nil {
		t.Fatal(err)
	}
	second := plug()
	eventually(t, 20*time.Second, func() bool { return answered(second) }, func() string { return "no answer after the interface came back" })
}

// Two appliances on one segment find each other.
func TestSecondAppliance(t *testing.T) {
	lab.Need(t, "ip")
	seg := lab.NewSegment(t)
	startServer(t, seg.Host("first", "10.77.0.3/24").NS, serverConfig{Interfaces: []string{"eth0"}, ProbeWait: -1})
	second := startServer(t, seg.Host("second", "10.77.0.2/24").NS, serverConfig{Interfaces: []string{"eth0"}, ProbeWait: time.Second})
	second.said(t, node.Finding, "10.77.0.3 answers Raspberry Pis too")
}

// A board that asks again although it was answered makes the server look at the segment once more.
func TestUnansweredBoard(t *testing.T) {
	lab.Need(t, "ip", "dnsmasq")
	seg := lab.NewSegment(t)
	seg.HouseRouter(lab.RouterConfig{})
	server := startServer(t, seg.Host("bramble", "10.77.0.2/24").NS, serverConfig{Interfaces: []string{"eth0"}, ProbeWait: time.Second, ProbeAgain: time.Second})
	server.said(t, node.Finding, "10.77.0.1 gives out addresses")
	time.Sleep(time.Second) // the segment is left alone that long
	board := newClient(t, seg.Host("board"))
	for range 2 {
		board.broadcast(discover3BPlus())
		board.answers(2)
	}
	server.said(t, node.Finding, "b8:27:eb:69:20:2e asks again although it was answered", "cable")
}

// The lab's own check: what the client sends is what the router takes for a boot ROM, so it answers by unicast.
func TestRouterAnswersByUnicast(t *testing.T) {
	lab.Need(t, "ip", "dnsmasq")
	seg := lab.NewSegment(t)
	seg.HouseRouter(lab.RouterConfig{})
	board := newClient(t, seg.Host("board"))
	board.broadcast(discover3BPlus())
	all := board.answers(1)
	if len(all) != 1 || all[0].dhcp.MessageType() != dhcpv4.MessageTypeOffer || all[0].dst != mustMAC("b8:27:eb:69:20:2e") {
		t.Errorf("got %+v; want one OFFER to the board alone", all)
	}
}

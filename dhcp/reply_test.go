package dhcp

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bramble/boot"
	"bramble/internal/golden"
)

var (
	self  = netip.MustParseAddr("10.0.0.2")
	serve = boot.Plan{Serve: true, Reason: "pi-4c69202e boots test: it is the default for boards without a rule."}
)

func query(t testing.TB, packet []byte) Query {
	t.Helper()
	q, err := Parse(packet)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestReplyGolden(t *testing.T) {
	request4 := request(0x6b0b6d0f, "dc:a6:32:2e:f8:ed", cookie+asRouter+"36040a000002"+guidPi4+end)
	relayed := discover3BPlus()
	copy(relayed[24:], []byte{10, 0, 1, 1})
	for _, test := range []struct {
		name   string
		packet []byte
		delay  time.Duration
		wake   int
	}{
		{"offer-3b", discover3B(), time.Second, 2},
		{"offer-3bplus", discover3BPlus(), 0, 0},
		{"offer-3bplus-relayed", relayed, 0, 0},
		{"offer-4", discoverPi4(), 0, 0},
		{"offer-5", discoverPi5(), 0, 0},
		{"ack-4", request4, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := query(t, test.packet)
			a, err := Reply(q, serve, self)
			if err != nil {
				t.Fatal(err)
			}
			if a.Delay != test.delay || len(a.WakeUps) != test.wake {
				t.Errorf("delay %v and %d wake-ups; want %v and %d", a.Delay, len(a.WakeUps), test.delay, test.wake)
			}
			checkAnswer(t, q, a)
			golden.Compare(t, test.name+".hex", lines(a.Packet))
		})
	}
}

// checkAnswer states section 7.1 of pi-netboot.md independently of how Reply builds it.
func checkAnswer(t *testing.T, q Query, a Answer) {
	t.Helper()
	m, err := dhcpv4.FromBytes(a.Packet)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Packet) < 300 || !m.IsBroadcast() || m.TransactionID != q.XID || !m.YourIPAddr.IsUnspecified() ||
		!m.ServerIPAddr.Equal(ip(self)) || !m.ServerIdentifier().Equal(ip(self)) || m.TFTPServerName() != self.String() ||
		m.ClassIdentifier() != "PXEClient" || !bytes.Equal(m.ClientHWAddr, q.MAC[:]) {
		t.Errorf("a wrong answer: %s", m.Summary())
	}
	if guid := m.Options.Get(dhcpv4.OptionClientMachineIdentifier); !bytes.Equal(guid, q.GUID) {
		t.Errorf("option 97 is %x; want %x", guid, q.GUID)
	}
}

// The vector "three spaces" of pi-netboot.md section 6; the reference's lines stand for tag, length and content.
func TestOption43(t *testing.T) {
	want := unhex("0601030a0400505845091700001452617370626572727920506920426f6f74202020ff")
	if !bytes.Equal(option43, want) {
		t.Errorf("option 43 is %x; want %x", option43, want)
	}
	a, err := Reply(query(t, discover3B()), serve, self)
	if err != nil {
		t.Fatal(err)
	}
	if want := unhex("2b230601030a0400505845091700001452617370626572727920506920426f6f74202020ff"); !bytes.Contains(a.Packet, want) {
		t.Errorf("the OFFER lacks %x", want)
	}
}

func TestReplyIsSilent(t *testing.T) {
	pi4 := func(options string) []byte {
		return request(7, "dc:a6:32:2e:f8:ed", cookie+options+guidPi4+class60+end)
	}
	for _, test := range []struct {
		name   string
		packet []byte
		plan   boot.Plan
		self   netip.Addr
		want   string
	}{
		{"laptop", request(7, "00:1b:21:3c:4d:5e", cookie+discover+end), serve, self, "option 60"},
		{"refused", discover3BPlus(), boot.Plan{Reason: "No image is chosen."}, self, "No image is chosen."},
		{"no address", discover3BPlus(), serve, netip.Addr{}, "no IPv4 address"},
		{"IPv6 address", discover3BPlus(), serve, netip.MustParseAddr("fe80::1"), "no IPv4 address"},
		{"REQUEST for the router", pi4(asRouter + "36040a000001"), serve, self, "10.0.0.1 offered"},
		{"REQUEST for nobody", pi4(asRouter), serve, self, "no answer to a REQUEST"},
		{"RELEASE", pi4("350107"), serve, self, "no answer to a RELEASE"},
		{"REQUEST of a 3-series board", request(0x26f30339, "b8:27:eb:69:20:2e", cookie+asRouter+"36040a000002"+guidSerial+class60+end), serve, self, "takes the address"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, err := Reply(query(t, test.packet), test.plan, test.self)
			if err == nil || !strings.Contains(err.Error(), test.want) || a.Packet != nil {
				t.Errorf("got %x, %v; want silence because of %q", a.Packet, err, test.want)
			}
		})
	}
}

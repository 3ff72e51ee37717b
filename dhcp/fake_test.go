package dhcp

import (
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bramble/node"
)

// fakeWire keeps what the server sends.
type fakeWire struct {
	net netip.Prefix
	err error // of address

	mu   sync.Mutex
	sent []sent
}

type sent struct {
	mac  node.MAC // zero: sent by UDP
	to   netip.AddrPort
	dhcp *dhcpv4.DHCPv4
}

func (f *fakeWire) ifname() string                 { return "eth0" }
func (f *fakeWire) address() (netip.Prefix, error) { return f.net, f.err }

func (f *fakeWire) send(b []byte, _ netip.Addr, to netip.AddrPort) error {
	f.keep(node.MAC{}, b, to)
	return nil
}

func (f *fakeWire) sendTo(mac node.MAC, b []byte, _, to netip.Addr) error {
	f.keep(mac, b, netip.AddrPortFrom(to, clientPort))
	return nil
}

func (f *fakeWire) keep(mac node.MAC, b []byte, to netip.AddrPort) {
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		m = nil // a wake-up
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent = append(f.sent, sent{mac, to, m})
}

// take returns what was sent since the last call.
func (f *fakeWire) take() []sent {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sent
	f.sent = nil
	return s
}

// world is an authoritative server with a fake wire, a clock that stands still and a segment where nobody else is.
type world struct {
	*Server
	t    testing.TB
	wire *fakeWire
	time time.Time
}

func newWorld(t testing.TB, first, last string) *world {
	t.Helper()
	w := &world{
		Server: newServer(t.Output()), t: t, time: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC),
		wire: &fakeWire{net: netip.MustParsePrefix("10.0.0.2/24")},
	}
	w.suspects = make(chan suspicion, 1)
	w.Now = func() time.Time { return w.time }
	w.Authority = &Authority{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last), LeaseTime: time.Hour}
	w.Authority.used = func(string, netip.Addr) (node.MAC, bool) { return node.MAC{}, false }
	table, err := newTable(w.Authority.First, w.Authority.Last)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Authority.load(table, w.time); err != nil {
		t.Fatal(err)
	}
	return w
}

// says hands a client's packet to the server and waits for what it sends.
func (w *world) says(packet []byte) []sent {
	w.t.Helper()
	w.handle(w.wire, packet)
	for w.checking() {
		runtime.Gosched()
	}
	return w.wire.take()
}

func (w *world) checking() bool {
	w.Authority.mu.Lock()
	defer w.Authority.mu.Unlock()
	return len(w.Authority.busy) > 0
}

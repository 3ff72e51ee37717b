package neigh

import (
	"net/netip"
	"strings"
	"testing"

	"bramble/node"
)

const table = `IP address       HW type     Flags       HW address            Mask     Device
10.0.0.50        0x1         0x2         b8:27:eb:69:20:2e     *        eth0
10.0.0.51        0x1         0x0         00:00:00:00:00:00     *        eth0
10.0.0.5         0x1         0x2         b8:27:eb:00:00:05     *        eth0
`

func TestParse(t *testing.T) {
	for addr, want := range map[string]string{
		"10.0.0.50": "b8:27:eb:69:20:2e", "10.0.0.5": "b8:27:eb:00:00:05", "10.0.0.51": "", "10.0.0.99": "",
	} {
		mac, ok := parse(strings.NewReader(table))[netip.MustParseAddr(addr)]
		if ok != (want != "") || ok && mac.String() != want {
			t.Errorf("%s = %v, %v; want %q", addr, mac, ok, want)
		}
	}
}

// The kernel is asked at most once in a while, whoever asks.
func TestLookup(t *testing.T) {
	var table Table
	nobody := netip.MustParseAddr("203.0.113.9")
	if mac, ok := table.Lookup(nobody); ok {
		t.Errorf("nobody has the address %v", mac)
	}
	first := table.read
	table.macs[nobody] = node.MAC{1}
	if mac, ok := table.Lookup(netip.MustParseAddr("::ffff:203.0.113.9")); !ok || mac != (node.MAC{1}) || table.read != first {
		t.Errorf("a fresh answer was %v, %v, read again %v", mac, ok, table.read != first)
	}
	table.read = first.Add(-2 * fresh)
	if _, ok := table.Lookup(nobody); ok || !table.read.After(first) {
		t.Error("an old answer was given without a look")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(table)
	f.Fuzz(func(t *testing.T, text string) { parse(strings.NewReader(text)) })
}

package neigh

import (
	"net/netip"
	"strings"
	"testing"
)

const table = `IP address       HW type     Flags       HW address            Mask     Device
10.0.0.50        0x1         0x2         b8:27:eb:69:20:2e     *        eth0
10.0.0.51        0x1         0x0         00:00:00:00:00:00     *        eth0
10.0.0.5         0x1         0x2         b8:27:eb:00:00:05     *        eth0
`

func TestFind(t *testing.T) {
	for addr, want := range map[string]string{
		"10.0.0.50": "b8:27:eb:69:20:2e", "10.0.0.5": "b8:27:eb:00:00:05", "10.0.0.51": "", "10.0.0.99": "",
	} {
		mac, ok := find(strings.NewReader(table), netip.MustParseAddr(addr))
		if ok != (want != "") || ok && mac.String() != want {
			t.Errorf("find(%s) = %v, %v; want %q", addr, mac, ok, want)
		}
	}
}

func FuzzFind(f *testing.F) {
	f.Add(table)
	f.Fuzz(func(t *testing.T, text string) { find(strings.NewReader(text), netip.MustParseAddr("10.0.0.50")) })
}

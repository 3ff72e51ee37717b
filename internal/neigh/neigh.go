// Package neigh asks the kernel's neighbour table which MAC address an IPv4 address has. A proxyDHCP server never
// sees which address a board took (pi-netboot.md 1.3), but the kernel resolved it to answer the board's RRQ.
package neigh

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"bramble/node"
)

// Table is the neighbour table as it was a moment ago. The zero value is ready; it is safe for concurrent use.
// A storm of boards asks thousands of times a second, and reading the kernel's whole table each time would cost more
// than all else.
type Table struct {
	mu   sync.Mutex
	read time.Time
	macs map[netip.Addr]node.MAC
}

const (
	fresh = time.Second           // how old an answer may be
	again = 20 * time.Millisecond // when to look again for an address that was not there
)

// Lookup finds the MAC address of an IPv4 address on the segment; ok is false when the kernel has no answer.
func (t *Table) Lookup(addr netip.Addr) (mac node.MAC, ok bool) {
	addr = addr.Unmap()
	t.mu.Lock()
	defer t.mu.Unlock()
	mac, ok = t.macs[addr]
	if age := time.Since(t.read); ok && age < fresh || !ok && age < again {
		return mac, ok
	}
	t.read = time.Now()
	if f, err := os.Open("/proc/net/arp"); err == nil {
		t.macs = parse(f)
		f.Close()
	}
	mac, ok = t.macs[addr]
	return mac, ok
}

// parse reads the table of proc_net_arp: IP address, HW type, Flags, HW address, Mask, Device.
func parse(table io.Reader) map[netip.Addr]node.MAC {
	const addr, flags, hw = 0, 2, 3
	macs := map[netip.Addr]node.MAC{}
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 6 || f[flags] == "0x0" {
			continue
		}
		a, err1 := netip.ParseAddr(f[addr])
		m, err2 := node.ParseMAC(f[hw])
		if err1 == nil && err2 == nil && !m.IsZero() {
			macs[a] = m
		}
	}
	return macs
}

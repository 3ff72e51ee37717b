// Package neigh asks the kernel's neighbour table which MAC address an IPv4 address has. A proxyDHCP server never
// sees which address a board took (pi-netboot.md 1.3), but the kernel resolved it to answer the board's RRQ.
package neigh

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"strings"

	"bramble/node"
)

// Lookup finds the MAC address of an IPv4 address on the segment; ok is false when the kernel has no answer.
func Lookup(addr netip.Addr) (mac node.MAC, ok bool) {
	f, err := os.Open("/proc/net/arp")
	if err != nil {
		return mac, false
	}
	defer f.Close()
	return find(f, addr.Unmap())
}

// find reads the table of proc_net_arp: IP address, HW type, Flags, HW address, Mask, Device.
func find(table io.Reader, addr netip.Addr) (mac node.MAC, ok bool) {
	const flags, hw = 2, 3
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 6 || f[0] != addr.String() || f[flags] == "0x0" {
			continue
		}
		if m, err := node.ParseMAC(f[hw]); err == nil && !m.IsZero() {
			return m, true
		}
	}
	return mac, false
}

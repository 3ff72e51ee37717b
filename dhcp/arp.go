package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"bramble/node"
)

const (
	arpRequest = 1
	arpLen     = 28
	arpTries   = 2
	arpWait    = 250 * time.Millisecond // for each try; machines on a switch answer within a few
)

// used asks a segment whether somebody has an address, as RFC 5227 probes. If it cannot ask, the answer is no:
// clients check an address themselves before they take it.
func used(ifname string, a netip.Addr) (node.MAC, bool) {
	c, ifi, err := tap(ifname, unix.ETH_P_ARP, nil)
	if err != nil || len(ifi.HardwareAddr) != len(node.MAC{}) {
		return node.MAC{}, false
	}
	defer c.Close()
	probe := arpProbe(node.MAC(ifi.HardwareAddr), a)
	b := make([]byte, 128)
	for range arpTries {
		if _, err := c.WriteTo(probe, &packet.Addr{HardwareAddr: net.HardwareAddr(probe[:6])}); err != nil {
			return node.MAC{}, false
		}
		if c.SetReadDeadline(time.Now().Add(arpWait)) != nil {
			return node.MAC{}, false
		}
		for {
			n, _, err := c.ReadFrom(b)
			if err != nil {
				break
			}
			if mac, ok := arpSender(b[:n], a); ok {
				return mac, true
			}
		}
	}
	return node.MAC{}, false
}

// arpProbe asks for a without claiming an address (RFC 5227 section 1.1).
func arpProbe(self node.MAC, a netip.Addr) []byte {
	b := append(append(broadcastMAC[:len(broadcastMAC):len(broadcastMAC)], self[:]...), unix.ETH_P_ARP>>8, unix.ETH_P_ARP&0xff)
	b = append(b, 0, 1, unix.ETH_P_IP>>8, unix.ETH_P_IP&0xff, 6, 4, 0, arpRequest)
	b = append(append(b, self[:]...), 0, 0, 0, 0)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, ip(a)...)
}

// arpSender is the machine that says, in a request or a reply, that a is its address.
func arpSender(b []byte, a netip.Addr) (node.MAC, bool) {
	if len(b) < etherLen+arpLen || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_ARP {
		return node.MAC{}, false
	}
	h := b[etherLen:]
	if h[4] != 6 || h[5] != 4 || netip.AddrFrom4([4]byte(h[14:18])) != a {
		return node.MAC{}, false
	}
	return node.MAC(h[8:14]), true
}

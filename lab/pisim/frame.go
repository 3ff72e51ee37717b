package pisim

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// MAC is an Ethernet address.
type MAC [6]byte

// broadcast is the address of everybody on the segment.
var broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// String gives the usual form with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText is String, for JSON.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// ParseMAC reads an Ethernet address of six bytes.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, fmt.Errorf("%q is no Ethernet address: write it like b8:27:eb:07:bc:c6", s)
	}
	return MAC(hw), nil
}

const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806

	etherLen  = 14
	ipv4Len   = 20
	udpLen    = 8
	arpLen    = 28
	shortest  = 60 // of a frame without its checksum; shorter ones are padded by the sender
	bootTTL   = 128
	protoUDP  = 17
	moreFrags = 0x3fff // more-fragments flag and fragment offset

	arpRequest = 1
	arpReply   = 2
)

// frame is what the firmware looks at in an Ethernet frame. payload aliases the bytes that were parsed.
type frame struct {
	dst, src MAC
	kind     uint16 // etherIPv4 (then it is UDP) or etherARP
	arp      arp
	from, to netip.AddrPort
	payload  []byte
}

type arp struct {
	op                 uint16
	sender, target     MAC
	senderIP, targetIP netip.Addr
}

// parseFrame reads a frame; ok is false for all that is neither ARP for Ethernet and IPv4 nor a whole UDP datagram.
// Checksums are not looked at: the kernel leaves them unfinished between virtual interfaces.
func parseFrame(b []byte) (f frame, ok bool) {
	if len(b) < etherLen {
		return f, false
	}
	f.dst, f.src, f.kind = MAC(b[0:6]), MAC(b[6:12]), binary.BigEndian.Uint16(b[12:14])
	switch b = b[etherLen:]; f.kind {
	case etherARP:
		return f, f.parseARP(b)
	case etherIPv4:
		return f, f.parseUDP(b)
	}
	return f, false
}

func (f *frame) parseARP(b []byte) bool {
	if len(b) < arpLen || string(b[:6]) != "\x00\x01\x08\x00\x06\x04" {
		return false
	}
	f.arp = arp{
		op:     binary.BigEndian.Uint16(b[6:8]),
		sender: MAC(b[8:14]), senderIP: netip.AddrFrom4([4]byte(b[14:18])),
		target: MAC(b[18:24]), targetIP: netip.AddrFrom4([4]byte(b[24:28])),
	}
	return true
}

func (f *frame) parseUDP(b []byte) bool {
	if len(b) < ipv4Len || b[0]>>4 != 4 {
		return false
	}
	head, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:4]))
	if head < ipv4Len || total < head+udpLen || total > len(b) || b[9] != protoUDP ||
		binary.BigEndian.Uint16(b[6:8])&moreFrags != 0 {
		return false
	}
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	u := b[head:total]
	length := int(binary.BigEndian.Uint16(u[4:6]))
	if length < udpLen || length > len(u) {
		return false
	}
	f.from = netip.AddrPortFrom(src, binary.BigEndian.Uint16(u[0:2]))
	f.to = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(u[2:4]))
	f.payload = u[udpLen:length]
	return true
}

// udpFrame builds a UDP datagram as the firmware does: IP id 0, TTL 128, no UDP checksum (§1.1).
func udpFrame(dst, src MAC, from, to netip.AddrPort, payload []byte) []byte {
	size := etherLen + ipv4Len + udpLen + len(payload)
	b := make([]byte, max(size, shortest))
	etherHead(b, dst, src, etherIPv4)
	ip := b[etherLen:]
	ip[0], ip[8], ip[9] = 0x45, bootTTL, protoUDP
	binary.BigEndian.PutUint16(ip[2:], uint16(size-etherLen))
	srcIP, dstIP := from.Addr().As4(), to.Addr().As4()
	copy(ip[12:], srcIP[:])
	copy(ip[16:], dstIP[:])
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:ipv4Len]))
	udp := ip[ipv4Len:]
	binary.BigEndian.PutUint16(udp[0:], from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(udpLen+len(payload)))
	copy(udp[udpLen:], payload)
	return b
}

func arpFrame(dst MAC, a arp) []byte {
	b := make([]byte, shortest)
	etherHead(b, dst, a.sender, etherARP)
	p := b[etherLen:]
	copy(p, "\x00\x01\x08\x00\x06\x04")
	binary.BigEndian.PutUint16(p[6:], a.op)
	senderIP, targetIP := a.senderIP.As4(), a.targetIP.As4()
	copy(p[8:], a.sender[:])
	copy(p[14:], senderIP[:])
	copy(p[18:], a.target[:])
	copy(p[24:], targetIP[:])
	return b
}

func etherHead(b []byte, dst, src MAC, kind uint16) {
	copy(b, dst[:])
	copy(b[6:], src[:])
	binary.BigEndian.PutUint16(b[12:], kind)
}

// checksum is the Internet checksum of an IP header (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"bramble/node"
)

var broadcastMAC = node.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// frame is an ethernet frame with a UDP datagram.
type frame struct {
	src, dst node.MAC
	from, to netip.AddrPort
}

const (
	etherLen = 14
	ipLen    = 20
	udpLen   = 8
)

// bytes is the whole frame. UDP over IPv4 may leave its checksum out, as the boot ROM does.
func (f frame) bytes(payload []byte) []byte {
	b := make([]byte, etherLen+ipLen+udpLen, etherLen+ipLen+udpLen+len(payload))
	copy(b, f.dst[:])
	copy(b[6:], f.src[:])
	be := binary.BigEndian
	be.PutUint16(b[12:], unix.ETH_P_IP)

	h := b[etherLen : etherLen+ipLen]
	h[0] = 0x45
	be.PutUint16(h[2:], uint16(ipLen+udpLen+len(payload)))
	h[8], h[9] = 64, unix.IPPROTO_UDP
	copy(h[12:], ip(f.from.Addr()))
	copy(h[16:], ip(f.to.Addr()))
	be.PutUint16(h[10:], checksum(h))

	u := b[etherLen+ipLen:]
	be.PutUint16(u, f.from.Port())
	be.PutUint16(u[2:], f.to.Port())
	be.PutUint16(u[4:], uint16(udpLen+len(payload)))
	return append(b, payload...)
}

// checksum is the internet checksum of an even number of bytes (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

var errNotUDP = errors.New("not a UDP datagram over IPv4")

// parseFrame takes a received frame apart. Fragments are refused: no DHCP message needs them.
func parseFrame(b []byte) (frame, []byte, error) {
	be := binary.BigEndian
	if len(b) < etherLen+ipLen+udpLen || be.Uint16(b[12:]) != unix.ETH_P_IP {
		return frame{}, nil, errNotUDP
	}
	h := b[etherLen:]
	hlen, total := int(h[0]&15)*4, int(be.Uint16(h[2:]))
	if h[0]>>4 != 4 || hlen < ipLen || total < hlen+udpLen || total > len(h) ||
		h[9] != unix.IPPROTO_UDP || be.Uint16(h[6:])&0x3fff != 0 {
		return frame{}, nil, errNotUDP
	}
	u := h[hlen:total]
	size := int(be.Uint16(u[4:]))
	if size < udpLen || size > len(u) {
		return frame{}, nil, errNotUDP
	}
	return frame{
		dst: node.MAC(b[:6]), src: node.MAC(b[6:12]),
		from: netip.AddrPortFrom(netip.AddrFrom4([4]byte(h[12:16])), be.Uint16(u)),
		to:   netip.AddrPortFrom(netip.AddrFrom4([4]byte(h[16:20])), be.Uint16(u[2:])),
	}, u[udpLen:size], nil
}

// tap opens a packet socket that receives frames of one ethernet protocol; of none if protocol is 0.
func tap(name string, protocol int, cfg *packet.Config) (*packet.Conn, *net.Interface, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, nil, fmt.Errorf("there is no network interface %s: %w", name, err)
	}
	c, err := packet.Listen(ifi, packet.Raw, protocol, cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open a packet socket on %s; it needs root or CAP_NET_RAW: %w", name, err)
	}
	return c, ifi, nil
}

// send sends the datagram through a packet socket.
func (f frame) send(c *packet.Conn, payload []byte) error {
	if _, err := c.WriteTo(f.bytes(payload), &packet.Addr{HardwareAddr: f.dst[:]}); err != nil {
		return fmt.Errorf("cannot send a frame to %s: %w", f.dst, err)
	}
	return nil
}

package dhcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bramble/boot"
)

// Answer is what goes back to a client, and when.
type Answer struct {
	Packet  []byte          // the DHCP message, without UDP header
	Delay   time.Duration   // counted from the client's packet
	WakeUps []time.Duration // when to send the client any other frame, counted likewise
}

// Reply is the answer of a proxyDHCP server to a netboot client: no address, but where to find TFTP, which is always
// the address that answers. The error is the sentence why there is none.
func Reply(q Query, p boot.Plan, self netip.Addr) (Answer, error) {
	if err := q.IsNetboot(); err != nil {
		return Answer{}, err
	}
	if !p.Serve {
		return Answer{}, errors.New(p.Reason)
	}
	typ, err := q.proxied(self)
	if err != nil {
		return Answer{}, err
	}
	if !self.Is4() {
		return Answer{}, errors.New("the interface has no IPv4 address to answer from")
	}
	m := message(q, typ, self)
	m.Flags |= broadcastFlag
	pxe(m, q, self)
	return q.timed(m), nil
}

// proxied is the type of a proxyDHCP server's answer: OFFERs for all, and an ACK for the EEPROM that takes ours.
func (q *Query) proxied(self netip.Addr) (dhcpv4.MessageType, error) {
	switch {
	case q.Type == dhcpv4.MessageTypeDiscover:
		return dhcpv4.MessageTypeOffer, nil
	case q.Type != dhcpv4.MessageTypeRequest || !q.ServerID.IsValid():
		return 0, fmt.Errorf("a proxyDHCP server has no answer to a %s", q.Type)
	case q.ServerID != self || q.Stage != "eeprom":
		return 0, fmt.Errorf("the board takes the address that %s offered", q.ServerID)
	}
	return dhcpv4.MessageTypeAck, nil
}

// timed packs a message and adds the delays that the client's firmware needs.
func (q *Query) timed(m *dhcpv4.DHCPv4) Answer {
	a := Answer{Packet: m.ToBytes()}
	if q.deaf() {
		a.Delay, a.WakeUps = lateAnswer, []time.Duration{firstWakeUp, secondWakeUp}
	}
	return a
}

// probed tells another appliance's probe that this one answers Raspberry Pis.
func probed(q Query, self netip.Addr) []byte {
	m := message(q, dhcpv4.MessageTypeOffer, self)
	pxe(m, q, self)
	return m.ToBytes()
}

// message is what all answers have in common (RFC 2131 table 3).
func message(q Query, typ dhcpv4.MessageType, self netip.Addr) *dhcpv4.DHCPv4 {
	const bootReply, ethernet = 2, 1
	m := &dhcpv4.DHCPv4{
		OpCode: bootReply, HWType: ethernet, HopCount: 0, TransactionID: q.XID, Flags: q.Flags,
		ClientHWAddr: net.HardwareAddr(q.MAC[:]), GatewayIPAddr: ip(q.Relay), Options: dhcpv4.Options{},
	}
	m.UpdateOption(dhcpv4.OptMessageType(typ))
	m.UpdateOption(dhcpv4.OptServerIdentifier(ip(self)))
	return m
}

// pxe adds what a Pi needs to find its TFTP server: a 3-series board reads 43 or 66, a 4 or 5 also 60 and siaddr,
// and all must say the same (pi-netboot.md 1.4, 1.7).
func pxe(m *dhcpv4.DHCPv4, q Query, self netip.Addr) {
	m.ServerIPAddr = ip(self)
	m.UpdateOption(dhcpv4.OptClassIdentifier("PXEClient"))
	m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, option43))
	m.UpdateOption(dhcpv4.OptTFTPServerName(self.String()))
	if len(q.GUID) > 0 {
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, q.GUID))
	}
}

// ip is the four-byte form that dhcpv4 writes; an invalid or IPv6 address becomes zeros.
func ip(a netip.Addr) net.IP {
	if !a.Is4() {
		return net.IPv4zero.To4()
	}
	b := a.As4()
	return b[:]
}

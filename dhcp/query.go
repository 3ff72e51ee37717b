// Package dhcp answers the boot ROMs and EEPROM bootloaders of Raspberry Pis, beside a router that gives out the
// addresses (proxyDHCP, the default) or as the only DHCP server of a segment (Authority).
//
// Parse and Reply are pure: bytes to a value, a value to bytes. Server owns the sockets. Probe asks a segment who
// else serves there, and Segment.Findings says in sentences what is wrong.
package dhcp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bramble/node"
)

// Query is one packet of a client, parsed once.
type Query struct {
	Type      dhcpv4.MessageType
	XID       dhcpv4.TransactionID
	MAC       node.MAC
	Serial    node.Serial // from option 97; zero when the firmware does not tell it
	Model     node.Model  // ModelUnknown when this is no netboot client
	Stage     string      // "rom" or "eeprom" when the packet proves it; a 3B+ ROM and bootcode.bin look the same
	Arch      uint16      // option 93: a Pi says 0, x86 BIOS; noArch when absent
	Class     string      // option 60
	GUID      []byte      // option 97 as sent, to be echoed
	Flags     uint16
	Hops      byte
	Client    netip.Addr // ciaddr; invalid when zero
	Relay     netip.Addr // giaddr; invalid when zero
	Requested netip.Addr // option 50
	ServerID  netip.Addr // option 54
	Probe     bool       // another appliance's Probe

	why error // why this is no netboot client; nil when it is one
}

// noArch is Query.Arch of a client that sends no option 93.
const noArch = 0xffff

// broadcastFlag asks for a broadcast reply (RFC 2131 section 2).
const broadcastFlag = 0x8000

// Reasons why a packet is not looked at further. They are values, so that strangers cost no memory.
var (
	errShort    = errors.New("the packet is shorter than a DHCP message")
	errNotBOOTP = errors.New("this is not a DHCP request from an ethernet client")
	errNoCookie = errors.New("the packet is BOOTP without DHCP's magic cookie")
	errNoMAC    = errors.New("the client sent no usable MAC address")
	errNoType   = errors.New("the packet has no DHCP message type")
	errNotPXE   = errors.New("the client does not say PXEClient:Arch:00000:UNDI:002001 in option 60, as boot ROMs of Raspberry Pis do")
	errNotPi    = errors.New("a PXE client, but neither its transaction id nor option 97 is a Raspberry Pi's")
)

const (
	headLen   = 236 // BOOTP up to the magic cookie
	cookieLen = 4
)

var magicCookie = [cookieLen]byte{99, 130, 83, 99}

// checkHead refuses what cannot be a DHCP request, without allocating.
func checkHead(b []byte) error {
	if len(b) < headLen+cookieLen {
		return errShort
	}
	const request, ethernet = 1, 1
	if b[0] != request || b[1] != ethernet || b[2] != 6 {
		return errNotBOOTP
	}
	if [cookieLen]byte(b[headLen:]) != magicCookie {
		return errNoCookie
	}
	mac := node.MAC(b[28:34])
	if mac.IsZero() || mac[0]&1 != 0 {
		return errNoMAC
	}
	return nil
}

// Foreign says why a packet is certainly not for a proxyDHCP server: it cannot come from a netboot client. It
// allocates nothing and leaves whatever is in doubt to Parse; nil means in doubt.
func Foreign(b []byte) error {
	if err := checkHead(b); err != nil {
		return err
	}
	for _, mark := range marks {
		if bytes.Contains(b[headLen:], mark) {
			return nil
		}
	}
	return errNotPXE
}

// Parse reads a client's packet. The error says why it is no DHCP request at all; whether the client is a netboot
// client is IsNetboot's to say.
func Parse(b []byte) (Query, error) {
	if err := checkHead(b); err != nil {
		return Query{}, err
	}
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		return Query{}, fmt.Errorf("the packet's options cannot be read: %w", err)
	}
	if m.MessageType() == dhcpv4.MessageTypeNone {
		return Query{}, errNoType
	}
	q := Query{
		Type: m.MessageType(), XID: m.TransactionID, MAC: node.MAC(b[28:34]),
		Arch: noArch, Class: m.ClassIdentifier(), GUID: m.Options.Get(dhcpv4.OptionClientMachineIdentifier),
		Flags: m.Flags, Hops: m.HopCount,
		Client: addr(m.ClientIPAddr), Relay: addr(m.GatewayIPAddr),
		Requested: addr(m.RequestedIPAddress()), ServerID: addr(m.ServerIdentifier()),
		Probe: m.MessageType() == dhcpv4.MessageTypeDiscover && string(m.Options.Get(dhcpv4.OptionUserClassInformation)) == probeClass,
	}
	if arch := m.Options.Get(dhcpv4.OptionClientSystemArchitectureType); len(arch) >= 2 {
		q.Arch = binary.BigEndian.Uint16(arch)
	}
	if q.why = Foreign(b); q.why == nil {
		q.recognise()
	}
	return q, nil
}

// IsNetboot is nil for a Raspberry Pi's boot ROM or bootloader, and otherwise the sentence that says why not.
func (q *Query) IsNetboot() error { return q.why }

func (q *Query) recognise() {
	if q.Class != piClass && !q.classless() {
		q.why = errNotPXE
		return
	}
	for _, f := range fingerprints {
		if b, ok := f.match(q); ok {
			q.Serial, q.Model, q.Stage = b.serial, b.model, b.stage
			return
		}
	}
	q.why = errNotPi
}

// addr is the IPv4 address, invalid when it is missing or all zero.
func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	if a = a.Unmap(); !a.Is4() || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

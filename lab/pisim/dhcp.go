package pisim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Form is what a message of a board looks like (§1.1, §1.7).
type Form int

// Forms of a board's DHCP messages.
const (
	Form3B     Form = iota // 3B mask ROM: 320 bytes, GUID of sixteen 0x44, PRL without 1 and 3
	Form3BPlus             // 3B+ mask ROM and every bootcode.bin: 322 bytes, GUID is the serial four times
	FormEEPROM             // Pi 4 and 5: random xid, sorted PRL, GUID "RPi4" or "RPi5" with revision, MAC and serial
)

const (
	romXID = 0x26f30339 // of every message of a 3-series board

	optMask, optRouter, optVendor, optAddress = 1, 3, 43, 50
	optType, optServer, optPRL, optClass      = 53, 54, 55, 60
	optTFTPServer, optArch, optUNDI, optGUID  = 66, 93, 94, 97
	optPad, optEnd                            = 0, 255
	msgDiscover, msgOffer, msgRequest, msgAck = 1, 2, 3, 5
	bootRequest, bootReply                    = 1, 2
	bootpLen                                  = 236 // up to the magic cookie
	clientPort, serverPort                    = 68, 67
	pxeClass                                  = "PXEClient:Arch:00000:UNDI:002001"
	pxeClassShort                             = "PXEClient"
	menuItemsOption                           = 9 // inside option 43
	cookie                                    = "\x63\x82\x53\x63"
)

var (
	prl3B     = []byte{43, 60, 67, 128, 129, 130, 131, 132, 133, 134, 135, 66}
	prl3BPlus = append(bytes.Clone(prl3B), 1, 3)
	prlEEPROM = []byte{1, 3, 43, 60, 66, 67, 128, 129, 130, 131, 132, 133, 134, 135}
)

// identity is what a board says of itself.
type identity struct {
	mac      MAC
	serial   uint32
	revision uint32
	tag      string // "RPi4", "RPi5"; EEPROM only
}

// guid is the content of option 97.
func (id identity) guid(form Form) []byte {
	g := make([]byte, 1, 17)
	switch form {
	case Form3B:
		return append(g, bytes.Repeat([]byte{0x44}, 16)...)
	case Form3BPlus:
		return append(g, bytes.Repeat(binary.LittleEndian.AppendUint32(nil, id.serial), 4)...)
	default:
		g = binary.LittleEndian.AppendUint32(append(g, id.tag...), id.revision)
		g = append(g, id.mac[2:]...)
		return binary.LittleEndian.AppendUint32(g, id.serial)
	}
}

// discover builds the payload of a DISCOVER.
func (id identity) discover(form Form, xid uint32) []byte {
	return append(id.message(form, xid, msgDiscover), optEnd)
}

// request builds the REQUEST of a board that makes a whole lease (Pi 4 and 5).
func (id identity) request(form Form, xid uint32, addr, server netip.Addr) []byte {
	b := id.message(form, xid, msgRequest)
	a, s := addr.As4(), server.As4()
	b = appendOption(b, optAddress, a[:])
	b = appendOption(b, optServer, s[:])
	return append(b, optEnd)
}

func (id identity) message(form Form, xid uint32, kind byte) []byte {
	b := make([]byte, bootpLen, 340)
	b[0], b[1], b[2] = bootRequest, 1, 6
	binary.BigEndian.PutUint32(b[4:], xid)
	copy(b[28:], id.mac[:])
	b = append(b, cookie...)
	b = appendOption(b, optType, []byte{kind})
	b = appendOption(b, optPRL, map[Form][]byte{Form3B: prl3B, Form3BPlus: prl3BPlus, FormEEPROM: prlEEPROM}[form])
	b = appendOption(b, optArch, []byte{0, 0})
	b = appendOption(b, optUNDI, []byte{1, 2, 1})
	b = appendOption(b, optGUID, id.guid(form))
	return appendOption(b, optClass, []byte(pxeClass))
}

func appendOption(b []byte, code byte, value []byte) []byte {
	return append(append(b, code, byte(len(value))), value...)
}

// Offer is a server's answer as far as the firmware reads it.
type Offer struct {
	From    netip.Addr // IP source
	Address netip.Addr // yiaddr; 0.0.0.0 from a proxy
	Next    netip.Addr // siaddr
	Server  netip.Addr `json:",omitzero"` // option 54
	Mask    netip.Addr `json:",omitzero"`
	Router  netip.Addr `json:",omitzero"`
	TFTP    string     `json:",omitempty"` // option 66, without trailing NUL
	Class   string     `json:",omitempty"` // option 60
	Vendor  []byte     `json:",omitempty"` // option 43
	For     MAC        // chaddr

	xid   uint32
	kind  byte
	order []byte // option codes in the order met
}

var errNoReply = errors.New("not a DHCP reply")

// parseOffer reads an OFFER or ACK. Options after a broken one are ignored, as is a missing END.
func parseOffer(from netip.Addr, b []byte) (Offer, error) {
	if len(b) < bootpLen+4 || b[0] != bootReply || b[2] != 6 || string(b[bootpLen:bootpLen+4]) != cookie {
		return Offer{}, errNoReply
	}
	o := Offer{
		From: from, Address: ip4(b[16:]), Next: ip4(b[20:]), For: MAC(b[28:34]), xid: binary.BigEndian.Uint32(b[4:]),
	}
	for opts := b[bootpLen+4:]; len(opts) > 0 && opts[0] != optEnd; {
		if opts[0] == optPad {
			opts = opts[1:]
			continue
		}
		if len(opts) < 2 || len(opts) < 2+int(opts[1]) {
			break
		}
		o.option(opts[0], opts[2:2+opts[1]])
		opts = opts[2+int(opts[1]):]
	}
	return o, nil
}

func (o *Offer) option(code byte, v []byte) {
	o.order = append(o.order, code)
	addr := netip.Addr{}
	if len(v) >= 4 {
		addr = ip4(v)
	}
	switch code {
	case optType:
		if len(v) == 1 {
			o.kind = v[0]
		}
	case optMask:
		o.Mask = addr
	case optRouter:
		o.Router = addr
	case optServer:
		o.Server = addr
	case optTFTPServer:
		o.TFTP = strings.TrimRight(string(v), "\x00")
	case optClass:
		o.Class = strings.TrimRight(string(v), "\x00")
	case optVendor:
		o.Vendor = bytes.Clone(v)
	}
}

// HasMenu reports whether option 43 carries text anywhere, which is all that the 3-series looks at.
func (o Offer) HasMenu(text string) bool { return bytes.Contains(o.Vendor, []byte(text)) }

// hasMenuItem reports whether the PXE boot menu of option 43 has an item with text, as the EEPROM wants it.
func (o Offer) hasMenuItem(text string) bool {
	for v := o.Vendor; len(v) > 0 && v[0] != optEnd; {
		if v[0] == optPad {
			v = v[1:]
			continue
		}
		if len(v) < 2 || len(v) < 2+int(v[1]) {
			return false
		}
		if v[0] == menuItemsOption && bytes.Contains(v[2:2+int(v[1])], []byte(text)) {
			return true
		}
		v = v[2+int(v[1]):]
	}
	return false
}

// String tells the offer in a line.
func (o Offer) String() string {
	s := fmt.Sprintf("OFFER from %s: address %s", o.From, o.Address)
	if o.TFTP != "" {
		s += ", option 66 " + o.TFTP
	}
	if o.HasMenu(menuText) {
		s += fmt.Sprintf(", option 43 with %q", menuText)
	}
	return s
}

func ip4(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b[:4])) }

package dhcp

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bramble/node"
)

// Every peculiarity of a Raspberry Pi's DHCP client is in this file, with the source of each. pi-netboot.md and
// FW#n (an issue of raspberrypi/firmware) and EE#n (of raspberrypi/rpi-eeprom) are the sources' names.

// piClass is option 60 of every Raspberry Pi, which claims to be an x86 BIOS (pi-netboot.md 1.1; EE#182).
const piClass = "PXEClient:Arch:00000:UNDI:002001"

// piXID is the transaction id of the 3-series ROM and of bootcode.bin, the same on every board and every try
// (pi-netboot.md 1.1; FW#1067).
var piXID = dhcpv4.TransactionID{0x26, 0xf3, 0x03, 0x39}

// piText in option 43 makes a Pi take the sender for its TFTP server. The 3B's ROM wants the three spaces, and
// everything newer ignores them (pi-netboot.md 1.4; EE release notes of 2019-10-16).
const piText = "Raspberry Pi Boot   "

// option43 is PXE's vendor options in the form that dnsmasq and LTSP send, and that all models were seen to take:
// no boot server discovery, a prompt without a pause, a menu of one entry. The entry's type is 0; no Pi looks at it
// (pi-netboot.md 1.9).
var option43 = slices.Concat(
	[]byte{6, 1, 3},
	[]byte{10, 4, 0, 'P', 'X', 'E'},
	[]byte{9, byte(3 + len(piText)), 0, 0, byte(len(piText))}, []byte(piText),
	[]byte{255},
)

// The 3B's mask ROM looks at an OFFER only when another frame comes after it, and falls into a loop when it is
// answered too fast; the 3B+ does neither (FW#764, #859, #862, #894, #934; openSUSE/netboot-rpi3b).
// The first wake-up hands it the router's OFFER, the second ours.
const (
	lateAnswer   = time.Second
	firstWakeUp  = 600 * time.Millisecond
	secondWakeUp = 1200 * time.Millisecond
)

func (q *Query) deaf() bool { return q.Model == node.Pi3B && q.Stage == "rom" }

// marks are the byte strings one of which is in every packet of a netboot client.
var marks = [][]byte{[]byte(piClass), []byte("RPi4"), []byte("RPi5"), []byte("4iPR"), []byte("5iPR")}

// classless clients are recognised without option 60: an EEPROM's REQUEST of 2020 did not carry it (EE#82, #87).
func (q *Query) classless() bool {
	_, ok := eepromGUID(q)
	return ok && q.Class == "" && q.Type == dhcpv4.MessageTypeRequest
}

type board struct {
	serial node.Serial
	model  node.Model
	stage  string
}

// fingerprint is one way in which firmware gives itself away, beside option 60.
type fingerprint struct {
	name   string
	source string
	match  func(*Query) (board, bool)
}

// fingerprints are tried in this order.
var fingerprints = []fingerprint{
	{"3B mask ROM", "option 97 is 16 times 0x44 (openSUSE/netboot-rpi3b)", maskROM},
	{"EEPROM", "option 97 begins RPi4 or RPi5 (EE#103, EE release notes 2020-03-16, 2023-10-30)", eepromGUID},
	{"serial GUID", "option 97 is the serial number four times (FW#1265, FW#1362)", serialGUID},
	{"constant xid", "0x26f30339 from every 3-series ROM and bootcode.bin (FW#1067)", constantXID},
}

const guidLen = 17 // type byte and 16 bytes

func maskROM(q *Query) (board, bool) {
	is := len(q.GUID) == guidLen && bytes.Count(q.GUID[1:], []byte{0x44}) == guidLen-1
	return board{model: node.Pi3B, stage: "rom"}, is
}

// eepromGUID reads the form "RPi4", board revision, low half of the MAC, serial number. The numbers are
// little-endian words (a Pi 4 that asked for 5b154510/start4.elf sent 52506934 1131a000 322ef8ed 10…; the first
// beta left the MAC zero, EE#103). Some tools also look for the words in the other byte order.
func eepromGUID(q *Query) (board, bool) {
	if len(q.GUID) != guidLen {
		return board{}, false
	}
	b := board{stage: "eeprom", serial: node.Serial(binary.LittleEndian.Uint32(q.GUID[13:]))}
	name := string(q.GUID[1:5])
	if name == "4iPR" || name == "5iPR" {
		b.serial = node.Serial(binary.BigEndian.Uint32(q.GUID[13:]))
	}
	switch name {
	case "RPi4", "4iPR":
		b.model = node.Pi4
	case "RPi5", "5iPR":
		b.model = node.Pi5
	default:
		return board{}, false
	}
	return b, true
}

// serialGUID needs a second sign, since a BIOS may have such a UUID: the constant transaction id, or a MAC of
// Raspberry Pi's. With a random transaction id this is an EEPROM older than March 2020, or one that was set to
// DHCP_OPTION97=0 (pi-netboot.md 1.7).
func serialGUID(q *Query) (board, bool) {
	if len(q.GUID) != guidLen {
		return board{}, false
	}
	for i := 5; i < guidLen; i++ {
		if q.GUID[i] != q.GUID[i-4] {
			return board{}, false
		}
	}
	b := board{serial: node.Serial(binary.LittleEndian.Uint32(q.GUID[1:])), model: node.Pi3}
	if q.XID == piXID {
		return b, b.serial != 0
	}
	b.model, b.stage = node.Pi4, "eeprom"
	return b, b.serial != 0 && hasPiOUI(q.MAC)
}

func constantXID(q *Query) (board, bool) {
	return board{model: node.Pi3}, q.XID == piXID && q.Class == piClass
}

// ouis are the MAC prefixes of Raspberry Pis. They only ever support another sign: some are on boards without
// network boot, and custom MACs exist (pi-netboot.md 1.8).
var ouis = [][3]byte{
	{0xb8, 0x27, 0xeb}, {0xdc, 0xa6, 0x32}, {0xe4, 0x5f, 0x01}, {0x28, 0xcd, 0xc1},
	{0xd8, 0x3a, 0xdd}, {0x2c, 0xcf, 0x67}, {0x88, 0xa2, 0x9e},
}

func hasPiOUI(m node.MAC) bool { return slices.Contains(ouis, [3]byte(m[:3])) }

// wakeUp is the frame that openSUSE/netboot-rpi3b sends: Wake-on-LAN's, which means nothing to any other machine.
// Any frame would do, and a broadcast needs no ARP, which this ROM would not answer (FW#764).
func wakeUp(mac node.MAC) []byte {
	return append(bytes.Repeat([]byte{0xff}, len(mac)), bytes.Repeat(mac[:], 16)...)
}

// Package node is what bramble knows of a board: who it is, what happened to it, and the state that follows.
//
// Nobody sets a state. Everything that happens is an Event; State is the fold of Apply over a board's events.
// The package uses the standard library only and knows nothing of sockets, files or clocks.
package node

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// MAC is a board's wired ethernet address. It is the key of a node: every packet of every boot stage carries it
// or leads to it. The zero MAC means "not about one board".
type MAC [6]byte

// ParseMAC reads the usual spellings (b8:27:eb:69:20:2e, b8-27-eb-69-20-2e).
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, fmt.Errorf("%q is not a MAC address; write it like b8:27:eb:69:20:2e", s)
	}
	return MAC(hw), nil
}

// String is the colon form in lower case.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// IsZero reports whether m names no board.
func (m MAC) IsZero() bool { return m == MAC{} }

// MarshalText writes the colon form; the zero MAC is the empty text.
func (m MAC) MarshalText() ([]byte, error) {
	if m.IsZero() {
		return nil, nil
	}
	return []byte(m.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (m *MAC) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*m = MAC{}
		return nil
	}
	v, err := ParseMAC(string(b))
	if err == nil {
		*m = v
	}
	return err
}

// Serial is the low 32 bits of a Raspberry Pi's serial number, which is all that the boot stages use
// (rpi-eeprom#563). Zero means unknown.
type Serial uint32

// ParseSerial reads eight hex digits, or the sixteen that /proc/cpuinfo shows, of which the upper half is dropped.
func ParseSerial(s string) (Serial, error) {
	hex := strings.ToLower(strings.TrimPrefix(s, "0x"))
	if len(hex) == 16 {
		hex = hex[8:]
	}
	v, err := strconv.ParseUint(hex, 16, 32)
	if err != nil || len(hex) != 8 {
		return 0, fmt.Errorf("%q is not a Raspberry Pi serial number; it has eight hex digits, like 8b07bcc6", s)
	}
	return Serial(v), nil
}

// String is eight lower-case hex digits, leading zeros kept, as the firmware writes its TFTP prefix.
func (s Serial) String() string { return fmt.Sprintf("%08x", uint32(s)) }

// MarshalText writes String; an unknown serial is the empty text.
func (s Serial) MarshalText() ([]byte, error) {
	if s == 0 {
		return nil, nil
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (s *Serial) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*s = 0
		return nil
	}
	v, err := ParseSerial(string(b))
	if err == nil {
		*s = v
	}
	return err
}

// Model is a board's family as far as network boot tells families apart.
type Model string

// The models that network boot tells apart. A 2 with bootcode.bin on SD and a 3B+ look the same on the wire
// until the firmware asks for a device tree; Pi3 is the name for "one of them".
const (
	ModelUnknown Model = ""
	Pi3B         Model = "3B"  // BCM2837 mask ROM, option 97 all 0x44
	Pi3          Model = "3B+" // 3B+ ROM, or bootcode.bin on any board
	Pi4          Model = "4"   // EEPROM, GUID "RPi4"
	Pi5          Model = "5"   // EEPROM, GUID "RPi5"
)

// BootID names one boot of one board: eight hex digits.
type BootID string

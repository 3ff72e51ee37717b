package facts

import "fmt"

// Board is what a revision code says (Raspberry Pi documentation, "Raspberry Pi revision codes").
type Board struct {
	Name      string // as in the device tree, without "Raspberry Pi": "3 Model B Plus Rev 1.3"
	Suffix    string // short form for minion ids: "3Bp"; a 4B's has its memory: "4B-2GB"
	Processor string // "BCM2837"
	Memory    int64  // bytes
}

type model struct{ name, suffix string }

// Types of new-style codes, bits 4 to 11. 0x0f and 0x16 are internal to Raspberry Pi.
var models = map[uint32]model{
	0x00: {"Model A", "1A"}, 0x01: {"Model B", "1B"}, 0x02: {"Model A Plus", "1Ap"}, 0x03: {"Model B Plus", "1Bp"},
	0x04: {"2 Model B", "2B"}, 0x05: {"Alpha", "Alpha"}, 0x06: {"Compute Module", "CM1"},
	0x08: {"3 Model B", "3B"}, 0x09: {"Zero", "Zero"}, 0x0a: {"Compute Module 3", "CM3"}, 0x0c: {"Zero W", "ZeroW"},
	0x0d: {"3 Model B Plus", "3Bp"}, 0x0e: {"3 Model A Plus", "3Ap"}, 0x10: {"Compute Module 3 Plus", "CM3p"},
	0x11: {"4 Model B", "4B"}, 0x12: {"Zero 2 W", "Zero2W"}, 0x13: {"400", "400"}, 0x14: {"Compute Module 4", "CM4"},
	0x15: {"Compute Module 4S", "CM4S"}, 0x17: {"5 Model B", "5"}, 0x18: {"Compute Module 5", "CM5"}, 0x19: {"500", "500"},
	0x1a: {"Compute Module 5 Lite", "CM5L"},
}

var processors = [...]string{"BCM2835", "BCM2836", "BCM2837", "BCM2711", "BCM2712"}

// Codes from before the Raspberry Pi 2: no fields, a list.
var oldBoards = map[uint32]struct {
	model    uint32
	revision string
	memory   int64 // MB
}{
	0x02: {0x01, "1.0", 256}, 0x03: {0x01, "1.0", 256},
	0x04: {0x01, "2.0", 256}, 0x05: {0x01, "2.0", 256}, 0x06: {0x01, "2.0", 256},
	0x07: {0x00, "2.0", 256}, 0x08: {0x00, "2.0", 256}, 0x09: {0x00, "2.0", 256},
	0x0d: {0x01, "2.0", 512}, 0x0e: {0x01, "2.0", 512}, 0x0f: {0x01, "2.0", 512},
	0x10: {0x03, "1.2", 512}, 0x11: {0x06, "1.0", 512}, 0x12: {0x02, "1.1", 256},
	0x13: {0x03, "1.2", 512}, 0x14: {0x06, "1.0", 512}, 0x15: {0x02, "1.1", 256},
}

// Decode reads a revision code. A code of a board that it does not know gives what its fields say, and no suffix.
func Decode(code uint32) (Board, error) {
	const newStyle, warranty = 1 << 23, 1 << 24
	if code&newStyle == 0 {
		old, ok := oldBoards[code&^warranty]
		if !ok {
			return Board{}, fmt.Errorf("%#x is no revision code of a Raspberry Pi", code)
		}
		m := models[old.model]
		return Board{m.name + " Rev " + old.revision, m.suffix, processors[0], old.memory << 20}, nil
	}
	kind, size, processor := code>>4&0xff, code>>20&7, code>>12&0xf
	b := Board{Memory: 256 << 20 << size, Processor: "unknown"}
	if int(processor) < len(processors) {
		b.Processor = processors[processor]
	}
	m, ok := models[kind]
	if !ok {
		m.name = fmt.Sprintf("unknown (type %#02x)", kind)
	}
	b.Name, b.Suffix = fmt.Sprintf("%s Rev 1.%d", m.name, code&0xf), m.suffix
	if m.suffix == "4B" {
		b.Suffix = fmt.Sprintf("4B-%dGB", b.Memory>>30)
	}
	return b, nil
}

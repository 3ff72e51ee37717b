package fat

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"sort"
	"strings"
	"time"
	"unicode/utf16"

	"golang.org/x/text/encoding/charmap"

	"bramble/images/internal/handle"
)

// Attributes of a directory entry.
const (
	attrVolume   = 0x08
	attrDir      = 0x10
	attrLongName = 0x0f
)

// maxDir is the size of the biggest directory that FAT allows, in bytes.
const maxDir = 65536 * 32

// entry is one file or directory.
type entry struct {
	handle.Info
	first uint32 // cluster
}

// directory is one directory, parsed.
type directory struct {
	sorted []fs.DirEntry
	byName map[string]entry // by folded name
	label  string
}

// fold makes names that FAT takes for equal equal.
func fold(name string) string { return strings.ToUpper(name) }

// directory reads the directory that begins at a cluster; 0 is the root.
func (f *FS) directory(first uint32) (*directory, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.dirs[first]; d != nil {
		return d, nil
	}
	raw, err := f.dirBytes(first)
	if err != nil {
		return nil, err
	}
	d := f.parseDir(raw)
	f.dirs[first] = d
	return d, nil
}

func (f *FS) dirBytes(first uint32) ([]byte, error) {
	c := runs{f.r, []run{{0, f.root, f.rootSize}}}
	if first == 0 && f.kind == 32 {
		first = f.rootAt
	}
	if first != 0 {
		var err error
		if c, err = f.chain(first); err != nil {
			return nil, err
		}
	}
	raw := make([]byte, min(c.size(), maxDir))
	if _, err := c.ReadAt(raw, 0); err != nil {
		return nil, fmt.Errorf("a directory cannot be read: %w", err)
	}
	return raw, nil
}

func (f *FS) parseDir(raw []byte) *directory {
	d := &directory{byName: map[string]entry{}}
	var long longName
	for ; len(raw) >= 32 && raw[0] != 0; raw = raw[32:] {
		e := raw[:32]
		switch attr := e[11]; {
		case e[0] == 0xe5: // deleted
			long = longName{}
		case attr&0x3f == attrLongName:
			long.add(e)
		case attr&attrVolume != 0:
			d.label = strings.TrimRight(decode437(e[:11]), " ")
			long = longName{}
		default:
			d.add(e, long.name(e), f.kind)
			long = longName{}
		}
	}
	sort.Slice(d.sorted, func(i, j int) bool { return d.sorted[i].Name() < d.sorted[j].Name() })
	return d
}

func (d *directory) add(e []byte, name string, kind int) {
	if !usable(name) {
		name = shortName(e)
	}
	key := fold(name)
	if _, twice := d.byName[key]; twice || !usable(name) {
		return
	}
	le := binary.LittleEndian
	x := entry{Info: handle.Info{Base: name, Perm: 0o444, Bytes: int64(le.Uint32(e[28:])), Time: fatTime(le.Uint16(e[24:]), le.Uint16(e[22:]))}}
	x.first = uint32(le.Uint16(e[26:]))
	if kind == 32 { // the others keep extended attributes of OS/2 there
		x.first |= uint32(le.Uint16(e[20:])) << 16
	}
	if e[11]&attrDir != 0 {
		x.Perm, x.Bytes = fs.ModeDir|0o555, 0
		if x.first == 0 { // would be the root again; only ".." may say that
			return
		}
	}
	d.byName[key] = x
	d.sorted = append(d.sorted, x.Entry())
}

// usable reports whether a name can be an element of a path.
func usable(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\\\x00")
}

// shortName is the 8.3 name. Two bits of byte 12 say that the base or the extension is in lower case; Windows NT,
// Linux and mtools set them instead of writing a long name.
func shortName(e []byte) string {
	raw := append([]byte(nil), e[:11]...)
	if raw[0] == 0x05 { // stands for e5, which would mean deleted
		raw[0] = 0xe5
	}
	base := strings.TrimRight(decode437(raw[:8]), " ")
	ext := strings.TrimRight(decode437(raw[8:]), " ")
	if e[12]&0x08 != 0 {
		base = strings.ToLower(base)
	}
	if e[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if ext != "" {
		return base + "." + ext
	}
	return base
}

// decode437 reads the code page that Linux takes for FAT's short names, too.
func decode437(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		s.WriteRune(charmap.CodePage437.DecodeByte(c))
	}
	return s.String()
}

// longName collects the entries that stand before a short one, last part first.
type longName struct {
	units []uint16
	sum   byte
	next  byte // number of the part that must follow; 0 when the name is complete or there is none
}

func (l *longName) add(e []byte) {
	number := e[0] & 0x3f
	if e[0]&0x40 != 0 {
		*l = longName{sum: e[13], next: number}
	}
	if number == 0 || number > 20 || number != l.next || e[13] != l.sum {
		*l = longName{}
		return
	}
	part := make([]uint16, 0, 13)
	for _, field := range [][]byte{e[1:11], e[14:26], e[28:32]} {
		for i := 0; i < len(field); i += 2 {
			part = append(part, binary.LittleEndian.Uint16(field[i:]))
		}
	}
	l.units = append(part, l.units...)
	l.next--
}

// name is the collected name if it is complete and belongs to the short entry e, and the short name otherwise.
func (l *longName) name(e []byte) string {
	if len(l.units) == 0 || l.next != 0 || l.sum != checksum(e[:11]) {
		return shortName(e)
	}
	units := l.units
	for i, u := range units {
		if u == 0 {
			units = units[:i]
			break
		}
	}
	return string(utf16.Decode(units))
}

func checksum(short []byte) (sum byte) {
	for _, c := range short {
		sum = sum>>1 + sum<<7 + c
	}
	return sum
}

// fatTime has steps of two seconds and no time zone; it is read as UTC.
func fatTime(date, clock uint16) time.Time {
	if date == 0 {
		return time.Time{}
	}
	return time.Date(1980+int(date>>9), time.Month(date>>5&15), int(date&31), int(clock>>11), int(clock>>5&63), int(clock&31)*2, 0, time.UTC)
}

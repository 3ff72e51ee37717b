// Package partition reads the partition tables of disk images: MBR with its extended partitions, and GPT.
// Sectors have 512 bytes, as on every SD card. Nothing is written.
package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// SectorSize is the unit of every table that this package reads.
const SectorSize = 512

// ErrNoTable is returned for data that starts with neither an MBR nor a GPT.
var ErrNoTable = errors.New("there is no partition table")

// Table is what an image says of its parts.
type Table struct {
	Scheme string // "mbr" or "gpt"
	ID     string // the disk's: eight hex digits for an MBR, a GUID for GPT, both in lower case
	Parts  []Part // in the order of their numbers
}

// Part is one partition. Offset and Size are bytes and lie inside the image.
type Part struct {
	Number int    // as Linux counts: 1 to 4 for an MBR's own entries, from 5 for logical ones
	Offset int64  //
	Size   int64  //
	Type   string // "0c" for an MBR, a GUID in lower case for GPT
	Name   string // GPT only
	UUID   string // what Linux calls PARTUUID
}

// Types that images for Raspberry Pis use.
const (
	TypeFAT32LBA = "0c"
	TypeLinux    = "83"
	TypeESP      = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
)

// Read reads the partition table at the start of r, which has size bytes in all.
func Read(r io.ReaderAt, size int64) (Table, error) {
	var mbr [SectorSize]byte
	if _, err := r.ReadAt(mbr[:], 0); err != nil {
		return Table{}, fmt.Errorf("the first sector cannot be read (is the file empty?): %w", err)
	}
	if mbr[510] != 0x55 || mbr[511] != 0xaa || looksLikeFAT(mbr[:]) {
		return Table{}, ErrNoTable
	}
	for _, e := range entries(mbr[:]) {
		if e.kind == 0xee {
			return readGPT(r, size)
		}
	}
	return readMBR(r, size, mbr[:])
}

// looksLikeFAT tells a FAT boot sector (a bare file system, no table) from an MBR: both end in 55 aa.
func looksLikeFAT(sector []byte) bool {
	jump := sector[0] == 0xeb && sector[2] == 0x90 || sector[0] == 0xe9
	return jump && (string(sector[54:57]) == "FAT" || string(sector[82:85]) == "FAT")
}

// entry is one of the four lines of an MBR or of an extended boot record.
type entry struct {
	boot, kind   byte
	start, count uint32 // sectors
}

func (e entry) extended() bool { return e.kind == 0x05 || e.kind == 0x0f || e.kind == 0x85 }

func entries(sector []byte) (e [4]entry) {
	for i := range e {
		b := sector[446+16*i:]
		e[i] = entry{b[0], b[4], binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])}
	}
	return e
}

func readMBR(r io.ReaderAt, size int64, mbr []byte) (Table, error) {
	t := Table{Scheme: "mbr", ID: fmt.Sprintf("%08x", binary.LittleEndian.Uint32(mbr[440:]))}
	var extended []entry
	for i, e := range entries(mbr) {
		if e.boot&0x7f != 0 {
			return Table{}, fmt.Errorf("%w: the first sector ends like an MBR, but entry %d has the flag %02x", ErrNoTable, i+1, e.boot)
		}
		switch {
		case e.kind == 0 || e.count == 0:
		case e.extended():
			extended = append(extended, e)
		default:
			if err := t.add(size, i+1, int64(e.start), e); err != nil {
				return Table{}, err
			}
		}
	}
	for _, e := range extended {
		if err := t.readLogical(r, size, e); err != nil {
			return Table{}, err
		}
	}
	return t, nil
}

// maxLogical ends a chain of extended boot records that runs in a circle.
const maxLogical = 128

// readLogical follows a chain of extended boot records. The first entry of each is a logical partition, counted
// from the record; the second leads to the next record, counted from the start of the extended partition.
func (t *Table) readLogical(r io.ReaderAt, size int64, container entry) error {
	number := 5
	for at, hops := int64(container.start), 0; ; hops++ {
		if hops == maxLogical {
			return fmt.Errorf("the extended partition has more than %d logical ones or runs in a circle; the image is damaged", maxLogical)
		}
		var ebr [SectorSize]byte
		if _, err := r.ReadAt(ebr[:], at*SectorSize); err != nil {
			return fmt.Errorf("the extended boot record at sector %d cannot be read; the image is cut off: %w", at, err)
		}
		if ebr[510] != 0x55 || ebr[511] != 0xaa {
			return fmt.Errorf("there is no extended boot record at sector %d; the image is damaged", at)
		}
		e := entries(ebr[:])
		if e[0].kind != 0 && e[0].count != 0 {
			if err := t.add(size, number, at+int64(e[0].start), e[0]); err != nil {
				return err
			}
			number++
		}
		if !e[1].extended() || e[1].count == 0 {
			return nil
		}
		at = int64(container.start) + int64(e[1].start)
	}
}

func (t *Table) add(size int64, number int, start int64, e entry) error {
	p := Part{
		Number: number, Offset: start * SectorSize, Size: int64(e.count) * SectorSize,
		Type: fmt.Sprintf("%02x", e.kind), UUID: fmt.Sprintf("%s-%02x", t.ID, number),
	}
	if err := p.inside(size); err != nil {
		return err
	}
	t.Parts = append(t.Parts, p)
	return nil
}

func (p Part) inside(size int64) error {
	if p.Offset < SectorSize || p.Size <= 0 || p.Offset > size || p.Size > size-p.Offset {
		return fmt.Errorf("partition %d reaches from byte %d over %d bytes, but the image has %d bytes; it is damaged or cut off",
			p.Number, p.Offset, p.Size, size)
	}
	return nil
}

// Section is the part's bytes.
func (p Part) Section(r io.ReaderAt) *io.SectionReader {
	return io.NewSectionReader(r, p.Offset, p.Size)
}

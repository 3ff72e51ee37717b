package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// UEFI specification 2.10, section 5.3.
const (
	gptSignature = "EFI PART"
	gptHeader    = 92
	gptMaxBytes  = 1 << 20 // of the array of entries; the usual array has 16 KiB
)

// readGPT reads the primary header, or the backup in the last sector when the primary one is damaged.
func readGPT(r io.ReaderAt, size int64) (Table, error) {
	t, err := readGPTAt(r, size, 1)
	if err == nil {
		return t, nil
	}
	if t, backup := readGPTAt(r, size, size/SectorSize-1); backup == nil {
		return t, nil
	}
	return Table{}, err
}

func readGPTAt(r io.ReaderAt, size, lba int64) (Table, error) {
	var sector [SectorSize]byte
	if _, err := r.ReadAt(sector[:], lba*SectorSize); err != nil {
		return Table{}, fmt.Errorf("the GPT header at sector %d cannot be read: %w", lba, err)
	}
	header := sector[:gptHeader]
	if string(header[:8]) != gptSignature {
		return Table{}, fmt.Errorf("the MBR says that there is a GPT, but there is none at sector %d; the image is damaged", lba)
	}
	sum := binary.LittleEndian.Uint32(header[16:])
	clear(header[16:20])
	if n := binary.LittleEndian.Uint32(header[12:]); n != gptHeader || crc32.ChecksumIEEE(header) != sum {
		return Table{}, fmt.Errorf("the checksum of the GPT header at sector %d is wrong; the image is damaged", lba)
	}
	first := binary.LittleEndian.Uint64(header[72:])
	count := int64(binary.LittleEndian.Uint32(header[80:]))
	width := int64(binary.LittleEndian.Uint32(header[84:]))
	if width < 128 || width%8 != 0 || count > gptMaxBytes/width || first > uint64(size/SectorSize) {
		return Table{}, fmt.Errorf("the GPT has %d entries of %d bytes at sector %d, which cannot be; the image is damaged", count, width, first)
	}
	array := make([]byte, count*width)
	if _, err := r.ReadAt(array, int64(first)*SectorSize); err != nil && !(errors.Is(err, io.EOF) && count == 0) {
		return Table{}, fmt.Errorf("the GPT's entries at sector %d cannot be read; the image is cut off: %w", first, err)
	}
	if crc32.ChecksumIEEE(array) != binary.LittleEndian.Uint32(header[88:]) {
		return Table{}, errors.New("the checksum of the GPT's entries is wrong; the image is damaged")
	}
	t := Table{Scheme: "gpt", ID: guid(header[56:])}
	for i := range count {
		e := array[i*width:][:width]
		if [16]byte(e) == ([16]byte{}) {
			continue
		}
		start, last := binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])
		sectors := uint64(size / SectorSize)
		p := Part{Number: int(i) + 1, Type: guid(e), UUID: guid(e[16:]), Name: utf16Name(e[56:128])}
		if start > last || last >= sectors {
			return Table{}, fmt.Errorf("partition %d reaches from sector %d to %d, but the image has %d sectors; it is damaged or cut off",
				p.Number, start, last, sectors)
		}
		p.Offset, p.Size = int64(start)*SectorSize, int64(last-start+1)*SectorSize
		if err := p.inside(size); err != nil {
			return Table{}, err
		}
		t.Parts = append(t.Parts, p)
	}
	return t, nil
}

// guid writes the mixed-endian form: the first three groups are little-endian, the others are not.
func guid(b []byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]),
		binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:16])
}

func utf16Name(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

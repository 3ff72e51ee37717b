package unpack

import (
	"bufio"
	"encoding/binary"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Size is what the compressed data in the first size bytes of r unpacks to, as far as its format tells without
// unpacking; gzip does not.
func Size(r io.ReaderAt, size int64, compression string) (n int64, ok bool) {
	switch compression {
	case "":
		return size, true
	case "xz":
		return xzSize(r, size)
	case "zstd":
		head := make([]byte, zstd.HeaderMaxSize)
		got, _ := r.ReadAt(head, 0)
		var h zstd.Header
		if err := h.Decode(head[:got]); err != nil || !h.HasFCS || h.FrameContentSize > 1<<62 {
			return 0, false
		}
		return int64(h.FrameContentSize), true
	}
	return 0, false
}

// xzSize reads the index at the end of an xz file of one stream (xz-file-format.txt, sections 2.1.2 and 4).
func xzSize(r io.ReaderAt, size int64) (n int64, ok bool) {
	const head, foot = 12, 12
	var footer [foot]byte
	if size < head+foot {
		return 0, false
	}
	if _, err := r.ReadAt(footer[:], size-foot); err != nil || string(footer[10:]) != "YZ" {
		return 0, false
	}
	length := (int64(binary.LittleEndian.Uint32(footer[4:])) + 1) * 4
	if length > size-head-foot {
		return 0, false
	}
	index := bufio.NewReader(io.NewSectionReader(r, size-foot-length, length))
	if marker, err := index.ReadByte(); err != nil || marker != 0 {
		return 0, false
	}
	records, err := binary.ReadUvarint(index)
	if err != nil {
		return 0, false
	}
	blocks := int64(0)
	for range records {
		packed, err1 := binary.ReadUvarint(index)
		plain, err2 := binary.ReadUvarint(index)
		if err1 != nil || err2 != nil || packed > uint64(size) || plain > 1<<50 || n > 1<<60 {
			return 0, false
		}
		blocks += int64(packed+3) &^ 3
		n += int64(plain)
	}
	if head+blocks+length+foot != size { // there is another stream before
		return 0, false
	}
	return n, true
}

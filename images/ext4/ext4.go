// Package ext4 reads files out of an ext4 file system as an fs.FS, without mounting it.
//
// It knows as much of ext4 as it takes to read the kernel's modules and a few text files out of an image: extents,
// holes, linear and indexed directories (both read linearly), symbolic links. What it does not know it names in an
// error: block-mapped files, inline data, encryption. The journal is not replayed; a file system that needs that is
// refused. The nodes get the file system as blocks and mount it themselves.
//
// Layout: Documentation/filesystems/ext4 of the kernel.
package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Errors of New that a caller may want to tell from others.
var (
	ErrNotExt4       = errors.New("this is not an ext4 file system")
	ErrNeedsRecovery = errors.New("the ext4 file system was not unmounted cleanly and its journal must be replayed first; " +
		"mount a copy of the image once, or take the image as it was published")
)

// Incompatible features.
const (
	featFileType = 0x2
	featRecover  = 0x4
	featExtents  = 0x40
	feat64Bit    = 0x80
)

// known are the incompatible features that do not change how files are found: filetype, extents, 64bit, mmp, flex_bg,
// ea_inode, csum_seed, largedir; inline_data, encrypt and casefold matter only to the inodes that use them.
const known = featFileType | featExtents | feat64Bit | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000

var featureNames = map[uint32]string{0x1: "compression", 0x8: "journal_dev", 0x10: "meta_bg", 0x1000: "dirdata"}

// FS is an ext4 file system. It implements fs.FS, fs.ReadDirFS, fs.StatFS and fs.ReadLinkFS; Open follows symbolic
// links, absolute ones from the root of this file system. All methods may be called from several goroutines.
type FS struct {
	r              io.ReaderAt
	block          int64 // bytes
	blocks         uint64
	inodes         uint32
	inodesPerGroup uint32
	inodeSize      int64
	descs          int64 // offset of the group descriptors
	descSize       int64
	types          bool // directories tell the types of files
	label, uuid    string
}

// New opens the file system in the first size bytes of r.
func New(r io.ReaderAt, size int64) (*FS, error) {
	var b [1024]byte
	if _, err := r.ReadAt(b[:], 1024); err != nil {
		return nil, fmt.Errorf("the ext4 superblock cannot be read: %w", err)
	}
	le := binary.LittleEndian
	if le.Uint16(b[0x38:]) != 0xef53 {
		return nil, ErrNotExt4
	}
	log := le.Uint32(b[0x18:])
	if log > 5 {
		return nil, fmt.Errorf("the superblock names a block size of 2^%d KiB, which cannot be; the file system is damaged", log)
	}
	f := &FS{
		r: r, block: 1024 << log, blocks: uint64(le.Uint32(b[4:])),
		inodes: le.Uint32(b[0:]), inodesPerGroup: le.Uint32(b[0x28:]),
		inodeSize: 128, descSize: 32,
		label: strings.TrimRight(string(b[0x78:0x88]), "\x00"),
		uuid:  fmt.Sprintf("%x-%x-%x-%x-%x", b[0x68:0x6c], b[0x6c:0x6e], b[0x6e:0x70], b[0x70:0x72], b[0x72:0x78]),
	}
	features := le.Uint32(b[0x60:])
	if le.Uint32(b[0x4c:]) > 0 {
		f.inodeSize = int64(le.Uint16(b[0x58:]))
	}
	if features&feat64Bit != 0 {
		f.blocks |= uint64(le.Uint32(b[0x150:])) << 32
		f.descSize = int64(le.Uint16(b[0xfe:]))
	}
	f.types = features&featFileType != 0
	f.descs = (1024/f.block + 1) * f.block // the block after the superblock's
	switch {
	case features&featRecover != 0:
		return nil, ErrNeedsRecovery
	case features&^(known) != 0:
		return nil, fmt.Errorf("the ext4 file system uses %s, which cannot be read here", featureList(features&^known))
	case features&featExtents == 0:
		return nil, errors.New("the file system is ext2 or ext3; only ext4 with extents can be read here")
	case f.inodesPerGroup == 0 || f.inodeSize < 128 || f.inodeSize > f.block || f.descSize < 32 || f.descSize > f.block:
		return nil, errors.New("the ext4 superblock contradicts itself; the file system is damaged")
	case f.blocks > uint64(size/f.block):
		return nil, fmt.Errorf("the ext4 file system says that it has %d blocks of %d bytes, but there are only %d bytes; it is cut off",
			f.blocks, f.block, size)
	}
	return f, nil
}

func featureList(bits uint32) string {
	var names []string
	for bit := uint32(1); bit != 0; bit <<= 1 {
		if bits&bit == 0 {
			continue
		}
		name := featureNames[bit]
		if name == "" {
			name = fmt.Sprintf("feature %#x", bit)
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// Label is the volume's name; it may be empty.
func (f *FS) Label() string { return f.label }

// UUID is the file system's, in lower case.
func (f *FS) UUID() string { return f.uuid }

// Package fat reads FAT12, FAT16 and FAT32 file systems as an fs.FS, out of any io.ReaderAt.
//
// Names have FAT's meaning: letters keep the case they were written in, and Open finds a name in any case, as the
// firmware does when it reads the same file system from a card. A file's cluster chain is followed once, when it is
// opened; reading it is then one ReadAt for each unbroken run of clusters. Directories are read once and kept: the
// file system must not change underneath. All methods may be called from several goroutines.
package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// ErrNotFAT is returned by New for data that does not begin with a FAT boot sector.
var ErrNotFAT = errors.New("this is not a FAT file system")

// FS is a FAT file system. It implements fs.FS, fs.ReadDirFS and fs.StatFS.
type FS struct {
	r        io.ReaderAt
	kind     int    // 12, 16 or 32
	clusters uint32 // valid numbers are 2 to clusters+1
	cluster  int64  // bytes in a cluster
	fat      int64  // offset of the active FAT
	fatSize  int64  // bytes
	root     int64  // offset of the fixed root directory of FAT12 and FAT16
	rootSize int64  //
	rootAt   uint32 // first cluster of FAT32's root directory
	data     int64  // offset of cluster 2
	label    string // from the boot sector

	mu   sync.Mutex
	dirs map[uint32]*directory // by first cluster; 0 is the root
}

// New opens the file system in the first size bytes of r.
func New(r io.ReaderAt, size int64) (*FS, error) {
	var b [512]byte
	if _, err := r.ReadAt(b[:], 0); err != nil {
		return nil, fmt.Errorf("the FAT boot sector cannot be read: %w", err)
	}
	f := &FS{r: r, dirs: map[uint32]*directory{}}
	le := binary.LittleEndian
	sector := int64(le.Uint16(b[11:]))
	perCluster := int64(b[13])
	reserved := int64(le.Uint16(b[14:]))
	fats := int64(b[16])
	rootEntries := int64(le.Uint16(b[17:]))
	if b[510] != 0x55 || b[511] != 0xaa || !powerOfTwo(sector) || sector < 512 || sector > 4096 ||
		!powerOfTwo(perCluster) || reserved == 0 || fats == 0 {
		return nil, ErrNotFAT
	}
	total := int64(le.Uint16(b[19:]))
	if total == 0 {
		total = int64(le.Uint32(b[32:]))
	}
	perFAT := int64(le.Uint16(b[22:]))
	wide := perFAT == 0 // as Linux tells FAT32 from the others
	label := b[43:54]
	active := int64(0)
	if wide {
		perFAT = int64(le.Uint32(b[36:]))
		f.rootAt = le.Uint32(b[44:])
		label = b[71:82]
		if flags := le.Uint16(b[40:]); flags&0x80 != 0 {
			active = int64(flags & 0x0f)
		}
	}
	f.label = strings.TrimRight(decode437(label), " \x00")
	if f.label == "NO NAME" {
		f.label = ""
	}
	if total*sector > size {
		return nil, fmt.Errorf("the FAT file system says that it has %d bytes, but there are only %d; it is cut off", total*sector, size)
	}
	f.cluster = sector * perCluster
	f.fat = (reserved + active*perFAT) * sector
	f.fatSize = perFAT * sector
	f.root = (reserved + fats*perFAT) * sector
	f.rootSize = (rootEntries*32 + sector - 1) / sector * sector
	f.data = f.root + f.rootSize
	if active >= fats || f.data >= total*sector {
		return nil, ErrNotFAT
	}
	f.kind, f.clusters = kindOf((total*sector-f.data)/f.cluster, wide)
	// The FAT itself must hold an entry for every cluster.
	f.clusters = uint32(min(int64(f.clusters), f.fatSize*8/int64(f.kind)-2))
	if int32(f.clusters) <= 0 || !wide && rootEntries == 0 {
		return nil, ErrNotFAT
	}
	return f, nil
}

// kindOf is Microsoft's rule: the number of clusters alone makes the difference between FAT12 and FAT16.
func kindOf(clusters int64, wide bool) (kind int, count uint32) {
	switch {
	case wide:
		return 32, uint32(min(clusters, 0x0ffffff5))
	case clusters < 4085:
		return 12, uint32(clusters)
	}
	return 16, uint32(min(clusters, 65524))
}

func powerOfTwo(n int64) bool { return n > 0 && n&(n-1) == 0 }

// Kind is 12, 16 or 32.
func (f *FS) Kind() int { return f.kind }

// Label is the volume's name, from the root directory or else from the boot sector. It may be empty.
func (f *FS) Label() string {
	if d, err := f.directory(0); err == nil && d.label != "" {
		return d.label
	}
	return f.label
}

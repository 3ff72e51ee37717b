package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"time"

	"bramble/images/internal/handle"
)

const rootInode = 2

// Inode flags.
const (
	flagEncrypted = 0x800
	flagExtents   = 0x80000
	flagInline    = 0x10000000
)

type inode struct {
	mode  uint16
	flags uint32
	size  int64
	mtime time.Time
	block [60]byte // root of the extent tree, or a short symbolic link
}

func (f *FS) inode(number uint32) (inode, error) {
	if number == 0 || number > f.inodes {
		return inode{}, fmt.Errorf("there is no inode %d; the file system is damaged", number)
	}
	le := binary.LittleEndian
	group, index := (number-1)/f.inodesPerGroup, (number-1)%f.inodesPerGroup
	desc := make([]byte, f.descSize)
	if _, err := f.r.ReadAt(desc, f.descs+int64(group)*f.descSize); err != nil {
		return inode{}, fmt.Errorf("the descriptor of group %d cannot be read: %w", group, err)
	}
	table := uint64(le.Uint32(desc[8:]))
	if f.descSize >= 64 {
		table |= uint64(le.Uint32(desc[0x28:])) << 32
	}
	if table >= f.blocks {
		return inode{}, fmt.Errorf("the inodes of group %d are outside of the file system; it is damaged", group)
	}
	b := make([]byte, 128)
	if _, err := f.r.ReadAt(b, int64(table)*f.block+int64(index)*f.inodeSize); err != nil {
		return inode{}, fmt.Errorf("inode %d cannot be read: %w", number, err)
	}
	n := inode{
		mode: le.Uint16(b), flags: le.Uint32(b[0x20:]), block: [60]byte(b[0x28:]),
		size:  int64(uint64(le.Uint32(b[4:])) | uint64(le.Uint32(b[0x6c:]))<<32),
		mtime: time.Unix(int64(int32(le.Uint32(b[0x10:]))), 0).UTC(),
	}
	if n.size < 0 {
		return inode{}, fmt.Errorf("inode %d has an impossible size; the file system is damaged", number)
	}
	return n, nil
}

func (n inode) info(name string) handle.Info {
	perm := fs.FileMode(n.mode & 0o777)
	for bit, m := range map[uint16]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if n.mode&bit != 0 {
			perm |= m
		}
	}
	return handle.Info{Base: name, Bytes: n.size, Perm: perm | n.kind(), Time: n.mtime}
}

func (n inode) kind() fs.FileMode {
	switch n.mode & 0xf000 {
	case 0x8000:
		return 0
	case 0x4000:
		return fs.ModeDir
	case 0xa000:
		return fs.ModeSymlink
	case 0x2000:
		return fs.ModeDevice | fs.ModeCharDevice
	case 0x6000:
		return fs.ModeDevice
	case 0x1000:
		return fs.ModeNamedPipe
	case 0xc000:
		return fs.ModeSocket
	}
	return fs.ModeIrregular
}

// extent maps count blocks of a file, from first, to blocks on the disk. What no extent maps is zeros.
type extent struct {
	first, count int64
	disk         int64
}

// content is a file's data as an io.ReaderAt.
type content struct {
	f       *FS
	extents []extent
	size    int64
}

func (f *FS) content(n inode) (*content, error) {
	c := &content{f: f, size: n.size}
	switch {
	case n.flags&flagInline != 0:
		return nil, errors.New("the file is stored in its inode (inline_data), which cannot be read here")
	case n.flags&flagEncrypted != 0:
		return nil, errors.New("the file is encrypted")
	case n.size == 0:
		return c, nil
	case n.flags&flagExtents == 0:
		return nil, errors.New("the file has a block map as in ext3 instead of extents, which cannot be read here")
	}
	budget := 1 << 14 // nodes; an honest tree of that many has millions of extents
	return c, c.tree(n.block[:], 5, &budget)
}

const extentMagic = 0xf30a

// tree walks an extent tree from a node; depth is the greatest that the node may have.
func (c *content) tree(node []byte, depth uint16, budget *int) error {
	le := binary.LittleEndian
	entries, level := le.Uint16(node[2:]), le.Uint16(node[6:])
	if le.Uint16(node) != extentMagic || int(entries)*12+12 > len(node) || level > depth {
		return errors.New("the file's extent tree is damaged")
	}
	for i := range entries {
		e := node[12+12*int(i):][:12]
		first := int64(le.Uint32(e))
		if level == 0 {
			count, disk := int64(le.Uint16(e[4:])), int64(le.Uint16(e[6:]))<<32|int64(le.Uint32(e[8:]))
			if err := c.add(extent{first, count, disk}); err != nil {
				return err
			}
			continue
		}
		child := int64(le.Uint16(e[8:]))<<32 | int64(le.Uint32(e[4:]))
		if *budget--; *budget < 0 || uint64(child) >= c.f.blocks {
			return errors.New("the file's extent tree is damaged")
		}
		block := make([]byte, c.f.block)
		if _, err := c.f.r.ReadAt(block, child*c.f.block); err != nil {
			return fmt.Errorf("the file's extent tree cannot be read: %w", err)
		}
		if err := c.tree(block, level-1, budget); err != nil {
			return err
		}
	}
	return nil
}

// unwritten is added to the length of an extent whose blocks are reserved but read as zeros.
const unwritten = 1 << 15

func (c *content) add(e extent) error {
	if e.count > unwritten {
		return nil
	}
	if n := len(c.extents); n > 0 && e.first < c.extents[n-1].first+c.extents[n-1].count {
		return errors.New("the file's extents overlap; the file system is damaged")
	}
	if uint64(e.disk+e.count) > c.f.blocks {
		return errors.New("the file's extents lead outside of the file system; it is damaged")
	}
	c.extents = append(c.extents, e)
	return nil
}

// ReadAt reads across extents and holes.
func (c *content) ReadAt(p []byte, off int64) (n int, err error) {
	if off >= c.size {
		return 0, io.EOF
	}
	if int64(len(p)) > c.size-off {
		p, err = p[:c.size-off], io.EOF
	}
	bs := c.f.block
	i := sort.Search(len(c.extents), func(i int) bool { return off < (c.extents[i].first+c.extents[i].count)*bs })
	for n < len(p) {
		at, rest := off+int64(n), p[n:]
		if i == len(c.extents) || at < c.extents[i].first*bs {
			if i < len(c.extents) {
				rest = rest[:min(int64(len(rest)), c.extents[i].first*bs-at)]
			}
			clear(rest)
			n += len(rest)
			continue
		}
		e := c.extents[i]
		rest = rest[:min(int64(len(rest)), (e.first+e.count)*bs-at)]
		m, rerr := c.f.r.ReadAt(rest, e.disk*bs+at-e.first*bs)
		n += m
		if m < len(rest) {
			if rerr == io.EOF {
				rerr = io.ErrUnexpectedEOF
			}
			return n, rerr
		}
		i++
	}
	return n, err
}

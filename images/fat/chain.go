package fat

import (
	"encoding/binary"
	"fmt"
	"io"
	"sort"
)

// run is a piece of a file that lies in one piece on the disk.
type run struct{ file, disk, size int64 }

// runs is a whole file, in order, as an io.ReaderAt.
type runs struct {
	r     io.ReaderAt
	parts []run
}

func (c runs) size() int64 {
	if len(c.parts) == 0 {
		return 0
	}
	last := c.parts[len(c.parts)-1]
	return last.file + last.size
}

// ReadAt reads across runs.
func (c runs) ReadAt(p []byte, off int64) (n int, err error) {
	i := sort.Search(len(c.parts), func(i int) bool { return off < c.parts[i].file+c.parts[i].size })
	for ; n < len(p) && i < len(c.parts); i++ {
		part := c.parts[i]
		skip := off + int64(n) - part.file
		want := min(int64(len(p)-n), part.size-skip)
		m, err := c.r.ReadAt(p[n:n+int(want)], part.disk+skip)
		n += m
		if int64(m) < want {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// chain follows a cluster chain to its end.
func (f *FS) chain(first uint32) (runs, error) {
	c := runs{r: f.r}
	w := window{f: f}
	for at, hops, end := first, uint32(0), false; !end; hops++ {
		if at < 2 || at-2 >= f.clusters {
			return c, fmt.Errorf("the cluster chain from %d leads to cluster %d, but the last one is %d; the file system is damaged", first, at, f.clusters+1)
		}
		if hops >= f.clusters {
			return c, fmt.Errorf("the cluster chain from %d runs in a circle; the file system is damaged", first)
		}
		disk := f.data + int64(at-2)*f.cluster
		if n := len(c.parts); n > 0 && c.parts[n-1].disk+c.parts[n-1].size == disk {
			c.parts[n-1].size += f.cluster
		} else {
			c.parts = append(c.parts, run{c.size(), disk, f.cluster})
		}
		var err error
		if at, end, err = w.next(at); err != nil {
			return c, err
		}
	}
	return c, nil
}

// window is a piece of the FAT in memory, so that following a chain reads the FAT in big pieces.
type window struct {
	f     *FS
	start int64 // offset in the FAT
	have  []byte
	buf   [4096]byte
}

// next is the cluster after at; end says that at is the last one.
func (w *window) next(at uint32) (after uint32, end bool, err error) {
	le := binary.LittleEndian
	switch w.f.kind {
	case 12:
		b, err := w.bytes(int64(at)*3/2, 2)
		if err != nil {
			return 0, false, err
		}
		after = uint32(le.Uint16(b)>>(at&1*4)) & 0xfff
		return after, after >= 0xff8, nil
	case 16:
		b, err := w.bytes(int64(at)*2, 2)
		if err != nil {
			return 0, false, err
		}
		after = uint32(le.Uint16(b))
		return after, after >= 0xfff8, nil
	}
	b, err := w.bytes(int64(at)*4, 4)
	if err != nil {
		return 0, false, err
	}
	after = le.Uint32(b) & 0x0fffffff // the upper four bits are reserved
	return after, after >= 0x0ffffff8, nil
}

func (w *window) bytes(off, n int64) ([]byte, error) {
	if off < w.start || off+n > w.start+int64(len(w.have)) {
		w.start = off
		w.have = w.buf[:min(int64(len(w.buf)), w.f.fatSize-off)]
		if int64(len(w.have)) < n {
			return nil, fmt.Errorf("the FAT ends before entry %d; the file system is damaged", off)
		}
		if _, err := w.f.r.ReadAt(w.have, w.f.fat+off); err != nil {
			w.have = nil
			return nil, fmt.Errorf("the FAT cannot be read: %w", err)
		}
	}
	return w.have[off-w.start:][:n], nil
}

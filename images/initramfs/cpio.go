package initramfs

import (
	"bytes"
	"fmt"
)

// archive writes the cpio format "newc" that the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst). It has no times and no owners, so that the same
// contents are the same bytes.
type archive struct {
	buf   bytes.Buffer
	inode int
}

// Modes of the kinds of files that an initramfs has.
const (
	modeDir     = 0o040755
	modeFile    = 0o100644
	modeProgram = 0o100755
)

func (a *archive) add(name string, mode int, data []byte) {
	a.inode++
	links := 1
	if mode == modeDir {
		links = 2
	}
	a.record(name, a.inode, mode, links, data)
}

func (a *archive) record(name string, inode, mode, links int, data []byte) {
	a.buf.WriteString("070701")
	for _, field := range []int{inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0} {
		fmt.Fprintf(&a.buf, "%08X", field)
	}
	a.buf.WriteString(name)
	a.buf.WriteByte(0)
	a.pad()
	a.buf.Write(data)
	a.pad()
}

func (a *archive) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}

func (a *archive) bytes() []byte {
	a.record("TRAILER!!!", 0, 0, 1, nil)
	return a.buf.Bytes()
}

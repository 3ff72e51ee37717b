// Package handle makes open files and directories of a read-only file system out of an io.ReaderAt or a list.
package handle

import (
	"io"
	"io/fs"
	"sync/atomic"
	"time"
)

// Info is an fs.FileInfo made of plain values.
type Info struct {
	Base  string
	Bytes int64
	Perm  fs.FileMode // type and permissions
	Time  time.Time
}

// The methods of fs.FileInfo.
func (i Info) Name() string       { return i.Base }
func (i Info) Size() int64        { return i.Bytes }
func (i Info) Mode() fs.FileMode  { return i.Perm }
func (i Info) ModTime() time.Time { return i.Time }
func (i Info) IsDir() bool        { return i.Perm.IsDir() }
func (i Info) Sys() any           { return nil }

// Entry is the directory entry of a file with this Info.
func (i Info) Entry() fs.DirEntry { return fs.FileInfoToDirEntry(i) }

// file is an open regular file. ReadAt may be called from several goroutines.
type file struct {
	info   Info
	data   *io.SectionReader
	closed atomic.Bool
}

// File opens info.Bytes bytes of r. The result is an io.ReaderAt and an io.Seeker, too.
func File(info Info, r io.ReaderAt) fs.File {
	return &file{info: info, data: io.NewSectionReader(r, 0, info.Bytes)}
}

func (f *file) check(op string) error {
	if f.closed.Load() {
		return &fs.PathError{Op: op, Path: f.info.Base, Err: fs.ErrClosed}
	}
	return nil
}

func (f *file) Stat() (fs.FileInfo, error) { return f.info, f.check("stat") }

func (f *file) Read(p []byte) (int, error) {
	if err := f.check("read"); err != nil {
		return 0, err
	}
	return f.data.Read(p)
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.check("read"); err != nil {
		return 0, err
	}
	return f.data.ReadAt(p, off)
}

func (f *file) Seek(off int64, whence int) (int64, error) {
	if err := f.check("seek"); err != nil {
		return 0, err
	}
	return f.data.Seek(off, whence)
}

func (f *file) Close() error {
	if f.closed.Swap(true) {
		return &fs.PathError{Op: "close", Path: f.info.Base, Err: fs.ErrClosed}
	}
	return nil
}

// dir is an open directory.
type dir struct {
	info Info
	rest []fs.DirEntry
}

// Dir opens a directory that has the given entries.
func Dir(info Info, entries []fs.DirEntry) fs.ReadDirFile { return &dir{info, entries} }

func (d *dir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *dir) Close() error               { return nil }

func (d *dir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.Base, Err: fs.ErrInvalid}
}

func (d *dir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		n = len(d.rest)
	} else if len(d.rest) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.rest))
	list := append([]fs.DirEntry(nil), d.rest[:n]...)
	d.rest = d.rest[n:]
	return list, nil
}

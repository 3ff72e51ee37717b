package fat

import (
	"fmt"
	"io/fs"
	"strings"

	"bramble/images/internal/handle"
)

var (
	_ fs.ReadDirFS = (*FS)(nil)
	_ fs.StatFS    = (*FS)(nil)
)

// Open opens a file or directory. A file is also an io.ReaderAt and an io.Seeker.
func (f *FS) Open(name string) (fs.File, error) {
	e, err := f.find(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	if e.IsDir() {
		d, err := f.directory(e.first)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return handle.Dir(e.Info, d.sorted), nil
	}
	c := runs{r: f.r}
	if e.Bytes > 0 {
		if c, err = f.chain(e.first); err == nil && c.size() < e.Bytes {
			err = fmt.Errorf("the file has %d bytes, but its cluster chain only %d; the file system is damaged", e.Bytes, c.size())
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
	}
	return handle.File(e.Info, c), nil
}

// Stat describes a file without following its cluster chain.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	e, err := f.find(name)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return e.Info, nil
}

// ReadDir lists a directory in the order of names.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := f.find(name)
	if err == nil && !e.IsDir() {
		err = fmt.Errorf("this is a file, not a directory: %w", fs.ErrInvalid)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	d, err := f.directory(e.first)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	return append([]fs.DirEntry(nil), d.sorted...), nil
}

func (f *FS) find(name string) (entry, error) {
	if !fs.ValidPath(name) {
		return entry{}, fs.ErrInvalid
	}
	at := entry{Info: handle.Info{Base: ".", Perm: fs.ModeDir | 0o555}}
	if name == "." {
		return at, nil
	}
	for element := range strings.SplitSeq(name, "/") {
		if !at.IsDir() {
			return entry{}, fs.ErrNotExist
		}
		d, err := f.directory(at.first)
		if err != nil {
			return entry{}, err
		}
		next, ok := d.byName[fold(element)]
		if !ok {
			return entry{}, fs.ErrNotExist
		}
		at = next
	}
	return at, nil
}

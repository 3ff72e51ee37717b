package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"strings"

	"bramble/images/internal/handle"
)

var (
	_ fs.ReadDirFS  = (*FS)(nil)
	_ fs.StatFS     = (*FS)(nil)
	_ fs.ReadLinkFS = (*FS)(nil)
)

const (
	maxLinks  = 40      // as Linux
	maxDir    = 1 << 26 // bytes
	maxTarget = 4096
)

// Open opens a file or directory, following symbolic links. A file is also an io.ReaderAt and an io.Seeker.
func (f *FS) Open(name string) (fs.File, error) {
	file, err := f.open(name)
	return file, pathError("open", name, err)
}

func (f *FS) open(name string) (fs.File, error) {
	n, err := f.find(name, true)
	if err != nil {
		return nil, err
	}
	info := n.info(base(name))
	switch {
	case info.IsDir():
		list, err := f.list(n)
		if err != nil {
			return nil, err
		}
		return handle.Dir(info, list), nil
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("it has the type %s and no contents: %w", info.Mode().Type(), fs.ErrInvalid)
	}
	c, err := f.content(n)
	if err != nil {
		return nil, err
	}
	return handle.File(info, c), nil
}

// Stat describes a file, following symbolic links.
func (f *FS) Stat(name string) (fs.FileInfo, error) { return f.stat("stat", name, true) }

// Lstat describes a file or symbolic link.
func (f *FS) Lstat(name string) (fs.FileInfo, error) { return f.stat("lstat", name, false) }

func (f *FS) stat(op, name string, follow bool) (fs.FileInfo, error) {
	n, err := f.find(name, follow)
	if err != nil {
		return nil, pathError(op, name, err)
	}
	return n.info(base(name)), nil
}

// ReadLink returns the target of a symbolic link.
func (f *FS) ReadLink(name string) (string, error) {
	n, err := f.find(name, false)
	if err != nil {
		return "", pathError("readlink", name, err)
	}
	target, err := f.target(n)
	return target, pathError("readlink", name, err)
}

// ReadDir lists a directory in the order of names.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := f.find(name, true)
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	list, err := f.list(n)
	return list, pathError("readdir", name, err)
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func base(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// find walks a path. follow says whether a symbolic link at its end is followed, too.
func (f *FS) find(name string, follow bool) (inode, error) {
	if !fs.ValidPath(name) {
		return inode{}, fs.ErrInvalid
	}
	trail := []uint32{rootInode} // the directories from the root to where we are
	rest, links := strings.Split(name, "/"), 0
	for len(rest) > 0 {
		dir, err := f.inode(trail[len(trail)-1])
		if err != nil {
			return inode{}, err
		}
		element := rest[0]
		rest = rest[1:]
		switch element {
		case "", ".":
			continue
		case "..":
			trail = trail[:max(1, len(trail)-1)]
			continue
		}
		number, err := f.lookup(dir, element)
		if err != nil {
			return inode{}, err
		}
		n, err := f.inode(number)
		if err != nil {
			return inode{}, err
		}
		if n.kind() != fs.ModeSymlink || len(rest) == 0 && !follow {
			trail = append(trail, number)
			continue
		}
		if links++; links > maxLinks {
			return inode{}, errors.New("too many symbolic links lead to each other")
		}
		target, err := f.target(n)
		if err != nil {
			return inode{}, err
		}
		if strings.HasPrefix(target, "/") {
			trail = trail[:1]
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return f.inode(trail[len(trail)-1])
}

func (f *FS) target(n inode) (string, error) {
	if n.kind() != fs.ModeSymlink {
		return "", fmt.Errorf("it is no symbolic link: %w", fs.ErrInvalid)
	}
	if n.size < int64(len(n.block)) && n.flags&flagExtents == 0 {
		return string(n.block[:n.size]), nil
	}
	if n.size > maxTarget {
		return "", errors.New("the symbolic link is too long; the file system is damaged")
	}
	c, err := f.content(n)
	if err != nil {
		return "", err
	}
	b := make([]byte, n.size)
	_, err = c.ReadAt(b, 0)
	return string(b), err
}

func (f *FS) lookup(dir inode, name string) (number uint32, err error) {
	err = f.scan(dir, func(entry string, n uint32, _ byte) error {
		if entry != name {
			return nil
		}
		number = n
		return fs.SkipAll
	})
	if err == nil && number == 0 {
		err = fs.ErrNotExist
	}
	return number, err
}

// fileTypes are those of directory entries; 0 is unknown.
var fileTypes = [...]fs.FileMode{fs.ModeIrregular, 0, fs.ModeDir, fs.ModeDevice | fs.ModeCharDevice, fs.ModeDevice, fs.ModeNamedPipe, fs.ModeSocket, fs.ModeSymlink}

func (f *FS) list(dir inode) ([]fs.DirEntry, error) {
	var list []fs.DirEntry
	seen := map[string]bool{}
	err := f.scan(dir, func(name string, number uint32, kind byte) error {
		if !fs.ValidPath(name) || name == "." || strings.ContainsAny(name, "/\\") || seen[name] {
			return nil // a name that a path cannot contain
		}
		seen[name] = true
		e := dirEntry{f: f, name: name, number: number}
		if f.types && kind != 0 && int(kind) < len(fileTypes) {
			e.kind = fileTypes[kind]
		} else if n, err := f.inode(number); err == nil {
			e.kind = n.kind()
		}
		list = append(list, e)
		return nil
	})
	sort.Slice(list, func(i, j int) bool { return list[i].Name() < list[j].Name() })
	return list, err
}

// scan calls each for the entries of a directory but "." and "..", until it returns fs.SkipAll. The nodes of an indexed directory's tree look like
// empty entries, so that reading linearly finds the same names.
func (f *FS) scan(dir inode, each func(name string, number uint32, kind byte) error) error {
	if dir.kind() != fs.ModeDir {
		return fs.ErrNotExist
	}
	if dir.size > maxDir {
		return errors.New("the directory has an impossible size; the file system is damaged")
	}
	c, err := f.content(dir)
	if err != nil {
		return err
	}
	b := make([]byte, f.block)
	for off := int64(0); off+f.block <= dir.size; off += f.block {
		if _, err := c.ReadAt(b, off); err != nil {
			return fmt.Errorf("the directory cannot be read: %w", err)
		}
		for rest := b; len(rest) >= 8; {
			number, length, nameLen := binary.LittleEndian.Uint32(rest), int(binary.LittleEndian.Uint16(rest[4:])), int(rest[6])
			if length < 8 || length > len(rest) || nameLen > length-8 {
				return errors.New("a directory entry has an impossible length; the file system is damaged")
			}
			name := string(rest[8 : 8+nameLen])
			if number != 0 && name != "." && name != ".." {
				switch err := each(name, number, rest[7]); {
				case errors.Is(err, fs.SkipAll):
					return nil
				case err != nil:
					return err
				}
			}
			rest = rest[length:]
		}
	}
	return nil
}

// dirEntry reads its inode only when somebody asks for more than name and type.
type dirEntry struct {
	f      *FS
	name   string
	number uint32
	kind   fs.FileMode
}

func (e dirEntry) Name() string      { return e.name }
func (e dirEntry) IsDir() bool       { return e.kind.IsDir() }
func (e dirEntry) Type() fs.FileMode { return e.kind }
func (e dirEntry) String() string    { return fs.FormatDirEntry(e) }

func (e dirEntry) Info() (fs.FileInfo, error) {
	n, err := e.f.inode(e.number)
	if err != nil {
		return nil, pathError("stat", e.name, err)
	}
	return n.info(e.name), nil
}

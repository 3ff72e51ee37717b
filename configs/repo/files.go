package repo

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// A configuration is small: what is larger is a mistake, and would cross the network once for every node.
const (
	maxBytes = 32 << 20
	maxFiles = 20000
	maxLinks = 8
)

var errTooLarge = fmt.Errorf("the configuration is too large; its states and pillars may have %d files and %d MB: keep images and packages elsewhere", maxFiles, maxBytes>>20)

// file is one file of a tree. Its bytes are read when they are needed.
type file struct {
	exec, link bool
	read       func() ([]byte, error)
}

// files is a tree, by path.
type files map[string]file

// get reads a file, through symbolic links inside the tree. A link that leads nowhere is fs.ErrNotExist.
func (all files) get(name string) (data []byte, exec bool, err error) {
	for range maxLinks {
		f, ok := all[name]
		if !ok {
			break
		}
		data, err := f.read()
		if err != nil || !f.link {
			return data, f.exec, err
		}
		if path.IsAbs(string(data)) {
			break
		}
		name = path.Join(path.Dir(name), string(data))
	}
	return nil, false, fs.ErrNotExist
}

func (all files) add(name string, f file) error {
	if len(all) >= maxFiles {
		return errTooLarge
	}
	if !fs.ValidPath(name) || strings.ContainsAny(name, "\x00\n\\") {
		return fmt.Errorf("%q is no name for a file of a configuration; rename it", name)
	}
	all[name] = f
	return nil
}

// ofCommit lists the files of a commit.
func ofCommit(c *object.Commit) (files, error) {
	tree, err := c.Tree()
	if err != nil {
		return nil, err
	}
	all := files{}
	w := object.NewTreeWalker(tree, true, nil)
	defer w.Close()
	for {
		name, entry, err := w.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if entry.Mode == filemode.Dir || entry.Mode == filemode.Submodule {
			continue
		}
		read := func() ([]byte, error) {
			f, err := tree.TreeEntryFile(&entry)
			if err != nil {
				return nil, err
			}
			if f.Size > maxBytes {
				return nil, errTooLarge
			}
			r, err := f.Reader()
			if err != nil {
				return nil, err
			}
			defer r.Close()
			return io.ReadAll(r)
		}
		if err := all.add(name, file{exec: entry.Mode == filemode.Executable, link: entry.Mode == filemode.Symlink, read: read}); err != nil {
			return nil, err
		}
	}
}

// ofDir lists the files of a working tree, without git's own.
func ofDir(root *os.Root) (files, error) {
	all := files{}
	err := fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case d.Name() == ".git", !d.Type().IsRegular() && d.Type()&fs.ModeSymlink == 0:
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link := d.Type()&fs.ModeSymlink != 0
		return all.add(name, file{exec: info.Mode()&0o100 != 0, link: link, read: func() ([]byte, error) {
			if link {
				to, err := root.Readlink(name)
				return []byte(to), err
			}
			if info.Size() > maxBytes {
				return nil, errTooLarge
			}
			return root.ReadFile(name)
		}})
	})
	return all, err
}

// ofTar lists the files of a tar.
func ofTar(r io.Reader) (files, error) {
	all, left := files{}, int64(maxBytes)
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		link := h.Typeflag == tar.TypeSymlink
		if h.Typeflag != tar.TypeReg && !link {
			continue
		}
		if left -= h.Size; left < 0 {
			return nil, errTooLarge
		}
		data := []byte(h.Linkname)
		if !link {
			if data, err = io.ReadAll(archive); err != nil {
				return nil, err
			}
		}
		if err := all.add(h.Name, file{exec: h.Mode&0o100 != 0, link: link, read: func() ([]byte, error) { return data, nil }}); err != nil {
			return nil, err
		}
	}
}

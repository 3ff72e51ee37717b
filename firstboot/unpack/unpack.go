// Package unpack writes a tar over a file system tree and nowhere else.
package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Over unpacks a tar over root: what is there under the same name is replaced, directories that are there stay as they
// are, and those that are missing are made. No path, link or not, leads out of root. It returns the number of files.
func Over(root *os.Root, r io.Reader) (int, error) {
	n := 0
	for t := tar.NewReader(r); ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("the tar of the node's files is damaged: %w", err)
		}
		if err := one(root, h, t); err != nil {
			return n, fmt.Errorf("the node's file %q cannot be written: %w", h.Name, err)
		}
	}
}

// maxFile bounds a file: a sparse one of a few bytes in the tar may claim to be any size.
const maxFile = 16 << 20

func one(root *os.Root, h *tar.Header, data io.Reader) error {
	name := path.Clean(strings.TrimPrefix(h.Name, "/"))
	if !fs.ValidPath(name) {
		return errors.New("the name leads out of the tree")
	}
	if name == "." {
		return nil
	}
	mode := fs.FileMode(h.Mode).Perm()
	if h.Typeflag == tar.TypeDir {
		return directory(root, name, mode)
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		n, err := io.Copy(f, io.LimitReader(data, maxFile+1))
		if n > maxFile {
			err = fmt.Errorf("it has more than %d bytes", maxFile)
		}
		// The mode comes after the owner: a change of owner clears set-user-ID bits.
		return errors.Join(err, f.Chown(h.Uid, h.Gid), f.Chmod(mode), f.Close())
	}
	return fmt.Errorf("it is neither a file, a directory nor a symbolic link (type %q)", h.Typeflag)
}

func directory(root *os.Root, name string, mode fs.FileMode) error {
	if info, err := root.Stat(name); err == nil && info.IsDir() {
		return nil
	}
	if err := root.MkdirAll(name, 0o755); err != nil {
		return err
	}
	return root.Chmod(name, mode)
}

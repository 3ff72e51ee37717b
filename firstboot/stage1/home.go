package stage1

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"bramble/firstboot/account"
)

// makeHome makes the user's home out of /etc/skel, unless there is one.
func makeHome(root *os.Root, u account.User) error {
	home := strings.Trim(path.Clean(u.Home), "/")
	if home == "" || home == "." {
		return nil // the account lives in /
	}
	if _, err := root.Stat(home); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.MkdirAll(home, 0o755); err != nil {
		return err
	}
	if err := errors.Join(root.Chmod(home, 0o700), root.Chown(home, u.UID, u.GID)); err != nil {
		return err
	}
	skel, err := root.OpenRoot("etc/skel")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer skel.Close()
	return fs.WalkDir(skel.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		return copyTo(root, path.Join(home, name), skel, name, d, u)
	})
}

func copyTo(root *os.Root, to string, skel *os.Root, name string, d fs.DirEntry, u account.User) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	switch {
	case d.IsDir():
		err = root.Mkdir(to, info.Mode().Perm())
	case info.Mode().IsRegular():
		var data []byte
		if data, err = skel.ReadFile(name); err == nil {
			err = root.WriteFile(to, data, info.Mode().Perm())
		}
	case info.Mode()&fs.ModeSymlink != 0:
		var target string
		if target, err = skel.Readlink(name); err == nil {
			err = root.Symlink(target, to)
		}
	default:
		return nil
	}
	if err != nil {
		return err
	}
	return root.Lchown(to, u.UID, u.GID)
}

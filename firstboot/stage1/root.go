package stage1

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"bramble/firstboot/account"
	"bramble/firstboot/block"
	"bramble/firstboot/unpack"
	"bramble/firstboot/wire"
)

// Where things are until the new root takes over.
const (
	lower   = "/lower" // the image's root, read-only
	ram     = "/ram"   // the overlay's tmpfs
	newRoot = "/root"
)

func (b *boot) root(ctx context.Context) (string, error) {
	dead := time.Duration(b.plan.DeadConn) * time.Second
	socket, size, err := block.Attach(ctx, b.plan.Root, dead)
	if errors.Is(err, block.ErrNoNBD) {
		return "", hopeless{err}
	}
	if err != nil {
		return "", err
	}
	defer socket.Close()
	if err := b.startKeeper(socket, size); err != nil {
		return "", errors.Join(err, block.Detach())
	}
	if err := mountImage(b.plan.Root.FSType); err != nil {
		b.stopKeeper()
		err = errors.Join(err, block.Detach())
		if kernelLacks(err) {
			err = hopeless{err}
		}
		return "", err
	}
	return fmt.Sprintf("%d MB of %s over NBD from %s, read-only.", size>>20, b.plan.Root.FSType, b.plan.Root.Addr), nil
}

func mountImage(fstype string) error {
	if err := os.MkdirAll(lower, 0o755); err != nil {
		return err
	}
	data := ""
	if fstype == "ext4" {
		data = "norecovery" // a journal cannot be replayed on a read-only device
	}
	if err := unix.Mount(block.Path, lower, fstype, unix.MS_RDONLY, data); err != nil {
		return fmt.Errorf("the root cannot be mounted as %s: %w", fstype, err)
	}
	return nil
}

func (b *boot) overlay(context.Context) (string, error) {
	size := b.plan.Overlay
	if size == "" {
		size = "50%"
	}
	for _, dir := range []string{ram, newRoot} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
	}
	if err := unix.Mount("tmpfs", ram, "tmpfs", 0, "mode=755,size="+size); err != nil {
		return "", fmt.Errorf("no tmpfs of the size %s for the overlay: %w", size, err)
	}
	// What is mounted is not needed under these names again: the overlay has its own hold on both.
	release := func() error {
		return errors.Join(unix.Unmount(ram, unix.MNT_DETACH), os.Remove(ram))
	}
	for _, dir := range []string{ram + "/upper", ram + "/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", errors.Join(err, release())
		}
	}
	options := "lowerdir=" + lower + ",upperdir=" + ram + "/upper,workdir=" + ram + "/work"
	if err := unix.Mount("overlay", newRoot, "overlay", 0, options); err != nil {
		err = fmt.Errorf("the overlay cannot be mounted: %w", err)
		if kernelLacks(err) {
			err = hopeless{err}
		}
		return "", errors.Join(err, release())
	}
	if err := errors.Join(release(), unix.Unmount(lower, unix.MNT_DETACH)); err != nil {
		return "", err
	}
	return fmt.Sprintf("RAM overlay of at most %s.", size), nil
}

func (b *boot) files(ctx context.Context) (string, error) {
	tar, err := b.appliance.Files(ctx, b.plan.FilesSHA)
	if err != nil {
		return "", err
	}
	root, err := os.OpenRoot(newRoot)
	if err != nil {
		return "", fmt.Errorf("the new root cannot be opened: %w", err)
	}
	defer root.Close()
	n, err := unpack.Over(root, bytes.NewReader(tar))
	if err != nil {
		return "", err
	}
	if text := b.lease.ResolvConf(); text != "" {
		if err := replace(root, "etc/resolv.conf", text, 0o644); err != nil {
			return "", fmt.Errorf("the DNS servers cannot be written: %w", err)
		}
	}
	if b.plan.User == nil {
		return fmt.Sprintf("%d files for %s, and no user.", n, b.plan.Name), nil
	}
	if err := ensureUser(root, *b.plan.User); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d files for %s; %s can log in.", n, b.plan.Name, b.plan.User.Name), nil
}

// replace puts a file in the place of whatever has its name: resolv.conf often is a link.
func replace(root *os.Root, name, text string, mode fs.FileMode) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return root.WriteFile(name, []byte(text), mode)
}

// ensureUser makes the user able to log in, with a home.
func ensureUser(root *os.Root, u wire.User) error {
	var f account.Files
	for name, text := range map[string]*string{"passwd": &f.Passwd, "shadow": &f.Shadow, "group": &f.Group, "gshadow": &f.GShadow} {
		data, err := root.ReadFile("etc/" + name)
		if err != nil && (name != "gshadow" || !errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("the image's users cannot be read: %w", err)
		}
		*text = string(data)
	}
	after, user, err := account.Ensure(f, u)
	if err != nil {
		return fmt.Errorf("the user %s cannot be made: %w", u.Name, err)
	}
	for _, file := range []struct{ name, old, new string }{
		{"passwd", f.Passwd, after.Passwd}, {"shadow", f.Shadow, after.Shadow}, {"group", f.Group, after.Group}, {"gshadow", f.GShadow, after.GShadow},
	} {
		if file.old == file.new {
			continue
		}
		// Written in place, it keeps its owner and mode.
		if err := root.WriteFile("etc/"+file.name, []byte(file.new), 0o600); err != nil {
			return fmt.Errorf("the user %s cannot be made: %w", u.Name, err)
		}
	}
	if err := makeHome(root, user); err != nil {
		return fmt.Errorf("the home of %s cannot be made: %w", u.Name, err)
	}
	return nil
}

package stage1

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"bramble/firstboot/wire"
)

// handover prepares the running system, and is reported before the old root is gone.
func (b *boot) handover(context.Context) (string, error) {
	self, err := os.ReadFile("/init")
	if err != nil {
		return "", fmt.Errorf("stage 1 cannot read itself: %w", err)
	}
	if err := os.MkdirAll(path.Dir(wire.Stage1), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(wire.Stage1, self, 0o755); err != nil {
		return "", fmt.Errorf("stage 1 cannot leave itself to the running system: %w", err)
	}
	if _, err := os.Lstat(path.Join(newRoot, b.init())); err != nil {
		return "", fmt.Errorf("the image has no %s to hand over to: %w", b.init(), err)
	}
	return fmt.Sprintf("%s takes over, %v after the kernel started.", b.init(), uptime()), nil
}

func (b *boot) init() string {
	if b.plan.Init != "" {
		return b.plan.Init
	}
	return "/sbin/init"
}

func uptime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano()).Round(10 * time.Millisecond)
}

// enter makes the new root the root and becomes its init. It returns only with an error.
func (b *boot) enter() error {
	flush, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	b.reporter.Flush(flush)
	_ = os.WriteFile(panicFile, b.panics, 0)
	for _, m := range kernelMounts {
		if err := unix.Mount(m.target, newRoot+m.target, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("%s cannot be moved to the new root: %w", m.target, err)
		}
	}
	if err := unix.Chdir(newRoot); err != nil {
		return fmt.Errorf("the new root cannot be entered: %w", err)
	}
	// The keeper runs on from memory: what it has mapped stays there until it ends.
	if err := empty("/"); err != nil {
		b.console.Line("%s", sentence(err))
	}
	if err := errors.Join(unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), unix.Chdir("/")); err != nil {
		return fmt.Errorf("the new root cannot be made the root: %w", err)
	}
	// What the kernel gives its init.
	err := unix.Exec(b.init(), []string{b.init()}, []string{"HOME=/", "TERM=linux"})
	return fmt.Errorf("%s does not start: %w", b.init(), err)
}

// empty removes the initramfs's files, which are RAM, and follows no mount.
func empty(dir string) error {
	var here unix.Stat_t
	if err := unix.Lstat(dir, &here); err != nil {
		return err
	}
	var directories []string
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		var s unix.Stat_t
		switch {
		case err != nil:
			return err
		case unix.Lstat(name, &s) != nil:
			return nil
		case s.Dev != here.Dev && d.IsDir():
			return fs.SkipDir
		case s.Dev != here.Dev:
			return nil
		case d.IsDir():
			directories = append(directories, name)
			return nil
		}
		return os.Remove(name)
	})
	for i := len(directories) - 1; i > 0; i-- {
		_ = os.Remove(directories[i]) // not if it carries a mount
	}
	if err != nil {
		return fmt.Errorf("the initramfs keeps its memory: %w", err)
	}
	return nil
}

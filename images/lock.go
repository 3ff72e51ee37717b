package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

var errLocked = errors.New("somebody else is adding an image")

// tryLock takes the catalogue's lock, which the kernel drops when the process ends.
func (c *Catalogue) tryLock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the lock of the images cannot be opened: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, fmt.Errorf("the images cannot be locked: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

const lockPoll = 200 * time.Millisecond

// lock waits for the lock.
func (c *Catalogue) lock(ctx context.Context, waiting func()) (unlock func(), err error) {
	for {
		unlock, err := c.tryLock()
		if !errors.Is(err, errLocked) {
			return unlock, err
		}
		waiting()
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("stopped waiting for another add of an image: %w", ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// syncDir makes renames in a directory last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("%s cannot be written to disk: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("%s cannot be written to disk: %w", dir, err)
	}
	return nil
}

// free is the number of bytes that a directory's file system has left for us.
func free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("the free space of %s cannot be found: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil //nolint:unconvert // int64 on some platforms, int32 on others
}

// spare is kept free beside the image, so that the appliance goes on working.
const spare = 64 << 20

// room returns an error if need more bytes do not fit.
func (c *Catalogue) room(need int64) error {
	have, err := free(c.dir)
	if err != nil {
		return err
	}
	if have < need+spare {
		return fmt.Errorf("the image needs %s, but the disk of %s has only %s free; make room there, or keep the state directory on another disk",
			Bytes(need+spare), c.dir, Bytes(have))
	}
	return nil
}

// Bytes writes a size for people, like 2.8 GB.
func Bytes(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d bytes", n)
	}
	value, names := float64(n)/unit, []string{"kB", "MB", "GB"}
	for len(names) > 1 && value >= unit {
		value, names = value/unit, names[1:]
	}
	return fmt.Sprintf("%.1f %s", value, names[0])
}

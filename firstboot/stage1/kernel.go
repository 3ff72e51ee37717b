package stage1

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const noctty = unix.O_NOCTTY

// kernelMounts are the file systems that the kernel itself provides, with systemd's own options for /run.
var kernelMounts = []struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}{
	{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=755"},
	{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_STRICTATIME, "mode=755,size=20%,nr_inodes=800k"},
}

// mountKernel mounts /proc, /sys, /dev and /run. A kernel may have mounted /dev itself.
func mountKernel() error {
	for _, m := range kernelMounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return fmt.Errorf("no directory to mount %s on: %w", m.target, err)
		}
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("%s cannot be mounted: %w", m.target, err)
		}
	}
	return nil
}

// parameters of modules. One block device is enough, and needs no look for partitions.
func parameters(module string) string {
	if module == "nbd" {
		return "nbds_max=1 max_part=0"
	}
	return ""
}

// loadModules loads the modules that the initramfs has, in the order that it names. Modules without hardware are no
// error; what else fails is told, since the boot may well do without.
func loadModules(dir string) (loaded int, failed error) {
	order, err := os.ReadFile(path.Join(dir, "order"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // a kernel with everything built in
	}
	if err != nil {
		return 0, fmt.Errorf("the list of modules cannot be read: %w", err)
	}
	var errs []error
	for _, file := range strings.Fields(string(order)) {
		switch err := loadModule(path.Join(dir, file)); {
		case err == nil:
			loaded++
		case errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENODEV):
		default:
			errs = append(errs, fmt.Errorf("module %s does not load: %w", file, err))
		}
	}
	return loaded, errors.Join(errs...)
}

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	name, suffix, _ := strings.Cut(path.Base(file), ".ko")
	flags := 0
	if suffix != "" { // .ko.xz: the kernel unpacks it
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	return unix.FinitModule(int(f.Fd()), parameters(name), flags)
}

// kernelRelease is what uname says.
func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

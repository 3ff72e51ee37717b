package images

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"bramble/images/ext4"
	"bramble/images/fat"
	"bramble/images/initramfs"
	"bramble/images/partition"
)

// Image is an open image. It may be used by several goroutines, until Close.
type Image struct {
	Info  // only Size is set when the image is of no catalogue
	Table partition.Table

	file  *os.File
	boot  *fat.FS
	root  Section
	files *ext4.FS // of the root; nil when it is no ext4
	why   error    // why files is nil
}

// Section is a part of an image file, to be served as a block device.
type Section struct {
	io.ReaderAt          // the section's bytes, from 0
	File        *os.File // the whole image, open for reading; it is closed with the Image
	Offset      int64    // of the section in File, in bytes
	Size        int64    // in bytes
	FSType      string   // as mount names it: "ext4", "squashfs", "erofs", "btrfs"; "" when unknown
}

// Open opens an image of the catalogue by ID or name. The caller closes it.
func (c *Catalogue) Open(name string) (*Image, error) {
	info, err := c.Get(name)
	if err != nil {
		return nil, err
	}
	img, err := OpenFile(c.Path(info.ID))
	if err != nil {
		return nil, fmt.Errorf("image %s cannot be used: %w", name, err)
	}
	img.Info = info
	return img, nil
}

// OpenFile opens an unpacked image that is in no catalogue.
func OpenFile(path string) (*Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the image cannot be opened: %w", err)
	}
	img := &Image{file: f}
	if err := img.load(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return img, nil
}

// Close closes the file. Open files and sections of the image fail from then on.
func (i *Image) Close() error { return i.file.Close() }

// load finds the boot partition, which is the first FAT, and the root, which is the biggest other file system.
func (i *Image) load() error {
	st, err := i.file.Stat()
	if err != nil {
		return fmt.Errorf("the image cannot be read: %w", err)
	}
	i.Size = st.Size()
	if i.Table, err = partition.Read(i.file, i.Size); err != nil {
		return fmt.Errorf("the image has no partitions that can be used: %w", err)
	}
	for _, p := range i.Table.Parts {
		part := p.Section(i.file)
		if i.boot == nil {
			boot, err := fat.New(part, p.Size)
			if err == nil {
				i.boot = boot
				continue
			}
			if !errors.Is(err, fat.ErrNotFAT) {
				return fmt.Errorf("partition %d cannot be read: %w", p.Number, err)
			}
		}
		if kind := fsType(part); kind != "" && kind != "vfat" && p.Size > i.root.Size {
			i.root = Section{part, i.file, p.Offset, p.Size, kind}
		}
	}
	if i.boot == nil {
		return errors.New("the image has no FAT partition for the firmware; is it an image for Raspberry Pis?")
	}
	if i.root.Size == 0 {
		return errors.New("the image has no partition with a root file system; is it an image for Raspberry Pis?")
	}
	i.why = fmt.Errorf("the root file system is %s, and modules can only be taken from ext4", i.root.FSType)
	if i.root.FSType == "ext4" {
		i.files, i.why = ext4.New(i.root, i.root.Size)
	}
	return nil
}

// fsType knows file systems by their magic numbers.
func fsType(r io.ReaderAt) string {
	has := func(off int64, magic string) bool {
		b := make([]byte, len(magic))
		_, err := r.ReadAt(b, off)
		return err == nil && string(b) == magic
	}
	switch {
	case has(1080, "\x53\xef"):
		return "ext4"
	case has(0, "hsqs"):
		return "squashfs"
	case has(1024, "\xe2\xe1\xf5\xe0"):
		return "erofs"
	case has(0x10040, "_BHRfS_M"):
		return "btrfs"
	case has(1024, "\x10\x20\xf5\xf2"):
		return "f2fs"
	case has(510, "\x55\xaa") && (has(82, "FAT") || has(54, "FAT")):
		return "vfat"
	}
	return ""
}

// Boot is the FAT partition with firmware, kernel and device trees. Its files are io.ReaderAt and io.Seeker.
func (i *Image) Boot() fs.FS { return i.boot }

// Root is the partition with the root file system, for the block export.
func (i *Image) Root() Section { return i.root }

// Files reads files of the root file system, as far as package ext4 can.
func (i *Image) Files() (fs.FS, error) {
	if i.files == nil {
		return nil, i.why
	}
	return i.files, nil
}

// Modules is the folder /lib/modules of the root, for package initramfs.
func (i *Image) Modules() (fs.FS, error) {
	files, err := i.Files()
	if err != nil {
		return nil, fmt.Errorf("the image's kernel modules cannot be read: %w", err)
	}
	return fs.Sub(files, "lib/modules")
}

// Release is the release of a kernel file of the boot partition, like kernel8.img: the name of its directory in
// Modules. When the image has modules for one kernel only, it is that one; otherwise the kernel itself is asked.
func (i *Image) Release(kernel string) (string, error) {
	releases, err := i.releases()
	if err != nil {
		return "", err
	}
	if len(releases) == 1 {
		return releases[0], nil
	}
	f, err := i.boot.Open(kernel)
	if err != nil {
		return "", fmt.Errorf("the image has no kernel %s: %w", kernel, err)
	}
	defer f.Close()
	release, err := initramfs.KernelRelease(f)
	if err != nil {
		return "", fmt.Errorf("the version of %s cannot be found: %w", kernel, err)
	}
	for _, r := range releases {
		if r == release {
			return r, nil
		}
	}
	return "", fmt.Errorf("%s is Linux %s, but the image has modules only for %q", kernel, release, releases)
}

// releases lists the kernels that the image has modules for.
func (i *Image) releases() ([]string, error) {
	modules, err := i.Modules()
	if err != nil {
		return nil, err
	}
	found, err := fs.Glob(modules, "*/modules.dep")
	if err == nil && found == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("the image has no kernel modules in /lib/modules: %w", err)
	}
	for n, path := range found {
		found[n] = path[:len(path)-len("/modules.dep")]
	}
	return found, nil
}

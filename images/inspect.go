package images

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"bramble/images/fat"
	"bramble/images/initramfs"
	"bramble/images/partition"
)

// Report is what is inside of an image.
type Report struct {
	Info
	Scheme   string   // "mbr" or "gpt"
	Parts    []Part   //
	OS       string   // as /etc/os-release calls it: Debian GNU/Linux 13 (trixie)
	Kernels  []Kernel // of the boot partition
	Modules  []string // kernel releases that the root has modules for
	Boot     []File   // the boot partition's files, without those in directories
	Problems []string // sentences: why it might not boot, or what could not be found out
}

// Part is a partition and its file system.
type Part struct {
	partition.Part
	FSType string
	Label  string
}

// Kernel is a kernel file of the boot partition.
type Kernel struct {
	File    string
	Release string // as uname -r; "" when it could not be found out
}

// File is a file of the boot partition.
type File struct {
	Name string
	Size int64
}

// Inspect looks into an image of the catalogue.
func (c *Catalogue) Inspect(name string) (Report, error) {
	img, err := c.Open(name)
	if err != nil {
		return Report{}, err
	}
	defer img.Close()
	return img.Inspect(), nil
}

// Inspect looks into the image. What cannot be read is told in Problems.
func (i *Image) Inspect() Report {
	r := Report{Info: i.Info, Scheme: i.Table.Scheme}
	problem := func(err error) {
		if err != nil {
			r.Problems = append(r.Problems, err.Error())
		}
	}
	for _, p := range i.Table.Parts {
		section := p.Section(i.file)
		part := Part{Part: p, FSType: fsType(section)}
		if f, err := fat.New(section, p.Size); err == nil {
			part.Label = f.Label()
		} else if p.Offset == i.root.Offset && i.files != nil {
			part.Label = i.files.Label()
		}
		r.Parts = append(r.Parts, part)
	}
	entries, err := i.boot.ReadDir(".")
	problem(err)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.IsDir() {
			continue
		}
		r.Boot = append(r.Boot, File{e.Name(), info.Size()})
		if strings.HasPrefix(e.Name(), "kernel") && strings.HasSuffix(e.Name(), ".img") || strings.HasPrefix(e.Name(), "vmlinuz") {
			release, err := i.kernelRelease(e.Name())
			problem(err)
			r.Kernels = append(r.Kernels, Kernel{e.Name(), release})
		}
	}
	r.Modules, err = i.releases()
	problem(err)
	r.Architecture, err = i.architecture()
	problem(err)
	problem(i.bootable(r.Architecture))
	if i.files != nil {
		r.OS, err = osName(i.files)
		problem(err)
	}
	return r
}

func (i *Image) kernelRelease(name string) (string, error) {
	f, err := i.boot.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	release, err := initramfs.KernelRelease(f)
	if err != nil {
		return "", fmt.Errorf("the version of %s cannot be found: %w", name, err)
	}
	return release, nil
}

// osName is PRETTY_NAME of os-release(5).
func osName(files fs.FS) (string, error) {
	f, err := files.Open("etc/os-release")
	if err != nil {
		return "", fmt.Errorf("the name of the operating system cannot be found: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(io.LimitReader(f, 64<<10)); s.Scan(); {
		if name, ok := strings.CutPrefix(s.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"'`), nil
		}
	}
	return "", errors.New("the operating system does not say its name in /etc/os-release")
}

// machines are the values of e_machine in an ELF header, by Debian's names.
var machines = map[uint16]string{3: "i386", 40: "armhf", 62: "amd64", 183: "arm64", 243: "riscv64"}

// programs are those of which every system has one.
var programs = []string{"sbin/init", "bin/sh", "usr/bin/env", "usr/bin/true"}

// architecture is that of the root's programs. It is "" without an error when the root cannot be read here.
func (i *Image) architecture() (string, error) {
	if i.files == nil {
		return "", nil
	}
	for _, name := range programs {
		f, err := i.files.Open(name)
		if err != nil {
			continue
		}
		var header [20]byte
		_, err = io.ReadFull(f, header[:])
		_ = f.Close()
		if err != nil || string(header[:4]) != "\x7fELF" {
			continue
		}
		machine := binary.LittleEndian.Uint16(header[18:])
		if name, ok := machines[machine]; ok {
			return name, nil
		}
		return "", fmt.Errorf("the image's programs are for an unknown machine (ELF number %d)", machine)
	}
	return "", fmt.Errorf("the root file system has none of the programs %s; is it a root file system?", strings.Join(programs, ", "))
}

// bootable returns an error if a 64-bit Raspberry Pi cannot boot the image over the network.
func (i *Image) bootable(architecture string) error {
	_, err := i.boot.Stat("kernel8.img")
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case architecture == "armhf":
		return ErrThirtyTwoBit
	case architecture != "" && architecture != "arm64":
		return fmt.Errorf("the image is for %s, not for Raspberry Pis", architecture)
	case missing:
		if _, err := i.boot.Stat("kernel7.img"); err == nil {
			return ErrThirtyTwoBit
		}
		return errors.New("the boot partition has no kernel8.img, which the 64-bit Raspberry Pis boot; is it an image for them?")
	case err != nil:
		return fmt.Errorf("kernel8.img cannot be found: %w", err)
	}
	return nil
}

// usable opens an image that is about to enter the catalogue and tells its architecture.
func usable(path string) (architecture string, err error) {
	img, err := OpenFile(path)
	if err != nil {
		return "", err
	}
	defer img.Close()
	if architecture, err = img.architecture(); err != nil {
		return "", err
	}
	if _, err := img.Modules(); err != nil {
		return "", err
	}
	return architecture, img.bootable(architecture)
}

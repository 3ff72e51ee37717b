// Package initramfs builds the archive that the kernel unpacks into its first root: a program as /init, the kernel
// modules that it needs, and the order to load them in. The result depends on its inputs alone, byte for byte.
//
// The modules are unpacked into /modules under their base names; /modules/order has one file name a line, each after
// all that it depends on. Unpacked modules load on every kernel, and the archive is smaller when it is compressed
// as one.
package initramfs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"

	"bramble/images/internal/unpack"
)

// Dir is where the modules are, and Order the file with the order to load them in.
const (
	Dir   = "/modules"
	Order = "/modules/order"
)

// Spec says what goes into an initramfs.
type Spec struct {
	Init    []byte   // the program /init, static
	Modules fs.FS    // the folder /lib/modules: one directory for each kernel release
	Release string   // of the kernel that will run, like 6.12.47+rpt-rpi-v8
	Need    []string // modules by name or alias; it is an error if the kernel has one neither built in nor as a file
	Want    []string // the same, but left out if the kernel does not have them
}

// Build makes the initramfs, compressed with zstd, which kernels understand since 5.9.
func Build(ctx context.Context, s Spec) ([]byte, error) {
	paths, err := Select(s)
	if err != nil {
		return nil, err
	}
	plain, err := pack(ctx, s, paths)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(zstdWindow))
	if err != nil {
		return nil, fmt.Errorf("the zstd compressor does not start: %w", err)
	}
	defer z.Close()
	return z.EncodeAll(plain, nil), nil
}

// zstdWindow is the greatest that every decompressor must accept (RFC 8878, section 3.1.1.1.2).
const zstdWindow = 8 << 20

// Select lists the module files that Build would pack, as paths below the release's directory, in load order.
func Select(s Spec) ([]string, error) {
	x, err := readIndex(s.Modules, s.Release)
	if err != nil {
		return nil, err
	}
	var names, missing []string
	for i, want := range append(append([]string(nil), s.Need...), s.Want...) {
		found, known := x.resolve(want)
		if !known && i < len(s.Need) {
			missing = append(missing, want)
		}
		names = append(names, found...)
	}
	if missing != nil {
		return nil, fmt.Errorf("kernel %s has no module %s, and it is not built in either; choose an image whose kernel has it",
			s.Release, strings.Join(missing, ", "))
	}
	return x.order(names), nil
}

func pack(ctx context.Context, s Spec, paths []string) ([]byte, error) {
	var a archive
	a.add("init", modeProgram, s.Init)
	a.add(Dir[1:], modeDir, nil)
	var order bytes.Buffer
	for _, p := range paths {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("the initramfs for kernel %s was not finished: %w", s.Release, err)
		}
		data, err := readModule(s.Modules, path.Join(s.Release, p))
		if err != nil {
			return nil, fmt.Errorf("module %s of kernel %s cannot be read: %w", p, s.Release, err)
		}
		base, _, _ := strings.Cut(path.Base(p), ".ko")
		base += ".ko"
		a.add(path.Join(Dir[1:], base), modeFile, data)
		fmt.Fprintln(&order, base)
	}
	a.add(Order[1:], modeFile, order.Bytes())
	return a.bytes(), nil
}

// maxModule is far above the biggest module (amdgpu has about 20 MiB).
const maxModule = 128 << 20

func readModule(fsys fs.FS, name string) ([]byte, error) {
	packed, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	r, err := unpack.Reader(bytes.NewReader(packed), unpack.Sniff(packed))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxModule || !bytes.HasPrefix(data, []byte("\x7fELF")) {
		return nil, fmt.Errorf("this is no kernel module of at most %d bytes", maxModule)
	}
	return data, nil
}

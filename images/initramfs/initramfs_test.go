package initramfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const release = "6.12.47+rpt-rpi-v8"

// kernel is a folder /lib/modules like that of a small kernel.
func kernel() fstest.MapFS {
	m := fstest.MapFS{}
	put := func(name, data string) { m[release+"/"+name] = &fstest.MapFile{Data: []byte(data)} }
	put("modules.dep", `kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/jbd2/jbd2.ko
kernel/fs/jbd2/jbd2.ko:
kernel/lib/crc16.ko:
kernel/crypto/crc32c_generic.ko:
kernel/crypto/crc32c-neon.ko:
kernel/fs/overlayfs/overlay.ko:
kernel/drivers/block/nbd.ko:
kernel/drivers/net/usb/smsc95xx.ko: kernel/drivers/net/usb/usbnet.ko kernel/drivers/net/mii.ko kernel/drivers/net/phy/phy-core.ko
kernel/drivers/net/usb/usbnet.ko: kernel/drivers/net/mii.ko
kernel/drivers/net/mii.ko:
kernel/sound/first.ko:
kernel/sound/second.ko:
`)
	put("modules.builtin", "kernel/drivers/net/usb/lan78xx.ko\nkernel/drivers/net/phy/phy-core.ko\n")
	put("modules.softdep", "# from the modules\nsoftdep ext4 pre: crypto-crc32c absent\nsoftdep first ignored post: second pre: first\n")
	put("modules.alias", "alias pci:v00001AF4d* nbd\nalias crypto-crc32c crc32c_generic\nalias crypto-crc32c crc32c_neon\nalias fs-ext4 ext4\nalias eth-usb lan78xx\n")
	for line := range strings.Lines(string(m[release+"/modules.dep"].Data)) {
		name, _, _ := strings.Cut(line, ":")
		put(name, "\x7fELF "+strings.Repeat(name, 50))
	}
	return m
}

func TestSelect(t *testing.T) {
	for _, c := range []struct {
		name       string
		need, want []string
		paths      []string // base names
		err        string
	}{
		{name: "alone", need: []string{"nbd"}, paths: []string{"nbd"}},
		{name: "dependencies first, soft ones by alias, absent ones not", need: []string{"ext4"},
			paths: []string{"crc16", "jbd2", "crc32c_generic", "crc32c-neon", "ext4"}},
		{name: "each once, dashes are underscores", need: []string{"crc32c_neon", "ext4", "ext4"},
			paths: []string{"crc32c-neon", "crc16", "jbd2", "crc32c_generic", "ext4"}},
		{name: "by alias", need: []string{"fs-ext4"}, paths: []string{"crc16", "jbd2", "crc32c_generic", "crc32c-neon", "ext4"}},
		{name: "built in", need: []string{"lan78xx", "eth-usb"}},
		{name: "a built-in dependency", need: []string{"smsc95xx"}, paths: []string{"mii", "usbnet", "smsc95xx"}},
		{name: "a circle of soft dependencies", need: []string{"first"}, paths: []string{"first", "second"}},
		{name: "wanted only", need: []string{"nbd"}, want: []string{"virtio_net", "overlay"}, paths: []string{"nbd", "overlay"}},
		{name: "missing", need: []string{"nbd", "erofs", "bcache"}, err: "no module erofs, bcache"},
	} {
		t.Run(c.name, func(t *testing.T) {
			paths, err := Select(Spec{Modules: kernel(), Release: release, Need: c.need, Want: c.want})
			if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("err = %v, want %q", err, c.err)
			}
			var got []string
			for _, p := range paths {
				got = append(got, strings.TrimSuffix(filepath.Base(p), ".ko"))
			}
			if d := cmp.Diff(c.paths, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
	if _, err := Select(Spec{Modules: kernel(), Release: "5.10"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another release: %v, want fs.ErrNotExist", err)
	}
}

func run(t *testing.T, dir string, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is not installed; run lab/setup", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return out
}

// TestBuild has zstd and cpio unpack what Build made, once from plain modules and once from compressed ones.
func TestBuild(t *testing.T) {
	s := Spec{Init: []byte("\x7fELF init"), Modules: kernel(), Release: release, Need: []string{"ext4", "nbd"}}
	first, err := Build(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	plain := run(t, "", first, "zstd", "-dc")
	if got, want := string(run(t, "", plain, "cpio", "-t", "--quiet")),
		"init\nmodules\nmodules/crc16.ko\nmodules/jbd2.ko\nmodules/crc32c_generic.ko\nmodules/crc32c-neon.ko\nmodules/ext4.ko\nmodules/nbd.ko\nmodules/order\n"; got != want {
		t.Errorf("cpio lists\n%swant\n%s", got, want)
	}
	dir := t.TempDir()
	run(t, dir, plain, "cpio", "-i", "--quiet")
	for name, want := range map[string]string{
		"init":              "\x7fELF init",
		"modules/order":     "crc16.ko\njbd2.ko\ncrc32c_generic.ko\ncrc32c-neon.ko\next4.ko\nnbd.ko\n",
		"modules/ext4.ko":   string(s.Modules.(fstest.MapFS)[release+"/kernel/fs/ext4/ext4.ko"].Data),
		"modules/crc16.ko":  string(s.Modules.(fstest.MapFS)[release+"/kernel/lib/crc16.ko"].Data),
		"modules/absent.ko": "",
	} {
		if got, _ := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "init")); err != nil || st.Mode() != 0o755 {
		t.Errorf("init: %v, %v; want mode 755", st.Mode(), err)
	}

	packed := kernel()
	for _, compressor := range []struct{ program, ending string }{{"xz", ".xz"}, {"zstd", ".zst"}, {"gzip", ".gz"}} {
		m := fstest.MapFS{}
		for name, file := range packed {
			if strings.HasSuffix(name, ".ko") {
				m[name+compressor.ending] = &fstest.MapFile{Data: run(t, "", file.Data, compressor.program, "-c")}
			} else {
				m[name] = file
			}
		}
		m[release+"/modules.dep"] = &fstest.MapFile{Data: bytes.ReplaceAll(packed[release+"/modules.dep"].Data, []byte(".ko"), []byte(".ko"+compressor.ending))}
		s.Modules = m
		again, err := Build(context.Background(), s)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, first) {
			t.Errorf("modules compressed with %s give another initramfs than plain ones", compressor.program)
		}
	}
}

func TestBuildErrors(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Build(ctx, Spec{Modules: kernel(), Release: release, Need: []string{"nbd"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	m := kernel()
	m[release+"/kernel/drivers/block/nbd.ko"].Data = []byte("text")
	if _, err := Build(context.Background(), Spec{Modules: m, Release: release, Need: []string{"nbd"}}); err == nil || !strings.Contains(err.Error(), "nbd.ko") {
		t.Errorf("text for a module: %v, want an error that names the file", err)
	}
	delete(m, release+"/kernel/drivers/block/nbd.ko")
	if _, err := Build(context.Background(), Spec{Modules: m, Release: release, Need: []string{"nbd"}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v, want fs.ErrNotExist", err)
	}
}

// image is a plain kernel image for the tests.
var image = append(bytes.Repeat([]byte("code Linux version %s "), 5000), []byte("Linux version 6.12.47+rpt-rpi-v8 (serge@raspberrypi.com) (aarch64-linux-gnu-gcc-14)\n")...)

func TestKernelRelease(t *testing.T) {
	zipped := run(t, "", image, "gzip", "-c")
	// An EFI zboot image: "MZ", the magic, offset and size of the payload, its compression.
	zboot := make([]byte, 64, 64+len(zipped))
	copy(zboot, "MZ\x00\x00zimg")
	binary.LittleEndian.PutUint32(zboot[8:], 64)
	binary.LittleEndian.PutUint32(zboot[12:], uint32(len(zipped)))
	copy(zboot[24:], "gzip")
	for name, data := range map[string][]byte{"plain": image, "gzip": zipped, "zstd": run(t, "", image, "zstd", "-qc"), "zboot": append(zboot, zipped...)} {
		if got, err := KernelRelease(bytes.NewReader(data)); got != release || err != nil {
			t.Errorf("%s: %q, %v, want %q", name, got, err, release)
		}
	}
	for name, data := range map[string][]byte{"empty": nil, "no version": image[:1000], "cut off": zipped[:len(zipped)/2]} {
		if got, err := KernelRelease(bytes.NewReader(data)); err == nil {
			t.Errorf("%s: %q, want an error", name, got)
		}
	}
}

func FuzzSelect(f *testing.F) {
	m := kernel()
	f.Add(string(m[release+"/modules.dep"].Data), string(m[release+"/modules.builtin"].Data), string(m[release+"/modules.softdep"].Data), string(m[release+"/modules.alias"].Data))
	f.Add("a.ko: b.ko\nb.ko: a.ko\n", "", "softdep a pre: b post: a", "alias b a")
	f.Fuzz(func(t *testing.T, dep, builtin, softdep, alias string) {
		m := fstest.MapFS{}
		for name, data := range map[string]string{"dep": dep, "builtin": builtin, "softdep": softdep, "alias": alias} {
			m[release+"/modules."+name] = &fstest.MapFile{Data: []byte(data)}
		}
		paths, err := Select(Spec{Modules: m, Release: release, Need: []string{"a"}, Want: []string{"b", "ext4", "fs-ext4", "smsc95xx"}})
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, p := range paths {
			if seen[p] {
				t.Fatalf("%s is in the list twice", p)
			}
			seen[p] = true
		}
	})
}

func FuzzKernelRelease(f *testing.F) {
	f.Add(image[len(image)-2000:])
	f.Add([]byte("MZ\x00\x00zimg\xff\xff\xff\xff\x00\x00\x00\x00"))
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		release, err := KernelRelease(bytes.NewReader(data))
		if err == nil && (release == "" || strings.ContainsAny(release, " ()")) {
			t.Errorf("release %q", release)
		}
	})
}

package fat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
)

// tool runs a program that the tests check this package against.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is not installed; run lab/setup", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=1", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

type layout struct {
	name    string
	size    int64
	args    []string
	kind    int
	cluster int64
}

var layouts = []layout{
	{"fat12, 512", 1440 << 10, []string{"-F", "12", "-s", "1"}, 12, 512},
	{"fat12, 4096", 8 << 20, []string{"-F", "12", "-s", "8"}, 12, 4096},
	{"fat16, 512", 8 << 20, []string{"-F", "16", "-s", "1"}, 16, 512},
	{"fat16, 2048", 32 << 20, []string{"-F", "16", "-s", "4"}, 16, 2048},
	{"fat32, 512", 40 << 20, []string{"-F", "32", "-s", "1"}, 32, 512},
	{"fat32, 4096", 300 << 20, []string{"-F", "32", "-s", "8"}, 32, 4096},
	{"fat32, 32768", 2200 << 20, []string{"-F", "32", "-s", "64"}, 32, 32768},
	{"fat16, sector 2048", 32 << 20, []string{"-F", "16", "-S", "2048", "-s", "1"}, 16, 2048},
	{"fat32, one fat", 36 << 20, []string{"-F", "32", "-s", "1", "-f", "1"}, 32, 512},
}

var names = []string{
	"kernel8.img", "config.txt", "CMDLINE.TXT", "README", "issue.txt", "empty", "exactly512", "a.b.c",
	"bcm2710-rpi-3-b-plus.dtb", "This is a long name with thirteen or more letters, twice over and again.text",
	"grüße.txt", "日本語のファイル.txt", "thirteen.lett", "UPPER.low", "low.UPP", "x" + strings.Repeat("y", 200),
	"overlays/vc4-kms-v3d.dtbo", "overlays/overlay_map.dtb", "overlays/deep/er/still/file",
}

// tree is what the tests put on every file system.
func tree(seed uint64) map[string][]byte {
	rng := rand.New(rand.NewPCG(seed, 0))
	files := map[string][]byte{}
	for _, name := range names {
		size := rng.IntN(20000)
		switch name {
		case "empty":
			size = 0
		case "exactly512":
			size = 512
		case "kernel8.img":
			size = 100000
		}
		files[name] = randomBytes(rng, size)
	}
	for i := range 120 { // a directory of many clusters
		files[fmt.Sprintf("overlays/overlay-number-%03d.dtbo", i)] = []byte(fmt.Sprint(i))
	}
	return files
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// mkfs makes a file system with files in it, some of them fragmented, and has fsck.fat approve of it.
func mkfs(t testing.TB, l layout, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	img := filepath.Join(dir, "fat.img")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, l.size); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkfs.fat", append(append([]string{"-n", "BOOTFS"}, l.args...), img)...)
	src := filepath.Join(dir, "src")
	for name, data := range files {
		path := filepath.Join(src, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Holes between small files, so that what follows is scattered over them.
	var crumbs []string
	for i := range 24 {
		path := filepath.Join(dir, fmt.Sprintf("crumb%02d", i))
		if err := os.WriteFile(path, make([]byte, 5000), 0o600); err != nil {
			t.Fatal(err)
		}
		crumbs = append(crumbs, path)
	}
	tool(t, "mcopy", append(append([]string{"-i", img}, crumbs...), "::")...)
	for i := 0; i < len(crumbs); i += 2 {
		tool(t, "mdel", "-i", img, "::"+filepath.Base(crumbs[i]))
	}
	top, err := filepath.Glob(filepath.Join(src, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(top) > 0 {
		tool(t, "mcopy", append(append([]string{"-s", "-i", img}, top...), "::")...)
	}
	for i := 1; i < len(crumbs); i += 2 {
		tool(t, "mdel", "-i", img, "::"+filepath.Base(crumbs[i]))
	}
	tool(t, "fsck.fat", "-n", img)
	return img
}

func open(t testing.TB, img string) *FS {
	t.Helper()
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := New(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	return fsys
}

func TestAgainstMtools(t *testing.T) {
	for i, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			files := tree(uint64(i))
			img := mkfs(t, l, files)
			fsys := open(t, img)
			if fsys.Kind() != l.kind || fsys.cluster != l.cluster || fsys.Label() != "BOOTFS" {
				t.Errorf("FAT%d with clusters of %d, label %q; want FAT%d, %d, BOOTFS", fsys.Kind(), fsys.cluster, fsys.Label(), l.kind, l.cluster)
			}
			var all []string
			for name, want := range files {
				all = append(all, name)
				got, err := fs.ReadFile(fsys, name)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, %v; want the %d that were written", name, len(got), err, len(want))
				}
			}
			count := 0
			if err := fs.WalkDir(fsys, ".", func(_ string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					count++
				}
				return err
			}); err != nil || count != len(files) {
				t.Errorf("found %d files, %v; %d were written", count, err, len(files))
			}
			if l.cluster != 512 { // TestFS reads byte by byte; one layout of each kind is enough
				return
			}
			if err := fstest.TestFS(fsys, all...); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFragmentsAndSeeks(t *testing.T) {
	l := layouts[2]
	files := map[string][]byte{"kernel8.img": randomBytes(rand.New(rand.NewPCG(1, 2)), 300001)}
	fsys := open(t, mkfs(t, l, files))
	e, err := fsys.find("kernel8.img")
	if err != nil {
		t.Fatal(err)
	}
	if c, err := fsys.chain(e.first); err != nil || len(c.parts) < 5 {
		t.Fatalf("the file lies in %d pieces (%v); the test wants at least 5", len(c.parts), err)
	}
	f, err := fsys.Open("kernel8.img")
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(f, files["kernel8.img"]); err != nil { // Seeker and ReaderAt, too
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Read after Close: %v, want fs.ErrClosed", err)
	}
}

func TestNames(t *testing.T) {
	fsys := open(t, mkfs(t, layouts[0], map[string][]byte{"Kernel8.img": []byte("k"), "overlays/Grüße.dtbo": []byte("g"), "cmdline.txt": nil}))
	for name, want := range map[string]string{
		"Kernel8.img": "Kernel8.img", "kernel8.IMG": "Kernel8.img", "OVERLAYS/GRÜSSE.dtbo": "", "Overlays/GRÜßE.DTBO": "Grüße.dtbo",
		"CMDLINE.TXT": "cmdline.txt", "kernel8": "", "cmdline.txt/x": "", "": "", "/kernel8.img": "", "../kernel8.img": "", "overlays/": "",
	} {
		info, err := fsys.Stat(name)
		if want == "" && err == nil {
			t.Errorf("Stat(%q) = %q, want an error", name, info.Name())
		}
		if want != "" && (err != nil || info.Name() != want) {
			t.Errorf("Stat(%q) = %v, %v, want %q", name, info, err, want)
		}
	}
	if _, err := fsys.Open("missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of a missing file: %v, want fs.ErrNotExist", err)
	}
	if _, err := fsys.ReadDir("cmdline.txt"); err == nil {
		t.Error("ReadDir of a file: no error")
	}
}

func TestLongName(t *testing.T) {
	short := make([]byte, 32)
	copy(short, "A~1     BIN")
	part := func(order byte, units ...uint16) []byte {
		e := make([]byte, 32)
		e[0], e[11], e[13] = order, attrLongName, checksum(short[:11])
		places := []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}
		for i, u := range units {
			binary.LittleEndian.PutUint16(e[places[i]:], u)
		}
		return e
	}
	foreign := part(0x41, 'x')
	foreign[13]++
	for _, c := range []struct {
		name, want string
		parts      [][]byte
	}{
		{"outside of the basic plane", "😀", [][]byte{part(0x41, 0xd83d, 0xde00)}},
		{"half of a pair", "\ufffd", [][]byte{part(0x41, 0xd83d)}},
		{"two parts", "thirteen long" + "er", [][]byte{
			part(0x42, 'e', 'r', 0, 0xffff), part(1, 't', 'h', 'i', 'r', 't', 'e', 'e', 'n', ' ', 'l', 'o', 'n', 'g')}},
		{"first part missing", "A~1.BIN", [][]byte{part(1, 'x')}},
		{"last part missing", "A~1.BIN", [][]byte{part(0x42, 'x')}},
		{"of another file", "A~1.BIN", [][]byte{foreign}},
		{"none", "A~1.BIN", nil},
	} {
		var l longName
		for _, p := range c.parts {
			l.add(p)
		}
		if got := l.name(short); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestDamage(t *testing.T) {
	img := mkfs(t, layouts[2], map[string][]byte{"file": make([]byte, 4096)})
	clean, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	fsys := open(t, img)
	e, err := fsys.find("file")
	if err != nil {
		t.Fatal(err)
	}
	at := fsys.fat + 2*int64(e.first)
	for _, c := range []struct {
		name, want string
		next       uint16
	}{
		{"circle", "circle", uint16(e.first)},
		{"out of range", "last one is", 0xfff0},
		{"free", "leads to cluster 0", 0},
		{"short", "only 512", 0xffff},
	} {
		b := bytes.Clone(clean)
		b[at], b[at+1] = byte(c.next), byte(c.next>>8)
		bad, err := New(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bad.Open("file"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Open: %v, want an error with %q", c.name, err, c.want)
		}
	}
	if _, err := New(bytes.NewReader(clean), int64(len(clean))/2); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("half of the file system: %v, want an error that says cut off", err)
	}
	if _, err := New(bytes.NewReader(make([]byte, 4096)), 4096); !errors.Is(err, ErrNotFAT) {
		t.Errorf("zeros: %v, want ErrNotFAT", err)
	}
}

// put writes a directory entry: a short name, its attributes, first cluster and size.
func put(b []byte, name string, attr byte, first uint16, size uint32) {
	copy(b, name)
	b[11] = attr
	binary.LittleEndian.PutUint16(b[26:], first)
	binary.LittleEndian.PutUint32(b[28:], size)
}

func FuzzFS(f *testing.F) {
	img := filepath.Join(f.TempDir(), "fat.img")
	src := filepath.Join(f.TempDir(), "a long name of a file.text")
	if err := errors.Join(os.WriteFile(img, make([]byte, 48<<10), 0o600), os.WriteFile(src, make([]byte, 3000), 0o600)); err != nil {
		f.Fatal(err)
	}
	tool(f, "mkfs.fat", "-F", "12", "-s", "1", "-r", "32", img)
	tool(f, "mmd", "-i", img, "::overlays")
	tool(f, "mcopy", "-i", img, src, "::")
	tool(f, "mcopy", "-i", img, src, "::overlays/x.dtbo")
	small, err := os.ReadFile(img)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(small)
	// mtools takes so small a FAT32 for a FAT16, so this one gets its files by hand.
	if err := os.WriteFile(img, make([]byte, 64<<10), 0o600); err != nil {
		f.Fatal(err)
	}
	tool(f, "mkfs.fat", "-F", "32", "-s", "1", "-f", "1", "-R", "2", "-b", "0", img)
	wide, err := os.ReadFile(img)
	if err != nil {
		f.Fatal(err)
	}
	fsys, err := New(bytes.NewReader(wide), int64(len(wide)))
	if err != nil {
		f.Fatal(err)
	}
	put(wide[fsys.data:], "FILE    BIN", 0, 3, 1000)
	put(wide[fsys.data+32:], "SUB        ", attrDir, 5, 0)
	for cluster, next := range map[int64]uint32{3: 4, 4: 0x0fffffff, 5: 0x0fffffff} {
		binary.LittleEndian.PutUint32(wide[fsys.fat+4*cluster:], next)
	}
	if data, err := fs.ReadFile(fsys, "file.bin"); err != nil || len(data) != 1000 {
		f.Fatalf("the seed's file has %d bytes (%v), want 1000", len(data), err)
	}
	f.Add(wide)
	f.Fuzz(func(t *testing.T, data []byte) {
		fsys, err := New(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		seen := 0
		_ = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
			if seen++; seen > 200 || strings.Count(name, "/") > 4 {
				return fs.SkipAll
			}
			if err != nil || d.IsDir() {
				return nil
			}
			file, err := fsys.Open(name)
			if err != nil {
				return nil
			}
			defer file.Close()
			n, err := io.Copy(io.Discard, file)
			if info, _ := file.Stat(); err == nil && n != info.Size() {
				t.Fatalf("%s: read %d bytes of %d without an error", name, n, info.Size())
			}
			return nil
		})
	})
}

func BenchmarkKernelIn1468(b *testing.B) {
	files := map[string][]byte{"kernel8.img": make([]byte, 30<<20)}
	fsys := open(b, mkfs(b, layouts[5], files))
	b.SetBytes(30 << 20)
	for b.Loop() {
		f, err := fsys.Open("kernel8.img")
		if err != nil {
			b.Fatal(err)
		}
		p := make([]byte, 1468)
		for {
			if _, err := f.Read(p); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}

package ext4

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
)

// tool runs a program that the tests check this package against; e2fsck's status 1 means that it repaired something.
func tool(t testing.TB, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed; run lab/setup", name)
	}
	cmd := exec.Command(path, args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !(name == "e2fsck" && errors.As(err, &exit) && exit.ExitCode() == 1) {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree makes a directory with everything that an image's /usr/lib/modules has, and some worse things.
func tree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(4, 4))
	put := func(name string, size int) {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		path := filepath.Join(dir, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, b, 0o644))
	}
	put("usr/lib/modules/6.12/modules.dep", 5000)
	put("usr/lib/modules/6.12/kernel/fs/ext4.ko.xz", 300000)
	put("usr/bin/sh", 1)
	put("empty", 0)
	put("exactly4096", 4096)
	put("grüße 日本語", 100)
	for i := range 400 { // more than a block of names, so that it is worth an index
		put(fmt.Sprintf("many/a-rather-long-name-so-that-the-directory-grows-%04d", i), 3)
	}
	check(t, os.Symlink("usr/lib", filepath.Join(dir, "lib")))
	check(t, os.Symlink("/usr/bin", filepath.Join(dir, "bin")))
	check(t, os.Symlink("../../bin/sh", filepath.Join(dir, "usr/lib/up")))
	check(t, os.Symlink(strings.Repeat("./", 100)+"usr/bin/sh", filepath.Join(dir, "long")))
	check(t, os.Symlink("loop2", filepath.Join(dir, "usr/bin/loop1")))
	check(t, os.Symlink("loop1", filepath.Join(dir, "usr/bin/loop2")))
	check(t, os.Chmod(filepath.Join(dir, "usr/bin/sh"), 0o755|os.ModeSetuid))

	put("fragments/at/seek", 30000)
	check(t, os.WriteFile(filepath.Join(dir, "fragments/hole"), nil, 0o600))
	hole, err := os.OpenFile(filepath.Join(dir, "fragments/hole"), os.O_WRONLY, 0)
	check(t, err)
	for i := range int64(3) {
		_, err := hole.WriteAt([]byte("data"), i*9000)
		check(t, err)
	}
	check(t, hole.Truncate(30000))
	check(t, hole.Close())

	// Every other block is a hole, which takes a deep extent tree; then a hole at the end.
	f, err := os.Create(filepath.Join(dir, "sparse"))
	check(t, err)
	for i := range int64(700) {
		_, err := f.WriteAt(bytes.Repeat([]byte{byte(i) | 1}, 4096), i*8192)
		check(t, err)
	}
	check(t, f.Truncate(700*8192+100000))
	check(t, f.Close())
	return dir
}

func mkfs(t testing.TB, dir, size string, args ...string) string {
	t.Helper()
	img := filepath.Join(t.TempDir(), "ext4.img")
	if !slices.Contains(args, "-t") {
		args = append([]string{"-t", "ext4"}, args...)
	}
	tool(t, "mke2fs", append(append([]string{"-q", "-L", "rootfs", "-d", dir}, args...), img, size)...)
	return img
}

func open(t testing.TB, img string) *FS {
	t.Helper()
	f, err := os.Open(img)
	check(t, err)
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	check(t, err)
	fsys, err := New(f, st.Size())
	check(t, err)
	return fsys
}

// same compares a whole tree with the directory that it was made of.
func same(t *testing.T, fsys *FS, dir string) {
	t.Helper()
	count := 0
	check(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		check(t, err)
		name, err := filepath.Rel(dir, path)
		check(t, err)
		count++
		want, err := d.Info()
		check(t, err)
		got, err := fsys.Lstat(name)
		switch {
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case got.Mode() != want.Mode() && name != ".":
			t.Errorf("%s: mode %v, want %v", name, got.Mode(), want.Mode())
		case d.Type() == fs.ModeSymlink:
			link, err := fsys.ReadLink(name)
			if orig, _ := os.Readlink(path); link != orig || err != nil {
				t.Errorf("%s: link to %q, %v, want %q", name, link, err, orig)
			}
		case d.Type().IsRegular():
			b, err := fs.ReadFile(fsys, name)
			if orig, _ := os.ReadFile(path); !bytes.Equal(b, orig) || err != nil {
				t.Errorf("%s: %d bytes, %v; want the %d that were written", name, len(b), err, len(orig))
			}
		}
		return nil
	}))
	check(t, fs.WalkDir(fsys, ".", func(name string, _ fs.DirEntry, err error) error {
		if name == "lost+found" {
			return fs.SkipDir
		}
		count--
		return err
	}))
	if count != 0 {
		t.Errorf("the walk found %d files less than were written", count)
	}
}

func TestAgainstMke2fs(t *testing.T) {
	dir := tree(t)
	for name, args := range map[string][]string{
		"default":        nil,
		"1 KiB blocks":   {"-b", "1024"},
		"old":            {"-I", "128", "-O", "^64bit,^metadata_csum,^flex_bg,^huge_file"},
		"pi-gen":         {"-b", "4096", "-O", "^huge_file"},
		"many groups":    {"-b", "1024", "-g", "512", "-O", "^flex_bg,^resize_inode"},
		"without ft":     {"-O", "^filetype"},
		"csum_seed, mmp": {"-O", "metadata_csum_seed,mmp,ea_inode,large_dir"},
		"bigalloc":       {"-O", "casefold,bigalloc", "-C", "16384"},
	} {
		t.Run(name, func(t *testing.T) {
			img := mkfs(t, dir, "128M", args...)
			fsys := open(t, img)
			if fsys.Label() != "rootfs" {
				t.Errorf("label %q, want rootfs", fsys.Label())
			}
			same(t, fsys, dir)
			tool(t, "e2fsck", "-fyD", img) // makes indexed directories
			same(t, open(t, img), dir)
		})
	}
}

func TestFS(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b/c/d", "b/c/e"} {
		check(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
	}
	check(t, os.Symlink("b/c", filepath.Join(dir, "link")))
	check(t, os.Symlink("/a", filepath.Join(dir, "b/absolute")))
	fsys := open(t, mkfs(t, dir, "8M"))
	if err := fstest.TestFS(fsys, "a", "b", "b/c/d", "b/c/e", "link", "b/absolute"); err != nil {
		t.Error(err)
	}
	if b, err := fs.ReadFile(fsys, "link/d"); string(b) != "b/c/d" || err != nil {
		t.Errorf("through a link: %q, %v", b, err)
	}
}

func TestSeeks(t *testing.T) {
	dir := tree(t)
	fsys := open(t, mkfs(t, dir, "64M", "-b", "1024"))
	for _, name := range []string{"fragments/at/seek", "fragments/hole", "empty"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		check(t, err)
		f, err := fsys.Open(name)
		check(t, err)
		if err := iotest.TestReader(f, want); err != nil { // Seeker and ReaderAt, too
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLinks(t *testing.T) {
	fsys := open(t, mkfs(t, tree(t), "128M"))
	for name, want := range map[string]int64{
		"lib/modules/6.12/modules.dep": 5000, "bin/sh": 1, "lib/up": 1, "long": 1, "usr/bin/loop1": -1, "bin/none": -1, "bin/sh/x": -1, "../etc": -1,
	} {
		info, err := fsys.Stat(name)
		if (err != nil) != (want < 0) || err == nil && info.Size() != want {
			t.Errorf("Stat(%q) = %v, %v; want %d bytes", name, info, err, want)
		}
	}
	modules, err := fs.Sub(fsys, "lib/modules")
	check(t, err)
	if list, err := fs.ReadDir(modules, "."); err != nil || len(list) != 1 || list[0].Name() != "6.12" {
		t.Errorf("lib/modules has %v, %v", list, err)
	}
}

func TestDeepTreeFragmentsAndUnwritten(t *testing.T) {
	dir := tree(t)
	img := mkfs(t, dir, "64M", "-b", "1024")
	fsys := open(t, img)
	n, err := fsys.find("sparse", true)
	check(t, err)
	if depth := n.block[6]; depth < 2 {
		t.Fatalf("the sparse file's extent tree has depth %d; the test wants 2", depth)
	}
	want, err := os.ReadFile(filepath.Join(dir, "sparse"))
	check(t, err)
	f, err := fsys.Open("sparse")
	check(t, err)
	for _, off := range []int64{0, 4095, 4096, 8191, 8192 * 500, int64(len(want)) - 5} {
		p := make([]byte, 20000)
		n, err := f.(io.ReaderAt).ReadAt(p, off)
		if !bytes.Equal(p[:n], want[off:min(off+20000, int64(len(want)))]) || (err == io.EOF) != (n < 20000) {
			t.Errorf("ReadAt(20000, %d) = %d, %v, or other bytes than were written", off, n, err)
		}
	}

	// Fill the file system but for crumbs, then write into the crumbs.
	script := filepath.Join(t.TempDir(), "script")
	var s strings.Builder
	for i := 0; i < 400; i += 2 {
		fmt.Fprintf(&s, "rm many/a-rather-long-name-so-that-the-directory-grows-%04d\n", i)
	}
	big := filepath.Join(t.TempDir(), "big")
	check(t, os.WriteFile(big, want[:4096*1200:4096*1200], 0o600))
	fmt.Fprintf(&s, "write %s big\nfallocate empty 0 20\nset_inode_field empty size 20000\n", big)
	check(t, os.WriteFile(script, []byte(s.String()), 0o600))
	tool(t, "debugfs", "-w", "-f", script, img)
	fsys = open(t, img)
	n, err = fsys.find("big", true)
	check(t, err)
	c, err := fsys.content(n)
	check(t, err)
	if len(c.extents) < 20 {
		t.Errorf("big has %d extents; the test wants it in pieces", len(c.extents))
	}
	if got, err := fs.ReadFile(fsys, "big"); !bytes.Equal(got, want[:4096*1200]) || err != nil {
		t.Errorf("big: %d bytes, %v, or other bytes than were written", len(got), err)
	}
	if got, err := fs.ReadFile(fsys, "empty"); !bytes.Equal(got, make([]byte, 20000)) || err != nil {
		t.Errorf("reserved blocks: %d bytes, %v; want 20000 zeros", len(got), err)
	}

	out := t.TempDir() // debugfs as a second reader of the same file system
	tool(t, "debugfs", "-R", "rdump usr "+out, img)
	got, err := fs.ReadFile(fsys, "usr/lib/modules/6.12/kernel/fs/ext4.ko.xz")
	check(t, err)
	if theirs, err := os.ReadFile(filepath.Join(out, "usr/lib/modules/6.12/kernel/fs/ext4.ko.xz")); !bytes.Equal(got, theirs) || err != nil {
		t.Errorf("debugfs reads other bytes (%v)", err)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "file"), make([]byte, 100000), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "tiny"), []byte("tiny"), 0o600))
	refuse := func(img string) error {
		b, err := os.ReadFile(img)
		check(t, err)
		_, err = New(bytes.NewReader(b), int64(len(b)))
		return err
	}
	dirty := mkfs(t, dir, "8M")
	tool(t, "debugfs", "-w", "-R", "feature needs_recovery", dirty)
	if err := refuse(dirty); !errors.Is(err, ErrNeedsRecovery) {
		t.Errorf("dirty: %v, want ErrNeedsRecovery", err)
	}
	if err := refuse(mkfs(t, dir, "8M", "-O", "meta_bg,^resize_inode")); err == nil || !strings.Contains(err.Error(), "meta_bg") {
		t.Errorf("meta_bg: %v, want an error that names it", err)
	}
	if err := refuse(mkfs(t, dir, "8M", "-t", "ext3")); err == nil || !strings.Contains(err.Error(), "ext3") {
		t.Errorf("ext3: %v, want an error that names it", err)
	}
	cut := mkfs(t, dir, "8M")
	check(t, os.Truncate(cut, 4<<20))
	if err := refuse(cut); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("half: %v, want an error that says cut off", err)
	}
	if _, err := New(bytes.NewReader(make([]byte, 4096)), 4096); !errors.Is(err, ErrNotExt4) {
		t.Errorf("zeros: %v, want ErrNotExt4", err)
	}
	inline := open(t, mkfs(t, dir, "8M", "-O", "inline_data"))
	if _, err := inline.Open("tiny"); err == nil || !strings.Contains(err.Error(), "inline_data") {
		t.Errorf("inline data: %v, want an error that names it", err)
	}
}

func FuzzFS(f *testing.F) {
	dir := f.TempDir()
	check(f, os.MkdirAll(filepath.Join(dir, "usr/lib"), 0o755))
	check(f, os.WriteFile(filepath.Join(dir, "usr/lib/file"), make([]byte, 3000), 0o600))
	check(f, os.Symlink("usr/lib", filepath.Join(dir, "lib")))
	b, err := os.ReadFile(mkfs(f, dir, "100k", "-b", "1024", "-N", "16", "-O", "^has_journal,^resize_inode", "-m", "0"))
	check(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		fsys, err := New(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		seen := 0
		_ = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
			if seen++; seen > 100 || strings.Count(name, "/") > 4 {
				return fs.SkipAll
			}
			if err != nil || d.IsDir() {
				return nil
			}
			_, _ = fsys.Stat(name)
			file, err := fsys.Open(name)
			if err != nil {
				return nil
			}
			defer file.Close()
			_, _ = io.Copy(io.Discard, io.LimitReader(file, 1<<20))
			return nil
		})
	})
}

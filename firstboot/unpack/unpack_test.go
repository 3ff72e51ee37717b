package unpack

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// pack makes a tar of entries: "name=text", "name/" for a directory, "name->target" for a link, "name?" for a device.
func pack(t testing.TB, entries ...string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Mode: 0o640, Uid: os.Getuid(), Gid: os.Getgid()}
		text := ""
		switch {
		case strings.Contains(e, "->"):
			h.Typeflag = tar.TypeSymlink
			h.Name, h.Linkname, _ = strings.Cut(e, "->")
		case strings.HasSuffix(e, "/"):
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, e, 0o750
		case strings.HasSuffix(e, "?"):
			h.Typeflag, h.Name = tar.TypeBlock, strings.TrimSuffix(e, "?")
		default:
			h.Name, text, _ = strings.Cut(e, "=")
			h.Size = int64(len(text))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tree makes a root inside of a directory that nothing may touch, and returns both.
func tree(t testing.TB) (*os.Root, string) {
	outside := t.TempDir()
	for _, dir := range []string{"root/etc", "root/usr/lib", "secret"} {
		if err := os.MkdirAll(filepath.Join(outside, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"out": "../secret", "abs": "/etc", "lib": "usr/lib", "etc/resolv.conf": "/run/stub"} {
		if err := os.Symlink(target, filepath.Join(outside, "root", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "root/etc/hostname"), []byte("a long name from the image\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(filepath.Join(outside, "root"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, outside
}

// list shows a tree: one entry a line.
func list(t testing.TB, dir string) []string {
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := strings.TrimPrefix(path, dir)
		switch {
		case d.IsDir():
			line += "/"
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += "->" + target
		default:
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += "=" + string(text) + " " + info.Mode().String()
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestOver(t *testing.T) {
	root, outside := tree(t)
	n, err := Over(root, bytes.NewReader(pack(t,
		"etc/", "./etc/hostname=pi\n", "/etc/resolv.conf=nameserver 1.1.1.1\n", "etc/systemd/system/x.service->/dev/null", "lib/new=1", "srv/deep/file=2", "srv/", "home/")))
	if err != nil || n != 8 {
		t.Fatalf("Over() = %d, %v", n, err)
	}
	want := []string{
		"/", "/root/", "/root/abs->/etc", "/root/etc/", "/root/etc/hostname=pi\n -rw-r-----", "/root/etc/resolv.conf=nameserver 1.1.1.1\n -rw-r-----",
		"/root/etc/systemd/", "/root/etc/systemd/system/", "/root/etc/systemd/system/x.service->/dev/null", "/root/home/", "/root/lib->usr/lib", "/root/out->../secret",
		"/root/srv/", "/root/srv/deep/", "/root/srv/deep/file=2 -rw-r-----", "/root/usr/", "/root/usr/lib/", "/root/usr/lib/new=1 -rw-r-----", "/secret/",
	}
	if d := cmp.Diff(want, list(t, outside)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if info, err := root.Stat("home"); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("home: %v, %v", info.Mode(), err)
	}
}

func TestOverRefuses(t *testing.T) {
	for _, entries := range [][]string{
		{"../secret/x=1"}, {"etc/../../secret/x=1"}, {"out/x=1"}, {"abs/x=1"}, {"new->../secret", "new/x=1"}, {"new->/", "new/etc/x=1"},
		{"etc/sda?"}, {"out/dir/"}, {"../dir/"}, {"usr=a file in the place of a full directory"},
	} {
		root, outside := tree(t)
		before := list(t, filepath.Join(outside, "secret"))
		if _, err := Over(root, bytes.NewReader(pack(t, entries...))); err == nil {
			t.Errorf("%q: no error", entries)
		}
		if d := cmp.Diff(before, list(t, filepath.Join(outside, "secret"))); d != "" {
			t.Errorf("%q: outside of the root:\n%s", entries, d)
		}
	}
	root, _ := tree(t)
	whole := pack(t, "etc/x=something")
	if _, err := Over(root, bytes.NewReader(whole[:515])); err == nil || !strings.Contains(err.Error(), "etc/x") {
		t.Errorf("a tar that is cut: %v", err)
	}
}

// FuzzOver: no tar changes anything outside of the root.
func FuzzOver(f *testing.F) {
	f.Add(pack(f, "etc/hostname=pi"))
	f.Add(pack(f, "new->../secret", "new/x=1", "../x=1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		root, outside := tree(t)
		_, err := Over(root, bytes.NewReader(b))
		if d := cmp.Diff([]string{"/"}, list(t, filepath.Join(outside, "secret"))); d != "" {
			t.Errorf("outside of the root (%v):\n%s", err, d)
		}
		if entries, err := os.ReadDir(outside); err != nil || len(entries) != 2 {
			t.Errorf("beside the root: %v, %v", entries, err)
		}
	})
}

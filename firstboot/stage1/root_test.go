package stage1

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"bramble/firstboot/account"
	"bramble/firstboot/wire"
	"bramble/lab"
)

// system makes a small root file system.
func system(t *testing.T, files map[string]string) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, isLink := strings.CutPrefix(text, "-> "); isLink {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, dir
}

func TestEnsureUser(t *testing.T) {
	me := fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	root, dir := system(t, map[string]string{
		"etc/passwd": "pi:x:" + me + "::/home/pi:/usr/sbin/nologin\n", "etc/shadow": "pi:!:1::::::\n", "etc/group": "sudo:x:27:\n",
		"etc/skel/.profile": "umask 022\n", "etc/skel/.config/x": "1", "etc/skel/link": "-> .profile",
	})
	if err := ensureUser(root, wire.User{Name: "pi"}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"etc/passwd": "pi:x:" + me + "::/home/pi:/bin/bash\n", "etc/shadow": "pi:*:1::::::\n", "etc/group": "sudo:x:27:pi\n",
		"home/pi/.profile": "umask 022\n", "home/pi/.config/x": "1", "home/pi/link": "umask 022\n",
	} {
		if got, err := root.ReadFile(name); string(got) != want {
			t.Errorf("%s: %q (%v), want %q", name, got, err, want)
		}
	}
	if _, err := root.Stat("etc/gshadow"); err == nil {
		t.Error("etc/gshadow was made, though the image has none")
	}
	for name, want := range map[string]fs.FileMode{"etc/shadow": 0o640, "home/pi": 0o700} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v (%v), want %v", name, info.Mode(), err, want)
		}
	}
	// A home that is there stays as it is.
	if err := root.WriteFile("home/pi/.profile", []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ensureUser(root, wire.User{Name: "pi"}); err != nil {
		t.Fatal(err)
	}
	if got, _ := root.ReadFile("home/pi/.profile"); string(got) != "mine" {
		t.Errorf("the home was made anew: %q", got)
	}
	for home, want := range map[string]string{"": "", "/": "", "..": "escapes", "../../tmp": "escapes"} {
		if err := makeHome(root, account.User{Home: home}); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("a home of %q: %v, want %q", home, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "../../tmp/.profile")); err == nil {
		t.Error("a home outside of the root was made")
	}
}

func TestEnsureUserWithoutFiles(t *testing.T) {
	root, _ := system(t, map[string]string{"etc/group": ""})
	if err := ensureUser(root, wire.User{Name: "pi"}); err == nil || !strings.Contains(err.Error(), "users cannot be read") {
		t.Errorf("ensureUser() = %v", err)
	}
}

func TestReplace(t *testing.T) {
	root, dir := system(t, map[string]string{"etc/resolv.conf": "-> ../run/stub"})
	if err := replace(root, "etc/resolv.conf", "nameserver 1.1.1.1\n", 0o644); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(filepath.Join(dir, "etc/resolv.conf")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("it is still a link: %v, %v", info, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "run/stub")); err == nil {
		t.Error("the link's target was written")
	}
}

// TestEmpty: the initramfs goes, what is mounted in it stays.
func TestEmpty(t *testing.T) {
	lab.Need(t)
	_, dir := system(t, map[string]string{"init": "1", "modules/a.ko": "2", "modules/deep/b.ko": "3", "root/etc/x": "-> /etc", "link": "-> /"})
	mounted := filepath.Join(dir, "root")
	if err := unix.Mount("tmpfs", mounted, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(mounted, 0); err != nil {
			t.Error(err)
		}
	}()
	if err := os.WriteFile(filepath.Join(mounted, "keep"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := empty(dir); err != nil {
		t.Fatal(err)
	}
	var left []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		left = append(left, strings.TrimPrefix(path, dir))
		return err
	})
	if d := cmp.Diff([]string{"", "/root", "/root/keep"}, left); d != "" || err != nil {
		t.Errorf("%v, -want +got:\n%s", err, d)
	}
}

func TestConsole(t *testing.T) {
	var kmsg, tty1, serial bytes.Buffer
	c := &Console{log: &kmsg, screens: []io.Writer{&tty1, &serial}}
	c.Line("a %s", "line\nof two")
	c.Logger().With("x", 1).WithGroup("y").Warn("a warning")
	if got, want := kmsg.String(), "<7>bramble: a line; of two\n<7>bramble: a warning\n"; got != want {
		t.Errorf("the kernel's log has %q, want %q", got, want)
	}
	if got, want := tty1.String(), "bramble: a line; of two\r\nbramble: a warning\r\n"; got != want || serial.String() != want {
		t.Errorf("the consoles have %q and %q, want %q", got, serial.String(), want)
	}
}

package repo

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bramble/configs/policy"
	"bramble/configs/starter"
	"bramble/node"
)

func TestCheckDir(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, starter.Files()); err != nil {
		t.Fatal(err)
	}
	if found, err := CheckDir(dir); err != nil || found != nil {
		t.Fatalf("the starter: %v, %v", found, err)
	}
	for _, test := range []struct{ file, text, want string }{
		{"bramble.yaml", "nodez: 1\n", "bramble.yaml:1: unknown key"},
		{"bramble.yaml", "layers: {a: {repository: 'https://x', packages: [p], keyring: a.asc}}\n", "bramble.yaml: the keyring a.asc of layer a is not in the repository"},
		{"salt/base/ssh.sls", "a:\n\tb\n", "salt/base/ssh.sls:2: this is not valid YAML"},
		{"salt/base/ssh.sls", "{% if %}\na:\n\tb\n", ""}, // only Salt can tell
		{"pillar/base.sls", "a: 'b\n", "pillar/base.sls:"},
		{"other/x.sls", "a: 'b\n", ""},
		{"bramble.yaml", "salt: {remotes: [{url: ., root: nowhere}]}\n", "there is no top file"},
		{"bramble.yaml", "salt: {mode: off, remotes: []}\n", ""},
		{"bramble.yaml", "salt: {remotes: ['https://x/y']}\n", ""},
	} {
		one := t.TempDir()
		file := filepath.Join(one, test.file)
		if err := errors.Join(os.CopyFS(one, starter.Files()), os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(test.text), 0o644)); err != nil {
			t.Fatal(err)
		}
		found, err := CheckDir(one)
		if got := policy.Join(found); err != nil || !strings.Contains(got, test.want) || (test.want == "") != (got == "") {
			t.Errorf("%s with %q: %q, %v; want %q", test.file, test.text, got, err, test.want)
		}
	}
	if _, err := CheckDir(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a directory that is not there is well")
	}
}

func TestCheckTar(t *testing.T) {
	for _, text := range []string{"", "not a tar at all", strings.Repeat("x", 600)} {
		if found, err := CheckTar(strings.NewReader(text)); err == nil {
			t.Errorf("%.20q is well: %v", text, found)
		}
	}
	data, _, err := pack(map[string]content{"../x": {}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CheckTar(bytes.NewReader(data)); err != nil {
		return
	}
	t.Error("a name that leads out of the tree is well")
}

// Links are followed inside a repository; files that may be run stay so; what comes out is the same each time.
func TestTree(t *testing.T) {
	dir := remote(t, "main", map[string]string{"salt/top.sls": "base: {}\n", "shared/run": "#!/bin/sh\n", "salt/z": "z"})
	for name, to := range map[string]string{"run": "../shared/run", "out": "../../../etc/passwd", "abs": "/etc/passwd", "loop": "loop", "gone": "nowhere", "dir": "../shared"} {
		if err := os.Symlink(to, filepath.Join(dir, "salt", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "shared/run"), 0o755); err != nil {
		t.Fatal(err)
	}
	commit(t, dir, nil)
	w := open(t, Options{URL: dir})
	w.Look(t.Context())
	got := tree(t, w.Current())
	if len(got) != 3 || got["states/run"] != "#!/bin/sh\n" {
		t.Errorf("tree: %v (%s)", got, w.Refused())
	}
	again := open(t, Options{URL: dir})
	again.Look(t.Context())
	if again.Current().sha != w.Current().sha || !bytes.Equal(again.Current().tar, w.Current().tar) {
		t.Error("the same commit gives two trees")
	}
	if !bytes.Contains(w.Current().tar, []byte("0000755")) {
		t.Error("no file of the tree may be run")
	}
}

func TestTooLarge(t *testing.T) {
	w := open(t, Options{})
	good := w.Current()
	clone := filepath.Join(t.TempDir(), "c")
	git_(t, "", "clone", "-q", w.path(ownName), clone)
	commit(t, clone, map[string]string{"salt/image": strings.Repeat("0", maxBytes+1)})
	if says := fails(t, clone, "push", w.path(ownName), "main"); !strings.Contains(says, "the configuration is too large") {
		t.Errorf("the push says %s", says)
	}
	w.force(clone)
	w.Look(t.Context())
	if kind, text := w.last(); kind != node.ConfigRefused || !strings.Contains(text, "keep images and packages elsewhere") || w.Current() != good {
		t.Errorf("recorded %s %q", kind, text)
	}
}

func TestKeyring(t *testing.T) {
	dir := remote(t, "main", map[string]string{"salt/top.sls": "base: {}\n", "keys/a.asc": "KEY",
		"bramble.yaml": "default: {layers: [a]}\nlayers: {a: {repository: 'https://x', packages: [p], keyring: keys/a.asc}}\n"})
	w := open(t, Options{URL: dir})
	w.Look(t.Context())
	if l := w.Current().Layers; len(l) != 1 || string(l[0].Keys) != "KEY" || l[0].Suite != "stable" {
		t.Errorf("layers %+v (%s)", l, w.Refused())
	}
}

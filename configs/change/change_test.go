package change

import (
	"archive/tar"
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bramble/boot"
	"bramble/firstboot/wire"
)

func pack(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1])), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestCompare(t *testing.T) {
	a := Side{
		Plan:  boot.Plan{Name: "alpha", Image: "id1", Profile: boot.Profile{Image: "lite", User: "pi", Cmdline: []string{"quiet", "a=1"}, Roles: []string{"base"}}},
		Salt:  wire.Salt{Mode: "masterless", ID: "alpha", Every: time.Hour},
		Files: pack(t, "etc/hostname", "alpha"), Tree: pack(t, "states/top.sls", "1", "states/old.sls", "x"),
	}
	if got, err := Compare(a, a); err != nil || len(got) != 0 {
		t.Errorf("nothing changed, and it says %+v, %v", got, err)
	}
	b := Side{
		Plan:  boot.Plan{Name: "alpha", Image: "id2", Profile: boot.Profile{Image: "lite", User: "pi", Cmdline: []string{"a=1", "b=2"}, Roles: []string{"base", "worker"}}},
		Salt:  wire.Salt{Mode: "masterless", ID: "alpha-3Bp", Every: 30 * time.Minute},
		Users: []wire.LoginUser{{Name: "ada", Sudo: true}},
		Files: a.Files, Tree: pack(t, "states/top.sls", "2", "states/new.sls", "x"),
	}
	got, err := Compare(a, b)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, c := range got[min(6, len(got)):] {
		files = append(files, fmt.Sprint(c.What, " ", c.Name, " ", len(c.Before), " ", len(c.After)))
	}
	if diff := cmp.Diff([]string{"salt file states/new.sls 0 32", "salt file states/old.sls 32 0", "salt file states/top.sls 32 32"}, files[1:]); diff != "" {
		t.Errorf("Salt files (-want +got):\n%s", diff)
	}
	want := []Change{
		{What: "image", Before: "lite (id1)", After: "lite (id2)"},
		{What: "command line", Name: "quiet", Before: "quiet"},
		{What: "command line", Name: "b=2", After: "b=2"},
		{What: "role", Name: "worker", After: "worker"},
		{What: "user", Name: "ada", After: "keys 4f53cda1, sudo"},
		{What: "salt", Name: "every", Before: "1h0m0s", After: "30m0s"},
		{What: "salt", Name: "id", Before: `"alpha"`, After: `"alpha-3Bp"`},
	}
	if diff := cmp.Diff(want, got[:7]); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if _, err := Compare(Side{Tree: []byte("no tar")}, b); err == nil {
		t.Error("a tree that is no tar is well")
	}
}

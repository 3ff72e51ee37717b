package nodefiles

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bramble/node"
)

var update = flag.Bool("update", false, "write the golden files anew")

func spec() Spec {
	return Spec{
		Name: "pi-4c69202e", MAC: node.MAC{0xb8, 0x27, 0xeb, 0x69, 0x20, 0x2e}, MachineIDSeed: "seed",
		User: "pi", Keys: []string{"ssh-ed25519 AAAA one@laptop", "ssh-ed25519 BBBB two@laptop"},
		Agent: []byte("the program\n"), CA: "-----BEGIN CERTIFICATE-----\n",
	}
}

// show prints a tar for people.
func show(t *testing.T, data []byte) string {
	var b strings.Builder
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "=== %s %04o %d:%d %d", h.Name, h.Mode, h.Uid, h.Gid, h.ModTime.Unix())
		if h.Linkname != "" {
			fmt.Fprintf(&b, " -> %s", h.Linkname)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "\n%s", text)
	}
}

func TestGolden(t *testing.T) {
	nobody := spec()
	nobody.User, nobody.Keys, nobody.Agent = "", nil, nil
	for name, s := range map[string]Spec{"pi": spec(), "nobody": nobody} {
		data, sha, err := Render(s)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != sha {
			t.Errorf("%s: the sum is not the tar's", name)
		}
		again, _, err := Render(s)
		if err != nil || !bytes.Equal(data, again) {
			t.Errorf("%s: a second time it is not the same (%v)", name, err)
		}
		golden := "testdata/" + name + ".golden"
		got := show(t, data)
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s (-update if it is right) -want +got:\n%s", name, d)
		}
	}
}

func TestRefuses(t *testing.T) {
	for want, change := range map[string]func(*Spec){
		`"" is no host name`:           func(s *Spec) { s.Name = "" },
		`"Pi_1" is no host name`:       func(s *Spec) { s.Name = "Pi_1" },
		"is no host name; ":            func(s *Spec) { s.Name = "pi\nevil" },
		"need its MAC address":         func(s *Spec) { s.MAC = node.MAC{} },
		"certificate of the appliance": func(s *Spec) { s.CA = "" },
		"no user to log in as":         func(s *Spec) { s.User = "" },
		`"../x" is no name`:            func(s *Spec) { s.User = "../x" },
		"ALL=(ALL)\" is no name for":   func(s *Spec) { s.User = "x ALL=(ALL)" },
		"key 2 of pi is more than one": func(s *Spec) { s.Keys[1] = "a\nb" },
	} {
		s := spec()
		change(&s)
		if _, _, err := Render(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Render() = %v; want %q", err, want)
		}
	}
}

func TestMachineID(t *testing.T) {
	a := MachineID("seed", node.MAC{1})
	if len(a) != 32 || a != MachineID("seed", node.MAC{1}) || a == MachineID("seed", node.MAC{2}) || a == MachineID("other", node.MAC{1}) {
		t.Errorf("MachineID() = %s", a)
	}
}

// FuzzRender: what is rendered stays in the files that it belongs to.
func FuzzRender(f *testing.F) {
	f.Add("pi-1", "pi", "ssh-ed25519 AAAA x", "seed")
	f.Add("a\n127.0.0.1 evil", "root ALL", "\x00", "")
	f.Fuzz(func(t *testing.T, name, user, key, seed string) {
		data, _, err := Render(Spec{Name: name, MAC: node.MAC{1}, MachineIDSeed: seed, User: user, Keys: []string{key}})
		if err != nil {
			return
		}
		for r := tar.NewReader(bytes.NewReader(data)); ; {
			h, err := r.Next()
			if err != nil {
				return
			}
			text, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Count(string(text), "\n")
			switch {
			case strings.Contains(h.Name, ".."):
				t.Errorf("a file called %q", h.Name)
			case h.Name == "etc/hosts" && lines != 6, h.Name == "etc/hostname" && lines != 1,
				h.Name == "etc/sudoers.d/010_bramble" && lines != 2, strings.Contains(h.Name, "authorized_keys.d") && lines != 2:
				t.Errorf("%s has %d lines:\n%s", h.Name, lines, text)
			}
		}
	})
}

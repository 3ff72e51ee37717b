package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me"

func TestAuthorizedKeys(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SUDO_USER", "")
	write := func(name, text string) string {
		file := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	if keys, _, err := authorizedKeys(nil); err != nil || len(keys) != 0 {
		t.Errorf("nobody's keys are %v, %v; want none", keys, err)
	}
	write(".ssh/id_ed25519.pub", key+"\n")
	write(".ssh/authorized_keys", "# mine\n\n"+key+"\n")
	if keys, from, err := authorizedKeys(nil); err != nil || len(keys) != 1 || keys[0] != key || len(from) != 2 {
		t.Errorf("own keys are %v from %v, %v; want the one, once", keys, from, err)
	}
	bad := write("bad.pub", "# ok\n-----BEGIN OPENSSH PRIVATE KEY-----\n")
	if _, _, err := authorizedKeys([]string{bad}); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a private key gives %v; want a sentence that names line 2", err)
	}
	if _, _, err := authorizedKeys([]string{filepath.Join(home, "none")}); err == nil {
		t.Error("a named file that is not there was accepted")
	}
}

func TestSegments(t *testing.T) {
	if _, err := segments([]string{"nosuch0"}); err == nil || !strings.Contains(err.Error(), "lo") {
		t.Errorf("an unknown interface gives %v; want the names of those that exist", err)
	}
	got, err := segments([]string{"lo"})
	if err != nil || len(got) != 1 || got[0].Prefix.String() != "127.0.0.1/8" {
		t.Errorf("segments(lo) = %v, %v", got, err)
	}
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte(key))
	f.Add([]byte("# x\n\nno-pty " + key))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, _ := parseKeys(text)
		for _, k := range keys {
			if strings.ContainsAny(k, "\n\x00") {
				t.Errorf("a key with a line end: %q", k)
			}
		}
	})
}

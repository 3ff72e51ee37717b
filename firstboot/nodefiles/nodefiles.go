// Package nodefiles renders the files that make a node out of an image: one tar, unpacked by stage 1 over the image's
// root. It is pure: the same Spec is the same bytes.
package nodefiles

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"bramble/node"
)

// Spec is what a node's files depend on.
type Spec struct {
	Name string   // host name
	MAC  node.MAC // of the interface that the root comes over

	// MachineIDSeed is of this appliance, and the same for ever: machine-id follows from it and the MAC address.
	MachineIDSeed string

	User string   // login to make or to unlock; empty for none
	Keys []string // lines of authorized_keys for User

	Agent []byte // the program that makes a node of the board (cmd/firstboot for arm64); empty for none
	CA    string // certificate of the appliance's CA, PEM; it is public
}

var (
	validHost = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	validUser = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
)

// Render makes the tar (uncompressed) and its SHA-256 in hex.
func Render(s Spec) (data []byte, sha string, err error) {
	if err := s.check(); err != nil {
		return nil, "", err
	}
	files := s.files()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := f.write(w); err != nil {
			return nil, "", fmt.Errorf("the files of %s cannot be packed: %w", s.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, "", fmt.Errorf("the files of %s cannot be packed: %w", s.Name, err)
	}
	sum := sha256.Sum256(b.Bytes())
	return b.Bytes(), hex.EncodeToString(sum[:]), nil
}

func (s Spec) check() error {
	if !validHost.MatchString(s.Name) {
		return fmt.Errorf("%q is no host name; it has up to 63 lower-case letters, digits and hyphens (RFC 1123)", s.Name)
	}
	if s.MAC.IsZero() {
		return fmt.Errorf("the files of %s need its MAC address", s.Name)
	}
	if len(s.Agent) > 0 && s.CA == "" {
		return fmt.Errorf("the agent of %s needs the certificate of the appliance's CA", s.Name)
	}
	if s.User == "" {
		if len(s.Keys) > 0 {
			return fmt.Errorf("there are keys for %s, but no user to log in as; name one", s.Name)
		}
		return nil
	}
	if !validUser.MatchString(s.User) {
		return fmt.Errorf("%q is no name for a user; it has up to 32 lower-case letters, digits, - and _", s.User)
	}
	for i, key := range s.Keys {
		if strings.ContainsAny(key, "\n\r\x00") {
			return fmt.Errorf("key %d of %s is more than one line; write each key as an entry of its own", i+1, s.User)
		}
	}
	return nil
}

// MachineID is stable for a board as long as the seed is, and tells nobody the seed (machine-id(5): 32 hex digits).
func MachineID(seed string, mac node.MAC) string {
	sum := sha256.Sum256([]byte("bramble machine-id\x00" + seed + "\x00" + mac.String()))
	id := sum[:16]
	id[6] = id[6]&0x0f | 0x40 // the version and variant of a random UUID
	id[8] = id[8]&0x3f | 0x80
	return hex.EncodeToString(id)
}

// file is an entry of the tar: a symbolic link if link is set.
type file struct {
	name, data, link string
	mode             int64
}

func text(name, data string) file { return file{name: name, data: data, mode: 0o644} }

// masked makes systemd ignore a unit, even when its presets are applied anew.
func masked(unit string) file { return file{name: units + unit, link: "/dev/null"} }

func enabled(unit, in string) file {
	return file{name: units + in + ".wants/" + path.Base(unit), link: unit}
}

const units = "etc/systemd/system/"

func (f file) write(w *tar.Writer) error {
	h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
	if f.link != "" {
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.link, 0o777
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write([]byte(f.data))
	return err
}

// files lists everything, in the order of the names.
func (s Spec) files() []file {
	all := slices.Concat(s.identity(), s.network(), s.login(), s.agent(), quiet())
	slices.SortFunc(all, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return all
}

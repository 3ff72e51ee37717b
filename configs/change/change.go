// Package change says what is different between what a node runs with and what a power cycle would give it. It is pure.
package change

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"bramble/boot"
	"bramble/firstboot/wire"
)

// Side is all that a boot is made of.
type Side struct {
	Plan  boot.Plan
	Salt  wire.Salt
	Users []wire.LoginUser
	Files []byte // tar of the node's files
	Tree  []byte // tar of its Salt files
}

// Change is one difference. Before is empty for what is added, After for what is removed; of files they are the first
// half of the SHA-256 in hex.
type Change struct {
	What   string `json:"what"` // "name", "image", "command line", "config.txt", "key", "role", "layer", "user", "overlay", "salt", "file" or "salt file"
	Name   string `json:"name,omitempty"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// Answer is what GET of a node's plan gives.
type Answer struct {
	Node    string   `json:"node"`
	Serve   bool     `json:"serve"`          // whether the node would be booted at all
	Reason  string   `json:"reason"`         // why it would get what it would get
	Running string   `json:"running"`        // commit of the boot under way
	Next    string   `json:"next"`           // commit of the next boot
	Note    string   `json:"note,omitempty"` // what could not be compared
	Changes []Change `json:"changes"`        // in a fixed order
}

// Compare lists the differences from a to b.
func Compare(a, b Side) ([]Change, error) {
	all := []Change{}
	value := func(what, name, before, after string) {
		if before != after {
			all = append(all, Change{what, name, before, after})
		}
	}
	value("name", "", a.Plan.Name, b.Plan.Name)
	value("image", "", image(a.Plan), image(b.Plan))
	value("overlay", "", a.Plan.Overlay, b.Plan.Overlay)
	for _, list := range []struct {
		what          string
		before, after []string
	}{
		{"command line", a.Plan.Cmdline, b.Plan.Cmdline},
		{"config.txt", a.Plan.Config, b.Plan.Config},
		{"key", a.Plan.Keys, b.Plan.Keys},
		{"role", a.Plan.Roles, b.Plan.Roles},
		{"layer", a.Plan.Layers, b.Plan.Layers},
	} {
		all = append(all, words(list.what, list.before, list.after)...)
	}
	for _, group := range []struct {
		what string
		read func(Side) (map[string]string, error)
	}{
		{"user", func(s Side) (map[string]string, error) { return users(s), nil }},
		{"salt", func(s Side) (map[string]string, error) { return saltFields(s.Salt) }},
		{"file", func(s Side) (map[string]string, error) { return hashes(s.Files) }},
		{"salt file", func(s Side) (map[string]string, error) { return hashes(s.Tree) }},
	} {
		before, err1 := group.read(a)
		after, err2 := group.read(b)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		for _, name := range slices.Sorted(maps.Keys(both(before, after))) {
			value(group.what, name, before[name], after[name])
		}
	}
	return all, nil
}

func image(p boot.Plan) string {
	if p.Profile.Image == "" || p.Profile.Image == p.Image {
		return p.Image
	}
	return fmt.Sprintf("%s (%s)", p.Profile.Image, p.Image)
}

// users are the logins with what they may; keys are told apart by the begin of their hash.
func users(s Side) map[string]string {
	all := map[string]string{}
	if s.Plan.User != "" {
		all[s.Plan.User] = "with the profile's keys"
	}
	for _, u := range s.Users {
		sum := sha256.Sum256(fmt.Append(nil, u.Keys))
		all[u.Name] = fmt.Sprintf("keys %x", sum[:4])
		if u.Sudo {
			all[u.Name] += ", sudo"
		}
	}
	return all
}

// words are what is in one list and not in the other, the removed first.
func words(what string, before, after []string) (all []Change) {
	for _, w := range before {
		if !slices.Contains(after, w) {
			all = append(all, Change{What: what, Name: w, Before: w})
		}
	}
	for _, w := range after {
		if !slices.Contains(before, w) {
			all = append(all, Change{What: what, Name: w, After: w})
		}
	}
	return all
}

func both(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// saltFields are the fields of s as the node gets them.
func saltFields(s wire.Salt) (map[string]string, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, err
	}
	all := map[string]string{}
	for name, v := range raw {
		all[name] = string(v)
	}
	for name, d := range map[string]fmt.Stringer{"every": s.Every, "limit": s.Limit} {
		all[name] = d.String()
	}
	return all, nil
}

// hashes are the files of a tar, each with the first half of its SHA-256.
func hashes(data []byte) (map[string]string, error) {
	all := map[string]string{}
	if len(data) == 0 {
		return all, nil
	}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("the files of a node cannot be read: %w", err)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		sum := sha256.New()
		fmt.Fprintf(sum, "%o %s\n", h.Mode, h.Linkname)
		if _, err := io.Copy(sum, r); err != nil {
			return nil, fmt.Errorf("the files of a node cannot be read: %w", err)
		}
		all[h.Name] = hex.EncodeToString(sum.Sum(nil)[:16])
	}
}

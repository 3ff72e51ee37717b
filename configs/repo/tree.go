package repo

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"bramble/configs/policy"
)

// part is a source with the files of its commit.
type part struct {
	policy.Source
	all files
}

// content is one file of a merged tree.
type content struct {
	data []byte
	exec bool
	own  string // its path in the first repository; empty when it comes from another
}

// merge puts the parts over one another: of two files with one name, the earlier part's holds, as with gitfs_remotes.
func merge(parts []part, left *int) (map[string]content, error) {
	merged := map[string]content{}
	for _, p := range parts {
		for _, name := range slices.Sorted(maps.Keys(p.all)) {
			rel, inside := strings.CutPrefix(name, p.Root+"/")
			if p.Root == "" {
				rel, inside = name, true
			}
			to := path.Join(p.Mountpoint, rel)
			if _, taken := merged[to]; !inside || taken {
				continue
			}
			data, exec, err := p.all.get(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue // a link that leads nowhere, or to a folder
			}
			if err != nil {
				return nil, fmt.Errorf("%s of %s cannot be read: %w", name, redact(p.URL), err)
			}
			if *left -= len(data); *left < 0 || len(merged) >= maxFiles {
				return nil, errTooLarge
			}
			c := content{data: data, exec: exec}
			if p.URL == policy.Own {
				c.own = name
			}
			merged[to] = c
		}
	}
	return merged, nil
}

// pack makes the tar of both trees, below states and pillar. The same files are the same bytes.
func pack(states, pillar map[string]content) ([]byte, string, error) {
	all := map[string]content{}
	for top, tree := range map[string]map[string]content{"states": states, "pillar": pillar} {
		for name, c := range tree {
			all[top+"/"+name] = c
		}
	}
	made := map[string]bool{}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	dir := func(name string) error {
		if made[name] {
			return nil
		}
		made[name] = true
		return w.WriteHeader(header(name+"/", tar.TypeDir, 0o755, 0))
	}
	err := errors.Join(dir("pillar"), dir("states"))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for i, c := range name {
			if c == '/' {
				err = errors.Join(err, dir(name[:i]))
			}
		}
		mode := int64(0o644)
		if all[name].exec {
			mode = 0o755
		}
		err2 := w.WriteHeader(header(name, tar.TypeReg, mode, int64(len(all[name].data))))
		_, err3 := w.Write(all[name].data)
		if err = errors.Join(err, err2, err3); err != nil {
			return nil, "", fmt.Errorf("%s cannot be packed: %w", name, err)
		}
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(b.Bytes())
	return b.Bytes(), hex.EncodeToString(sum[:]), nil
}

func header(name string, kind byte, mode, size int64) *tar.Header {
	return &tar.Header{Name: name, Typeflag: kind, Mode: mode, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
}

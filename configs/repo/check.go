package repo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"bramble/configs/policy"
)

// CheckDir says what is wrong with a working tree; nothing when its commit would be taken. Of other repositories that
// it names nothing is looked at.
func CheckDir(dir string) ([]policy.Finding, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("the configuration cannot be read; name the directory that bramble.yaml is in: %w", err)
	}
	defer root.Close()
	all, err := ofDir(root)
	if err != nil {
		return nil, fmt.Errorf("the configuration in %s cannot be read: %w", dir, err)
	}
	return checkOwn(all), nil
}

// CheckTar is CheckDir for a tar, as git archive makes it.
func CheckTar(r io.Reader) ([]policy.Finding, error) {
	all, err := ofTar(r)
	if err != nil {
		return nil, fmt.Errorf("the commit cannot be read: %w", err)
	}
	if len(all) == 0 {
		return nil, errors.New("the commit has no files; keep at least " + policy.File)
	}
	return checkOwn(all), nil
}

// checkOwn checks the first repository by itself.
func checkOwn(all files) []policy.Finding {
	p, found := readPolicy(all)
	if found != nil {
		return found
	}
	d := deduce(p, nil, nil)
	left := maxBytes
	states, err1 := merge(ownOnly(d.states, all), &left)
	pillar, err2 := merge(ownOnly(d.pillars, all), &left)
	if err := errors.Join(err1, err2); err != nil {
		return []policy.Finding{{File: policy.File, Text: err.Error()}}
	}
	return check(p, all, states, pillar, foreign(d.states))
}

func ownOnly(sources []policy.Source, all files) (parts []part) {
	for _, s := range sources {
		if s.URL == policy.Own {
			parts = append(parts, part{s, all})
		}
	}
	return parts
}

func foreign(sources []policy.Source) bool {
	return slices.ContainsFunc(sources, func(s policy.Source) bool { return s.URL != policy.Own })
}

// readPolicy reads bramble.yaml; a repository without one gets the default.
func readPolicy(all files) (*policy.Policy, []policy.Finding) {
	text, _, err := all.get(policy.File)
	if errors.Is(err, fs.ErrNotExist) {
		return policy.Default(), nil
	}
	if err != nil {
		return nil, []policy.Finding{{File: policy.File, Text: err.Error()}}
	}
	return policy.Parse(policy.File, text)
}

// check looks at a configuration as a whole. Salt's files are rendered on the node, so that only those of the first
// repository that have no template in them can be judged here.
func check(p *policy.Policy, all files, states, pillar map[string]content, more bool) (found []policy.Finding) {
	if _, ok := states["top.sls"]; !ok && !more && p.Salt.Mode == policy.Masterless {
		found = append(found, policy.Finding{File: "salt/top.sls", Text: "there is no top file, so Salt would not know what to do; add one, or write mode: off under salt in " + policy.File})
	}
	for _, tree := range []map[string]content{states, pillar} {
		for _, name := range slices.Sorted(maps.Keys(tree)) {
			if c := tree[name]; c.own != "" && strings.HasSuffix(name, ".sls") && !policy.Templated(c.data) {
				found = append(found, policy.Syntax(c.own, c.data)...)
			}
		}
	}
	for _, l := range p.Layers {
		if _, _, err := all.get(l.Keyring); err != nil {
			found = append(found, policy.Finding{File: policy.File, Text: fmt.Sprintf("the keyring %s of layer %s is not in the repository; add the file", l.Keyring, l.Name)})
		}
	}
	return found
}

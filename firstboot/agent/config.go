package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"

	"bramble/firstboot/unpack"
	"bramble/firstboot/wire"
)

// Where the configuration's files are: a folder for the commit, and a link to the one that holds.
const (
	configDir = "run/bramble/config"
	current   = "current"
)

const configFile = "config.json"

// maxTree bounds the tar of a node's Salt files.
const maxTree = 64 << 20

var validCommit = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]{0,99}$`)

// fetchConfig asks what the configuration says of this node. With since, it waits until that is another commit, for a
// minute at the most; then known is false if there is none.
func (a *Agent) fetchConfig(ctx context.Context, since string) (c wire.Config, news bool, err error) {
	query := url.Values{}
	if since != "" {
		query.Set("since", since)
	} else {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	answer, code, err := a.client.get(ctx, wire.ConfigPath, query, maxAnswer)
	if err != nil || code == http.StatusNotModified {
		return wire.Config{}, false, err
	}
	if err := decode(answer, &c); err != nil {
		return wire.Config{}, false, err
	}
	if !validCommit.MatchString(c.Commit) {
		return wire.Config{}, false, fmt.Errorf("the appliance's configuration has the commit %q, which is none", c.Commit)
	}
	return c, true, nil
}

// tree is the folder of a commit's files.
func (a *Agent) tree(commit string) string { return a.path(filepath.Join(configDir, commit)) }

// hasTree tells whether a configuration's files are the current ones, whole and as they came.
func (a *Agent) hasTree(c wire.Config) func() bool {
	return func() bool {
		to, err := os.Readlink(a.path(filepath.Join(configDir, current)))
		return err == nil && to == c.Commit && readLine(filepath.Join(a.tree(c.Commit), ".sha256")) == c.TreeSHA
	}
}

// bring fetches a configuration's files and switches to them.
func (a *Agent) bring(ctx context.Context, c wire.Config) (wire.StepReport, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*patience)
	defer cancel()
	tar, _, err := a.client.get(ctx, wire.TreePath, url.Values{"commit": {c.Commit}}, maxTree)
	if err != nil {
		return wire.StepReport{}, err
	}
	if sum := sha256.Sum256(tar); hex.EncodeToString(sum[:]) != c.TreeSHA {
		return wire.StepReport{}, fmt.Errorf("the files of commit %s have the SHA-256 %x, the configuration says %s", short(c.Commit), sum, c.TreeSHA)
	}
	n, err := a.unpackTree(c, tar)
	if err != nil {
		return wire.StepReport{}, err
	}
	if err := a.switchTo(c.Commit); err != nil {
		return wire.StepReport{}, err
	}
	return wire.StepReport{Text: fmt.Sprintf("%d files of commit %s.", n, short(c.Commit)), Commit: c.Commit}, nil
}

// unpackTree makes the commit's folder. It appears only when it is whole.
func (a *Agent) unpackTree(c wire.Config, tar []byte) (n int, err error) {
	next := a.path(filepath.Join(configDir, ".next"))
	// Pillars may hold secrets.
	err = errors.Join(os.MkdirAll(a.path(configDir), 0o700), os.RemoveAll(next), os.MkdirAll(filepath.Join(next, "states"), 0o700),
		os.MkdirAll(filepath.Join(next, "pillar"), 0o700))
	if err != nil {
		return 0, fmt.Errorf("the configuration has no place: %w", err)
	}
	root, err := os.OpenRoot(next)
	if err != nil {
		return 0, fmt.Errorf("the configuration has no place: %w", err)
	}
	defer root.Close()
	if n, err = unpack.Over(root, bytes.NewReader(tar)); err != nil {
		return 0, err
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(next, ".sha256"), []byte(c.TreeSHA), 0o600),
		os.RemoveAll(a.tree(c.Commit)),
		os.Rename(next, a.tree(c.Commit)))
	if err != nil {
		return 0, fmt.Errorf("the configuration's files cannot be kept: %w", err)
	}
	return n, nil
}

// switchTo makes a commit the current one and removes the others.
func (a *Agent) switchTo(commit string) error {
	dir := a.path(configDir)
	link := filepath.Join(dir, ".link")
	err := errors.Join(remove(link), os.Symlink(commit, link), os.Rename(link, filepath.Join(dir, current)))
	if err != nil {
		return fmt.Errorf("the configuration cannot be switched to commit %s: %w", short(commit), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != commit && e.Name() != current {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// short is a commit as people write it.
func short(commit string) string { return commit[:min(len(commit), 12)] }

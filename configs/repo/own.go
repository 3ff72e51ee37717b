package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"

	"bramble/configs/starter"
)

// ownConfig is the own repository's config file. Objects are never thrown away by themselves: boots are pinned to old
// commits, and a Store reads while git writes. A push is on the disk before it is answered.
const ownConfig = `[core]
	repositoryformatversion = 0
	filemode = true
	bare = true
	fsync = all
[receive]
	fsckObjects = true
	autogc = false
[gc]
	auto = 0
	pruneExpire = never
`

// prepare makes what is missing: each repository appears whole, or not at all.
func (s *Store) prepare() error {
	if !exists(s.path(remotesName)) {
		if err := s.appear(remotesName, func(*git.Repository) error { return nil }); err != nil {
			return err
		}
	}
	if s.o.URL != "" {
		return nil
	}
	if !exists(s.path(ownName)) {
		if err := s.appear(ownName, s.begin); err != nil {
			return err
		}
	}
	return errors.Join(s.sweep(), s.writeHook())
}

// stale is the age at which what a write leaves behind belongs to nobody: a lock is held for a moment, a push for patience.
const stale = patience + time.Minute

// sweep removes what a kill left behind: git would refuse pushes for a lock, and never clean up half a push.
func (s *Store) sweep() error {
	for _, pattern := range []string{".new-*", ".push-*", ownName + "/*.lock", ownName + "/refs/heads/*.lock", ownName + "/objects/*objdir-incoming-*", ownName + "/objects/incoming-*"} {
		left, err := filepath.Glob(s.path(pattern))
		if err != nil {
			return err
		}
		for _, name := range left {
			info, err := os.Stat(name)
			if err != nil || s.o.Now().Sub(info.ModTime()) < stale {
				continue // it has just been taken away, or is in use
			}
			if err := os.RemoveAll(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) appear(name string, fill func(*git.Repository) error) error {
	half := s.path(name + ".new")
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	r, err := git.PlainInit(half, true)
	if err != nil {
		return err
	}
	if err := errors.Join(fill(r), os.WriteFile(filepath.Join(half, "config"), []byte(ownConfig), 0o600)); err != nil {
		return err
	}
	return os.Rename(half, s.path(name))
}

// begin makes the first commit of the own repository.
func (s *Store) begin(r *git.Repository) error {
	all := map[string][]byte{}
	tree := starter.Files()
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		all[name], err = fs.ReadFile(tree, name)
		return err
	})
	if err != nil {
		return err
	}
	hash, err := writeCommit(r.Storer, all, "Begin with bramble's starter", s.o.Now())
	if err != nil {
		return err
	}
	branch := plumbing.NewBranchReferenceName(s.ownBranch())
	return errors.Join(
		r.Storer.SetReference(plumbing.NewHashReference(branch, hash)),
		r.Storer.SetReference(plumbing.NewSymbolicReference(plumbing.HEAD, branch)))
}

const hook = `#!/bin/sh
# Written by bramble at each start: a commit that would not be taken is refused.
while read -r _ new ref; do
	[ "$ref" = 'refs/heads/BRANCH' ] || continue
	git archive --format=tar "$new" | CHECK || exit 1
done
`

// writeHook has a push checked before its commit is there for anybody.
func (s *Store) writeHook() error {
	if len(s.o.Check) == 0 {
		return nil
	}
	words := make([]string, len(s.o.Check))
	for i, word := range s.o.Check {
		words[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	dir := filepath.Join(s.path(ownName), "hooks")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, "pre-receive")
	text := strings.NewReplacer("BRANCH", s.ownBranch(), "CHECK", strings.Join(words, " ")).Replace(hook)
	if err := writeAtomically(file, text); err != nil {
		return err
	}
	if err := os.Chmod(file, 0o755); err != nil {
		return fmt.Errorf("the check of pushes cannot be made executable: %w", err)
	}
	return nil
}

package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage"

	"bramble/configs/policy"
)

// glance is how often Run sees whether the own repository was written to by something else than a push over HTTP.
const glance = 2 * time.Second

// Run looks at the repositories until ctx ends: at the own one after every push, at others every Options.Poll.
func (s *Store) Run(ctx context.Context) error {
	s.look(ctx, true)
	glances, polls := time.NewTicker(glance), time.NewTicker(s.o.Poll)
	defer glances.Stop()
	defer polls.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.poke:
			s.look(ctx, false) // a push does not wait for a remote that is away
			s.look(ctx, true)
		case <-polls.C:
			s.look(ctx, true)
		case <-glances.C:
			if s.o.URL == "" {
				s.glance(ctx)
			}
		}
	}
}

// Look looks at all repositories now, and takes what is new and good.
func (s *Store) Look(ctx context.Context) { s.look(ctx, true) }

func (s *Store) glance(ctx context.Context) {
	s.looking.Lock()
	head, err := s.ownHead()
	news := err == nil && head != s.seen
	s.looking.Unlock()
	if news {
		s.look(ctx, true)
	}
}

// look takes the newest commits; ask says whether remotes may be asked, or only what was fetched before is looked at.
func (s *Store) look(ctx context.Context, ask bool) {
	s.looking.Lock()
	defer s.looking.Unlock()
	first, err := s.firstHead(ctx, ask)
	if err != nil {
		if ask {
			s.warn("first", fmt.Sprintf("The configuration cannot be looked at, what held before holds: %v.", err))
		}
		return
	}
	s.warn("first", "")
	s.seen = first
	next, err := s.candidate(ctx, first, ask)
	if err == nil && next == s.Current().Commit {
		s.settle()
		return
	}
	var made *Snapshot
	if err == nil {
		made, err = s.load(next)
	}
	switch {
	case err == nil:
		s.swap(made)
	case errors.Is(err, errNotFetched) && !ask, ctx.Err() != nil:
	default:
		s.refuse(first, err.Error())
	}
}

// settle forgets a refusal: the newest commit is the one that holds.
func (s *Store) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = ""
}

// candidate names the configuration that a commit of the first repository makes with the newest of all others.
func (s *Store) candidate(ctx context.Context, first string, ask bool) (pin string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("commit %s is damaged: %v", short(first), p)
		}
	}()
	all, _, err := s.files(first)
	if err != nil {
		return "", err
	}
	p, found := readPolicy(all)
	if found != nil {
		return "", &broken{found}
	}
	d := deduce(p, s.o.States, s.o.Pillars)
	own := deduce(p, nil, nil)
	if !foreign(d.states) && !foreign(d.pillars) && slices.Equal(d.states, own.states) && slices.Equal(d.pillars, own.pillars) {
		return first, nil
	}
	rec := record{First: first}
	for _, one := range []struct {
		sources []policy.Source
		to      *[]pinned
	}{{d.states, &rec.States}, {d.pillars, &rec.Pillars}} {
		for _, source := range one.sources {
			hash, err := s.head(ctx, source, first, ask)
			if err != nil {
				return "", err
			}
			*one.to = append(*one.to, pinned{source, hash})
		}
	}
	return s.write(rec)
}

// head is the newest commit of a source. One that cannot be reached stays at what was fetched before.
func (s *Store) head(ctx context.Context, source policy.Source, first string, ask bool) (string, error) {
	if source.URL == policy.Own {
		return first, nil
	}
	if ask {
		err := s.fetch(ctx, source.URL, source.Branch)
		if err != nil && ctx.Err() != nil {
			return "", ctx.Err()
		}
		hash, before := s.fetched(source.URL, source.Branch)
		switch {
		case err == nil && before == nil:
			s.warn(source.URL, "")
			return hash, nil
		case before != nil:
			return "", errors.Join(err, before)
		}
		s.warn(source.URL, fmt.Sprintf("The repository %s cannot be reached, what was fetched before holds: %v.", redact(source.URL), err))
		return hash, nil
	}
	return s.fetched(source.URL, source.Branch)
}

func (s *Store) firstHead(ctx context.Context, ask bool) (string, error) {
	if s.o.URL == "" {
		return s.ownHead()
	}
	return s.head(ctx, policy.Source{URL: s.o.URL, Branch: s.o.Branch}, "", ask)
}

func (s *Store) ownBranch() string {
	if s.o.Branch != "" {
		return s.o.Branch
	}
	return "main"
}

func (s *Store) ownHead() (string, error) {
	r, err := git.PlainOpen(s.path(ownName))
	if err != nil {
		return "", err
	}
	ref, err := r.Reference(plumbing.NewBranchReferenceName(s.ownBranch()), true)
	if err != nil {
		return "", fmt.Errorf("the branch %s of %s cannot be read; push it: %w", s.ownBranch(), ownName, err)
	}
	return ref.Hash().String(), nil
}

// write keeps a record as a commit in remotes.git. The same record is the same commit.
func (s *Store) write(rec record) (string, error) {
	r, err := git.PlainOpen(s.path(remotesName))
	if err != nil {
		return "", err
	}
	text, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return "", err
	}
	hash, err := writeCommit(r.Storer, map[string][]byte{recordFile: text}, rec.title(), time.Unix(0, 0).UTC())
	return hash.String(), err
}

func (r record) title() string {
	what := []string{"first " + short(r.First)}
	for _, one := range slices.Concat(r.States, r.Pillars) {
		if word := redact(one.URL) + " " + short(one.Commit); one.URL != policy.Own && !slices.Contains(what, word) {
			what = append(what, word)
		}
	}
	return strings.Join(what, ", ")
}

// writeCommit writes a commit without a parent.
func writeCommit(to storage.Storer, tree map[string][]byte, message string, at time.Time) (plumbing.Hash, error) {
	root, err := writeTree(to, tree)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	who := object.Signature{Name: "bramble", Email: "bramble@localhost", When: at}
	return writeObject(to, &object.Commit{Author: who, Committer: who, Message: message + "\n", TreeHash: root})
}

func writeTree(to storage.Storer, all map[string][]byte) (plumbing.Hash, error) {
	dirs := map[string]map[string][]byte{}
	var entries []object.TreeEntry
	for name, data := range all {
		if dir, rest, inside := strings.Cut(name, "/"); inside {
			if dirs[dir] == nil {
				dirs[dir] = map[string][]byte{}
			}
			dirs[dir][rest] = data
			continue
		}
		hash, err := writeBlob(to, data)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		entries = append(entries, object.TreeEntry{Name: name, Mode: filemode.Regular, Hash: hash})
	}
	for name, inside := range dirs {
		hash, err := writeTree(to, inside)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		entries = append(entries, object.TreeEntry{Name: name, Mode: filemode.Dir, Hash: hash})
	}
	slices.SortFunc(entries, func(a, b object.TreeEntry) int { return strings.Compare(sortName(a), sortName(b)) })
	return writeObject(to, &object.Tree{Entries: entries})
}

// sortName is git's order: a folder sorts as if its name ended in a slash.
func sortName(e object.TreeEntry) string {
	if e.Mode == filemode.Dir {
		return e.Name + "/"
	}
	return e.Name
}

func writeBlob(to storage.Storer, data []byte) (plumbing.Hash, error) {
	o := to.NewEncodedObject()
	o.SetType(plumbing.BlobObject)
	w, err := o.Writer()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	_, err = w.Write(data)
	if err = errors.Join(err, w.Close()); err != nil {
		return plumbing.ZeroHash, err
	}
	return to.SetEncodedObject(o)
}

func writeObject(to storage.Storer, what interface {
	Encode(plumbing.EncodedObject) error
}) (plumbing.Hash, error) {
	o := to.NewEncodedObject()
	if err := what.Encode(o); err != nil {
		return plumbing.ZeroHash, err
	}
	return to.SetEncodedObject(o)
}

package repo

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"bramble/configs/policy"
)

// recordFile is in the commits that a Store makes when the configuration has several repositories: it says which
// commit of each belongs together, so that a boot is pinned to one name for all.
const recordFile = ".bramble-sources.json"

type record struct {
	First   string   `json:"first"` // commit of the first repository
	States  []pinned `json:"states"`
	Pillars []pinned `json:"pillars"`
}

type pinned struct {
	policy.Source
	Commit string `json:"commit"`
}

// broken is what a configuration is when it does not pass; its text is for the owner.
type broken struct{ found []policy.Finding }

func (b *broken) Error() string {
	const most = 5
	if more := len(b.found) - most; more > 0 {
		return fmt.Sprintf("%s\nand %d more", policy.Join(b.found[:most]), more)
	}
	return policy.Join(b.found)
}

var fullHash = regexp.MustCompile(`^[0-9a-f]{40}$`)

// ErrNoCommit is wrapped by errors about commits that are in no repository here.
var ErrNoCommit = errors.New("there is no such commit; push it, or take another")

// commit finds a commit in the repositories here. They are opened anew, so that packs that came since are seen.
func (s *Store) commit(hash string) (*object.Commit, error) {
	if !fullHash.MatchString(hash) {
		return nil, fmt.Errorf("%.60q is not the name of a commit: %w", hash, ErrNoCommit)
	}
	for _, name := range []string{ownName, remotesName} {
		r, err := git.PlainOpen(s.path(name))
		if errors.Is(err, git.ErrRepositoryNotExists) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the repository %s cannot be opened: %w", name, err)
		}
		c, err := r.CommitObject(plumbing.NewHash(hash))
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("commit %s is damaged in %s; push it again: %w", short(hash), name, err)
		}
		return c, nil
	}
	return nil, fmt.Errorf("commit %s: %w", short(hash), ErrNoCommit)
}

func (s *Store) files(hash string) (files, *object.Commit, error) {
	c, err := s.commit(hash)
	if err != nil {
		return nil, nil, err
	}
	all, err := ofCommit(c)
	if err != nil {
		return nil, nil, fmt.Errorf("the files of commit %s cannot be read: %w", short(hash), err)
	}
	return all, c, nil
}

// load makes the snapshot of a commit, all in memory. The library is not proof against every damaged repository.
func (s *Store) load(hash string) (made *Snapshot, err error) {
	defer func() {
		if p := recover(); p != nil {
			made, err = nil, fmt.Errorf("commit %s is damaged: %v", short(hash), p)
		}
	}()
	all, c, err := s.files(hash)
	if err != nil {
		return nil, err
	}
	first := all
	var rec record
	if _, several := all[recordFile]; several {
		text, _, err := all.get(recordFile)
		if err == nil {
			err = json.Unmarshal(text, &rec)
		}
		if err != nil {
			return nil, fmt.Errorf("the record of commits %s cannot be read: %w", short(hash), err)
		}
		if first, _, err = s.files(rec.First); err != nil {
			return nil, err
		}
	}
	p, found := readPolicy(first)
	if found != nil {
		return nil, &broken{found}
	}
	if rec.First == "" {
		d := deduce(p, nil, nil)
		if foreign(d.states) || foreign(d.pillars) {
			return nil, fmt.Errorf("commit %s is a part of a configuration only: it names other repositories", short(hash))
		}
		rec = d.pin(hash)
	}
	made, err = s.build(p, first, rec)
	if err != nil {
		return nil, err
	}
	made.Commit = hash
	made.Title, _, _ = strings.Cut(strings.TrimSpace(c.Message), "\n")
	return made, nil
}

// build reads all files of a configuration and checks it as a whole.
func (s *Store) build(p *policy.Policy, first files, rec record) (*Snapshot, error) {
	left := maxBytes
	known := map[string]files{rec.First: first}
	read := func(sources []pinned) (map[string]content, error) {
		var parts []part
		for _, one := range sources {
			if known[one.Commit] == nil {
				all, _, err := s.files(one.Commit)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", redact(one.URL), err)
				}
				known[one.Commit] = all
			}
			parts = append(parts, part{one.Source, known[one.Commit]})
		}
		return merge(parts, &left)
	}
	states, err := read(rec.States)
	if err != nil {
		return nil, err
	}
	pillar, err := read(rec.Pillars)
	if err != nil {
		return nil, err
	}
	if found := check(p, first, states, pillar, false); found != nil {
		return nil, &broken{found}
	}
	made := &Snapshot{policy: p, Users: p.Users, Way: p.Salt.Way, every: scheduled(pillar)}
	for _, l := range p.Layers {
		keys, _, err := first.get(l.Keyring)
		if err != nil {
			return nil, err
		}
		made.Layers = append(made.Layers, Layer{l, keys})
	}
	made.tar, made.sha, err = pack(states, pillar)
	return made, err
}

// scheduled is the time between highstates that a pillar asks for.
func scheduled(pillar map[string]content) time.Duration {
	least := time.Duration(0)
	for name, c := range pillar {
		if !strings.HasSuffix(name, ".sls") {
			continue
		}
		if every, ok := policy.Schedule(c.data); ok && (least == 0 || every < least) {
			least = every
		}
	}
	if least == 0 {
		return policy.DefaultEvery
	}
	return least
}

// demand is which repositories a configuration is made of.
type demand struct{ states, pillars []policy.Source }

// deduce takes what bramble.yaml says, else what the settings say, else the folders of the first repository.
func deduce(p *policy.Policy, states, pillars []policy.Source) demand {
	pick := func(a, b, c []policy.Source) []policy.Source {
		switch {
		case a != nil:
			return a
		case b != nil:
			return b
		}
		return c
	}
	return demand{pick(p.Salt.Remotes, states, policy.OwnStates()), pick(p.Salt.Pillars, pillars, policy.OwnPillars())}
}

// pin is the record of a configuration that needs the first repository only.
func (d demand) pin(first string) record {
	all := func(sources []policy.Source) (all []pinned) {
		for _, one := range sources {
			all = append(all, pinned{one, first})
		}
		return all
	}
	return record{First: first, States: all(d.states), Pillars: all(d.pillars)}
}

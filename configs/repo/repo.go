// Package repo is the configuration in git: one repository that has bramble.yaml, and any number of others that Salt's
// states and pillars come from. A commit becomes a Snapshot, checked as a whole and immutable; a commit that does not
// pass changes nothing. The boot path only ever reads the present Snapshot: it waits for no disk and no remote.
//
// The appliance's own repository (config.git) is written by git receive-pack and only read here; what is fetched from
// others is in remotes.git, which nobody but a Store writes.
package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bramble/configs/policy"
	"bramble/node"
)

// Options say where the configuration is.
type Options struct {
	Dir     string          // of the repositories here; it is made, for its owner only
	URL     string          // of the first repository; empty: the appliance's own, config.git in Dir, begun with the starter
	Branch  string          // of the first repository; empty: main of the own one, HEAD of another
	States  []policy.Source // Salt's file roots where bramble.yaml names none; nil: the folder salt of the first repository
	Pillars []policy.Source // likewise; nil: the folder pillar
	Poll    time.Duration   // between looks at other repositories; 0: a minute
	Key     string          // file with the SSH key for ssh URLs; empty: id_ed25519 in Dir, made when it is needed
	Hosts   string          // known_hosts file for ssh URLs; empty: known_hosts in Dir

	Token  string   // admin token: password for reading and pushing over HTTP
	Public bool     // reading over HTTP needs no token
	Check  []string // command that reads a tar of a commit and refuses it by its exit code; a push runs it

	Record func(node.Event) // told of ConfigChanged, ConfigRefused and Warning; nil: nobody
	Now    func() time.Time // nil: time.Now
	Log    *slog.Logger     // nil: slog.Default
}

// Store keeps the present Snapshot. It is safe for concurrent use.
type Store struct {
	o       Options
	current atomic.Pointer[Snapshot]
	poke    chan struct{} // a push came
	pushes  chan struct{} // bounds the git processes at once

	looking sync.Mutex // one look at a time; guards remotes.git, seen and said
	seen    string     // first repository's commit that was looked at last
	said    map[string]string

	mu      sync.Mutex
	changed chan struct{}
	refused string
	recent  []*Snapshot // older ones that boots are pinned to, the latest used last
}

const (
	ownName     = "config.git"
	remotesName = "remotes.git"
	goodName    = "good" // file with the commit of the last good snapshot
	keepRecent  = 8
)

// Open makes or opens the repositories in o.Dir and takes up the last configuration that was good. It asks no remote;
// Run does. An error means that the directory cannot be used.
func Open(o Options) (*Store, error) {
	if o.Record == nil {
		o.Record = func(node.Event) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Poll <= 0 {
		o.Poll = time.Minute
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("the configuration's directory is not known: %w", err)
	}
	o.Dir = dir
	s := &Store{o: o, poke: make(chan struct{}, 1), pushes: make(chan struct{}, 8), changed: make(chan struct{}), said: map[string]string{}}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("the configuration's directory cannot be made; choose another with --state-dir: %w", err)
	}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("the configuration's repositories in %s cannot be made: %w", o.Dir, err)
	}
	first, err := nothing()
	if err != nil {
		return nil, err
	}
	s.current.Store(first)
	if good, err := os.ReadFile(s.path(goodName)); err == nil {
		if last, err := s.At(strings.TrimSpace(string(good))); err == nil {
			s.current.Store(last)
		} else {
			s.warn(goodName, fmt.Sprintf("The configuration that held before the restart cannot be read: %v.", err))
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the name of the last good configuration cannot be read: %w", err)
	}
	s.look(context.Background(), false)
	return s, nil
}

func (s *Store) path(name string) string { return filepath.Join(s.o.Dir, name) }

// Current is the configuration that holds now. It is never nil.
func (s *Store) Current() *Snapshot { return s.current.Load() }

// Changed returns a channel that is closed when the next configuration takes over.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Refused says why the newest commit does not hold; empty when it does.
func (s *Store) Refused() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// At is an older configuration, by its commit: a boot is pinned to one. Without a commit it is the one before any.
func (s *Store) At(commit string) (*Snapshot, error) {
	if commit == "" {
		return nothing()
	}
	if now := s.Current(); now.Commit == commit {
		return now, nil
	}
	s.mu.Lock()
	i := slices.IndexFunc(s.recent, func(r *Snapshot) bool { return r.Commit == commit })
	if i >= 0 {
		found := s.recent[i]
		s.recent = append(slices.Delete(s.recent, i, i+1), found)
		s.mu.Unlock()
		return found, nil
	}
	s.mu.Unlock()
	found, err := s.load(commit)
	if err != nil {
		return nil, err
	}
	s.keep(found)
	return found, nil
}

func (s *Store) keep(one *Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.recent, func(r *Snapshot) bool { return r.Commit == one.Commit }) {
		return
	}
	if len(s.recent) >= keepRecent {
		s.recent = slices.Delete(s.recent, 0, 1)
	}
	s.recent = append(s.recent, one)
}

// swap makes next the configuration that holds.
func (s *Store) swap(next *Snapshot) {
	if before := s.current.Swap(next); before.Commit != "" {
		s.keep(before)
	}
	s.mu.Lock()
	s.refused = ""
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	if err := writeAtomically(s.path(goodName), next.Commit+"\n"); err != nil {
		s.o.Log.Warn("the name of the present configuration cannot be kept; after a restart, the newest commit must be good", "err", err)
	}
	s.o.Record(node.Event{Time: s.o.Now(), Kind: node.ConfigChanged, Commit: next.Commit, Text: fmt.Sprintf("The configuration is now commit %s%s.", short(next.Commit), quoted(next.Title))})
}

// refuse tells once why a commit does not hold.
func (s *Store) refuse(commit, why string) {
	s.mu.Lock()
	again := s.refused == why
	s.refused = why
	s.mu.Unlock()
	if !again {
		s.o.Record(node.Event{Time: s.o.Now(), Kind: node.ConfigRefused, Commit: commit,
			Text: fmt.Sprintf("Commit %s was not taken, what held before holds. %s", short(commit), why)})
	}
}

// warn tells of a trouble once, until it changes or ends with an empty text.
func (s *Store) warn(about, text string) {
	if s.said[about] == text {
		return
	}
	s.said[about] = text
	if text != "" {
		s.o.Record(node.Event{Time: s.o.Now(), Kind: node.Warning, Text: text})
	}
}

func short(commit string) string { return commit[:min(len(commit), 8)] }

func quoted(title string) string {
	if title == "" {
		return ""
	}
	return fmt.Sprintf(" (%.80s)", strings.TrimRight(title, "."))
}

func writeAtomically(name, text string) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

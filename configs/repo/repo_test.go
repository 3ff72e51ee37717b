package repo

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bramble/boot"
	"bramble/configs/policy"
	"bramble/firstboot/wire"
	"bramble/node"

	"github.com/google/go-cmp/cmp"
)

func TestStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "config")
	w := open(t, Options{Dir: dir})
	now := w.Current()
	if kind, text := w.last(); kind != node.ConfigChanged || !strings.Contains(text, "Begin with bramble's starter") || len(w.recorded()) != 1 {
		t.Errorf("recorded %s %q", kind, text)
	}
	got := tree(t, now)
	for _, name := range []string{"states/top.sls", "states/base/init.sls", "pillar/top.sls", "pillar/base.sls"} {
		if got[name] == "" {
			t.Errorf("the starter's tree lacks %s", name)
		}
	}
	rules := now.Rules(boot.Rules{Default: boot.Profile{Image: "lite"}, Commit: "x"})
	want := boot.Profile{Image: "lite", Cmdline: []string{"cgroup_enable=memory", "cgroup_memory=1"}, Roles: []string{"base"}, Layers: []string{"salt"}}
	if diff := cmp.Diff(want, rules.Default); diff != "" || rules.Commit != now.Commit {
		t.Errorf("rules of %s (-want +got):\n%s", rules.Commit, diff)
	}
	salt := wire.Salt{Mode: "masterless", ID: "alpha", Env: "base", Every: time.Hour, Grains: map[string]any{"roles": []string{"base"}}}
	if diff := cmp.Diff(salt, now.Salt(node.State{Name: "alpha"})); diff != "" {
		t.Errorf("salt (-want +got):\n%s", diff)
	}

	again := open(t, Options{Dir: dir})
	if again.Current().Commit != now.Commit || again.Current().sha != now.sha || len(again.recorded()) != 0 {
		t.Errorf("opened again: %s, %d events; want %s and none", again.Current().Commit, len(again.recorded()), now.Commit)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory is open to others: %v, %v", info.Mode(), err)
	}
}

// owner is the layout of three repositories: a formula, states and pillar in one, and a tree of states at the top.
func owner(t *testing.T) (formula, pillar, states string) {
	formula = remote(t, "master", map[string]string{"salt/minion.sls": "formula", "salt/map.jinja": "m", "README.rst": "formula", "pillar.example": "p"})
	pillar = remote(t, "master", map[string]string{
		"salt/top.sls": "base:\n  '*':\n    - salt.minion\n", "pillar/top.sls": "base:\n  '*':\n    - salt.minion\n",
		"pillar/salt/minion.sls": "schedule:\n  highstate:\n    function: state.highstate\n    minutes: 30\n",
	})
	states = remote(t, "master", map[string]string{"salt/minion.sls": "own", "salt-bootstraper/minion.sls": "own", "README.rst": "own"})
	return formula, pillar, states
}

func sources(t *testing.T, lines ...string) (all []policy.Source) {
	for _, line := range lines {
		s, err := policy.ParseSource(line)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

func TestOwnersLayout(t *testing.T) {
	formula, pillar, states := owner(t)
	o := Options{
		Dir:    filepath.Join(t.TempDir(), "config"),
		States: sources(t, formula, pillar+" root=salt branch=master", states), Pillars: sources(t, pillar+" root=pillar branch=master"),
	}
	w := open(t, o)
	if got := w.Current().Salt(node.State{Name: "a"}).Mode; got != "off" || len(w.recorded()) != 0 {
		t.Errorf("before anything was fetched Salt is %q, and %d events", got, len(w.recorded()))
	}
	w.Look(t.Context())
	first := w.Current()
	want := map[string]string{
		"states/top.sls": "base:\n  '*':\n    - salt.minion\n", "states/salt/minion.sls": "formula", "states/salt/map.jinja": "m",
		"states/README.rst": "formula", "states/pillar.example": "p", "states/salt-bootstraper/minion.sls": "own",
		"pillar/top.sls": "base:\n  '*':\n    - salt.minion\n", "pillar/salt/minion.sls": "schedule:\n  highstate:\n    function: state.highstate\n    minutes: 30\n",
	}
	if diff := cmp.Diff(want, tree(t, first)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	if got := first.Salt(node.State{Name: "a"}).Every; got != 30*time.Minute {
		t.Errorf("every %v; the pillar's schedule says 30 minutes", got)
	}

	commit(t, states, map[string]string{"new.sls": "x: y\n"})
	w.Look(t.Context())
	second := w.Current()
	if second.Commit == first.Commit || tree(t, second)["states/new.sls"] == "" {
		t.Errorf("a commit to the third repository changed nothing")
	}
	w.Look(t.Context())
	if w.Current() != second || len(w.recorded()) != 2 {
		t.Errorf("looking again made %d events; want two in all", len(w.recorded()))
	}

	// a boot stays pinned to its commits, over a restart and with the remotes gone
	for _, dir := range []string{formula, pillar, states} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	again := open(t, o)
	if again.Current().Commit != second.Commit || again.Current().sha != second.sha {
		t.Errorf("after the restart %s holds; want %s", again.Current().Commit, second.Commit)
	}
	old, err := again.At(first.Commit)
	if err != nil || old.sha != first.sha {
		t.Errorf("at %s: %v", first.Commit, err)
	}
	for range 2 {
		again.Look(t.Context())
	}
	if kind, text := again.last(); kind != node.Warning || !strings.Contains(text, "cannot be reached, what was fetched before holds") || len(again.recorded()) != 3 {
		t.Errorf("recorded %d events, the last %s %q; want one warning for each remote", len(again.recorded()), kind, text)
	}
	if again.Current().Commit != second.Commit || again.Refused() != "" {
		t.Errorf("without remotes %s holds, %q", again.Current().Commit, again.Refused())
	}
}

// What bramble.yaml says of repositories goes before the settings, with the own one among them.
func TestRemotesInPolicy(t *testing.T) {
	formula := remote(t, "trunk", map[string]string{"sub/ssh/init.sls": "formula", "sub/top.sls": "theirs", "other": "x"})
	w := open(t, Options{States: sources(t, "/nowhere")})
	clone := filepath.Join(t.TempDir(), "c")
	git_(t, "", "clone", "-q", w.serve(), clone)
	commit(t, clone, map[string]string{"bramble.yaml": "salt:\n  id: '{{name}}-{{suffix}}'\n  remotes:\n    - {url: ., root: salt}\n    - {url: " + formula + ", root: sub, mountpoint: 'salt://formulas'}\n"})
	git_(t, clone, "push", "-q", "origin", "main")
	w.Look(t.Context())
	got := tree(t, w.Current())
	if got["states/formulas/ssh/init.sls"] != "formula" || got["states/formulas/top.sls"] != "theirs" || got["states/top.sls"] == "" || got["states/other"] != "" {
		t.Errorf("tree: %v (%s)", got, w.Refused())
	}
	if id := w.Current().Salt(node.State{Name: "a", Facts: node.Facts{Suffix: "3Bp"}}).ID; id != "a-3Bp" {
		t.Errorf("minion id %q", id)
	}
	commit(t, clone, map[string]string{"bramble.yaml": "salt:\n  remotes:\n    - /nowhere\n"})
	git_(t, clone, "push", "-q", "origin", "main")
	before := w.Current()
	w.Look(t.Context())
	if kind, text := w.last(); kind != node.ConfigRefused || !strings.Contains(text, "the repository /nowhere cannot be fetched") {
		t.Errorf("recorded %s %q", kind, text)
	}
	if w.Current() != before {
		t.Error("a configuration whose repository cannot be fetched took over")
	}
}

// force pushes past the check, as a broken disk or an older bramble would have let it happen.
func (w *world) force(clone string) {
	w.t.Helper()
	file := filepath.Join(w.path(ownName), "hooks", "pre-receive")
	if err := os.Remove(file); err != nil {
		w.t.Fatal(err)
	}
	git_(w.t, clone, "push", "-q", w.path(ownName), "main")
	if err := w.writeHook(); err != nil {
		w.t.Fatal(err)
	}
}

func TestBadCommit(t *testing.T) {
	w := open(t, Options{})
	good := w.Current()
	clone := filepath.Join(t.TempDir(), "c")
	git_(t, "", "clone", "-q", w.path(ownName), clone)
	bad := commit(t, clone, map[string]string{"bramble.yaml": "nodes:\n- serial: 1\n"})
	w.force(clone)
	for range 3 {
		w.Look(t.Context())
	}
	all := w.recorded()
	if len(all) != 2 || all[1].Kind != node.ConfigRefused || all[1].Commit != bad || !strings.Contains(all[1].Text, "bramble.yaml:2: serial:") {
		t.Errorf("recorded %+v; want one refusal", all)
	}
	if w.Current() != good || !strings.Contains(w.Refused(), "bramble.yaml:2") {
		t.Errorf("%s holds, refused: %q", w.Current().Commit, w.Refused())
	}
	again := open(t, Options{Dir: w.o.Dir})
	if again.Current().Commit != good.Commit || again.Refused() == "" {
		t.Errorf("after a restart %s holds, refused: %q", again.Current().Commit, again.Refused())
	}
	mended := commit(t, clone, map[string]string{"bramble.yaml": "nodes: []\n"})
	git_(t, clone, "push", "-q", w.path(ownName), "main")
	w.Look(t.Context())
	if w.Current().Commit != mended || w.Refused() != "" {
		t.Errorf("mended: %s holds, refused: %q", w.Current().Commit, w.Refused())
	}
	// back to the good one by force
	git_(t, clone, "push", "-q", "-f", w.path(ownName), good.Commit+":main")
	w.Look(t.Context())
	if w.Current().Commit != good.Commit {
		t.Errorf("forced back: %s holds; want %s", w.Current().Commit, good.Commit)
	}
	if _, err := w.At(mended); err != nil {
		t.Errorf("a boot pinned to a commit that no branch has any more: %v", err)
	}
}

// A power cut in the middle of a push leaves objects half written: the last good configuration holds, and is read
// again after a restart.
func TestDamaged(t *testing.T) {
	for _, damage := range []struct {
		name string
		do   func(file string) error
	}{
		{"cut in half", func(file string) error {
			info, err := os.Stat(file)
			return errors.Join(err, os.Chmod(file, 0o600), os.Truncate(file, info.Size()/2))
		}},
		{"empty", func(file string) error { return errors.Join(os.Chmod(file, 0o600), os.Truncate(file, 0)) }},
		{"missing", os.Remove},
		{"noise", func(file string) error {
			return errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, []byte("x\x9cnoise"), 0o600))
		}},
	} {
		t.Run(damage.name, func(t *testing.T) {
			w := open(t, Options{})
			good := w.Current()
			before := objects(t, w.path(ownName))
			clone := filepath.Join(t.TempDir(), "c")
			git_(t, "", "clone", "-q", w.path(ownName), clone)
			commit(t, clone, map[string]string{"salt/new/init.sls": "a: []\n", "bramble.yaml": "nodes: []\n"})
			git_(t, clone, "push", "-q", w.path(ownName), "main")
			n := 0
			for file := range objects(t, w.path(ownName)) {
				if before[file] {
					continue
				}
				n++
				kept, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if err := damage.do(file); err != nil {
					t.Fatal(err)
				}
				w.Look(t.Context())
				if w.Current() != good {
					t.Fatalf("with %s damaged, %s took over", file, w.Current().Commit)
				}
				again := open(t, Options{Dir: w.o.Dir})
				if again.Current().Commit != good.Commit || again.Current().sha != good.sha || again.Refused() == "" {
					t.Errorf("with %s damaged, after a restart %q holds, refused: %q", file, again.Current().Commit, again.Refused())
				}
				_ = os.Remove(file)
				if err := os.WriteFile(file, kept, 0o444); err != nil {
					t.Fatal(err)
				}
			}
			if n < 5 {
				t.Fatalf("the commit had %d objects; want at least commit, trees and files", n)
			}
			w.Look(t.Context())
			if w.Current() == good {
				t.Errorf("the mended commit was not taken: %s", w.Refused())
			}
		})
	}
}

// objects are the loose objects of a repository.
func objects(t *testing.T, dir string) map[string]bool {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "objects", "??", "*"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, name := range all {
		names[name] = true
	}
	return names
}

// Killed while it made the repositories, or its notes, it starts as if nothing had been.
func TestHalfMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "config")
	for _, name := range []string{"config.git.new/objects/aa/bb", "remotes.git.new/HEAD", ".new-123"} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("half"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	w := open(t, Options{Dir: dir})
	if w.Current().Commit == "" {
		t.Error("nothing holds")
	}
	for _, good := range []string{"", "half", strings.Repeat("0", 40)} {
		if err := os.WriteFile(filepath.Join(dir, goodName), []byte(good), 0o644); err != nil {
			t.Fatal(err)
		}
		if again := open(t, Options{Dir: dir}); again.Current().Commit != w.Current().Commit {
			t.Errorf("with %q as the last good one, %q holds", good, again.Current().Commit)
		}
	}
}

func TestAt(t *testing.T) {
	w := open(t, Options{})
	for _, name := range []string{"main", "HEAD", "../../x", strings.Repeat("0", 40), strings.Repeat("z", 40)} {
		if _, err := w.At(name); !errors.Is(err, ErrNoCommit) {
			t.Errorf("%q: %v; want no commit", name, err)
		}
	}
	if s, err := w.At(""); err != nil || s.Commit != "" || s.Salt(node.State{}).Mode != "off" {
		t.Errorf("before any commit: %v", err)
	}
	clone := filepath.Join(t.TempDir(), "c")
	git_(t, "", "clone", "-q", w.path(ownName), clone)
	var all []string
	for _, text := range []string{"1", "2", "3", "4", "5", "6", "7"} {
		all = append(all, commit(t, clone, map[string]string{"README.md": text}))
	}
	git_(t, clone, "push", "-q", w.path(ownName), "main")
	for range 2 {
		for _, name := range all {
			if s, err := w.At(name); err != nil || s.Commit != name {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if len(w.recent) > keepRecent {
		t.Errorf("%d old configurations are kept", len(w.recent))
	}
}

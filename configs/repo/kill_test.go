package repo

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// kill starts a program and kills it and its children after a random time.
func kill(t *testing.T, most time.Duration, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(rand.N(most))
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Wait()
}

// Killed at any moment, appliance or push, the next start has a configuration that is whole, and the next push works.
func TestKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "config")
	for range 15 {
		kill(t, 60*time.Millisecond, "", os.Args[0], "open", dir)
		if exists(dir) && rand.N(3) == 0 {
			open(t, Options{Dir: dir})
		}
	}
	w := open(t, Options{Dir: dir})
	if tree(t, w.Current())["states/top.sls"] == "" {
		t.Fatalf("%q holds, without a top file; refused: %q", w.Current().Commit, w.Refused())
	}
	clone := filepath.Join(t.TempDir(), "c")
	git_(t, "", "clone", "-q", w.path(ownName), clone)
	old := w.o.Now().Add(-2 * stale)
	for i := range 15 {
		commit(t, clone, map[string]string{"salt/file": strings.Repeat(string(rune('a'+i)), 1<<20), "bramble.yaml": "names: n" + string(rune('a'+i)) + "-{{serial}}\n"})
		kill(t, 120*time.Millisecond, clone, "git", "push", "-q", "origin", "main")
		again := open(t, Options{Dir: dir})
		if again.Refused() != "" || again.Current().Commit == "" {
			t.Fatalf("after a killed push %q holds, refused: %q", again.Current().Commit, again.Refused())
		}
		got, want := tree(t, again.Current())["states/file"], ""
		if again.Current().Commit != w.Current().Commit {
			want = git_(t, clone, "show", again.Current().Commit+":salt/file")
		}
		if got != want {
			t.Fatalf("after a killed push the tree of %s is not that commit's", again.Current().Commit)
		}
		for _, lock := range []string{"refs/heads/main.lock", "objects/tmp_objdir-incoming-x"} {
			file := filepath.Join(w.path(ownName), lock)
			if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Chtimes(file, old, old)); err != nil {
				t.Fatal(err)
			}
		}
		if open(t, Options{Dir: dir}); exists(filepath.Join(w.path(ownName), "refs/heads/main.lock")) {
			t.Fatal("the lock of a killed push stays")
		}
	}
	git_(t, clone, "push", "-q", "origin", "main")
	w.Look(t.Context())
	if got := git_(t, clone, "rev-parse", "HEAD"); w.Current().Commit != got {
		t.Errorf("%s holds, refused: %q; want %s", w.Current().Commit, w.Refused(), got)
	}
	git_(t, w.path(ownName), "fsck", "--no-dangling")
}

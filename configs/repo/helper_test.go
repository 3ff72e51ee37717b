package repo

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bramble/configs/policy"
	"bramble/node"
)

// The test program is also the command that a push runs.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "check-tar" {
		found, err := CheckTar(os.Stdin)
		if err != nil || found != nil {
			fmt.Fprintln(os.Stderr, errors.Join(err, errors.New(policy.Join(found))))
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == "open" { // to be killed
		s, err := Open(Options{Dir: os.Args[2], Check: []string{os.Args[0], "check-tar"}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		for {
			s.Look(context.Background())
		}
	}
	os.Exit(m.Run())
}

const token = "secret-token"

// world is a store with what it recorded.
type world struct {
	*Store
	t      *testing.T
	mu     sync.Mutex
	events []node.Event
}

func (w *world) recorded() []node.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

// last is the kind and text of the newest event.
func (w *world) last() (node.Kind, string) {
	all := w.recorded()
	if len(all) == 0 {
		return "", ""
	}
	return all[len(all)-1].Kind, all[len(all)-1].Text
}

func open(t *testing.T, o Options) *world {
	t.Helper()
	w := &world{t: t}
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "config")
	}
	o.Token, o.Check, o.Log = token, []string{os.Args[0], "check-tar"}, slog.New(slog.NewTextHandler(io.Discard, nil))
	o.Now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	o.Record = func(e node.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	}
	var err error
	if w.Store, err = Open(o); err != nil {
		t.Fatal(err)
	}
	return w
}

// serve serves the store's repository; the URL has the token.
func (w *world) serve() (url string) {
	server := httptest.NewServer(w.Handler())
	w.t.Cleanup(server.Close)
	return strings.Replace(server.URL, "http://", "http://admin:"+token+"@", 1) + strings.TrimSuffix(Path, "/")
}

// git runs git, which must succeed; fails must fail. Both give what git says.
func git_(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := run(t, dir, args...)
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func fails(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := run(t, dir, args...)
	if err == nil {
		t.Fatalf("git %s went well:\n%s", strings.Join(args, " "), out)
	}
	return out
}

func run(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Fatal("git is not there; install the package git")
	}
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.org", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.org")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// remote makes a repository with one commit on the branch.
func remote(t *testing.T, branch string, tree map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	git_(t, dir, "init", "-q", "-b", branch)
	commit(t, dir, tree)
	return dir
}

// commit writes files (an empty text removes one), commits, and gives the commit's name.
func commit(t *testing.T, dir string, tree map[string]string) string {
	t.Helper()
	for name, text := range tree {
		file := filepath.Join(dir, name)
		if text == "" {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	git_(t, dir, "add", "-A")
	git_(t, dir, "commit", "-q", "-m", "Change "+strings.Join(slices.Sorted(maps.Keys(tree)), ", "))
	return git_(t, dir, "rev-parse", "HEAD")
}

// untar is the files of a tree, by name.
func untar(t *testing.T, data []byte) map[string]string {
	t.Helper()
	all := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			text, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			all[h.Name] = string(text)
		}
	}
}

func tree(t *testing.T, s *Snapshot) map[string]string {
	t.Helper()
	data, sha, err := s.Tree(node.State{})
	if err != nil || len(sha) != 64 {
		t.Fatalf("tree: %q, %v", sha, err)
	}
	return untar(t, data)
}

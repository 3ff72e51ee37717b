package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bramble/boot"
	"bramble/configs/repo"
	"bramble/configs/starter"
	"bramble/node"
)

// bramble runs a command line, and gives what it prints.
func bramble(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestConfigCheck(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, starter.Files()); err != nil {
		t.Fatal(err)
	}
	if out, err := bramble(t, "config", "check", dir); err != nil || out != "The configuration is well.\n" {
		t.Errorf("the starter: %q, %v", out, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bramble.yaml"), []byte("nodes:\n- {serial: 1}\nuserz: []\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := bramble(t, "config", "check", dir)
	if err == nil || !strings.Contains(err.Error(), "2 mistakes") || !strings.Contains(out, "bramble.yaml:2: serial:") || !strings.Contains(out, `bramble.yaml:3: unknown key "userz"`) {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := bramble(t, "config", "check", filepath.Join(dir, "nowhere")); err == nil || !strings.Contains(err.Error(), "name the directory") {
		t.Errorf("of no directory: %v", err)
	}
}

func TestPlan(t *testing.T) {
	dir := t.TempDir()
	store, err := repo.Open(repo.Options{Dir: filepath.Join(dir, "config")})
	if err != nil {
		t.Fatal(err)
	}
	first := store.Current().Commit
	nodes := node.NewRegistry()
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	nodes.Apply(node.Event{Kind: node.BootStarted, Node: node.MAC{1}, Serial: 0x8b07bcc6, Boot: "b1", Name: "pi-8b07bcc6", Image: "id1", Commit: first, Time: begin})
	images := map[string]string{"lite": "id1"}
	config := &configAPI{
		store: store, nodes: nodes, now: func() time.Time { return begin.Add(time.Hour) },
		base: func() boot.Rules {
			return boot.Rules{Default: boot.Profile{Image: "lite", User: "pi"}, Images: images}
		},
		files: func(p boot.Plan) ([]byte, error) { return nil, nil },
	}
	mux := http.NewServeMux()
	config.routes(mux)
	server := httptest.NewServer(mux)
	defer server.Close()
	ask := func(args ...string) string {
		t.Helper()
		out, err := bramble(t, append(args, "--server", server.URL)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := ask("plan", "8b07bcc6"); !strings.HasPrefix(out, "A power cycle of pi-8b07bcc6 would change nothing.") {
		t.Errorf("before a change: %s", out)
	}
	if out := ask("config", "show"); !strings.Contains(out, first) || !strings.Contains(out, "Begin with bramble's starter") {
		t.Errorf("config show: %s", out)
	}

	push(t, filepath.Join(dir, "config", "config.git"), map[string]string{
		"bramble.yaml":       "default: {cmdline-word: [cgroup_memory=1, quiet]}\nnodes:\n- {serial: 8b07bcc6, name: alpha, roles: [db]}\n",
		"salt/new/init.sls":  "a: []\n",
		"pillar/base.sls":    "schedule: {highstate: {function: state.apply, minutes: 5}}\n",
		"salt/base/motd.txt": "x",
	})
	store.Look(context.Background())
	images["lite"] = "id2"
	out := ask("plan", "8b07bcc6")
	for _, want := range []string{
		"A power cycle of pi-8b07bcc6 would make", "commit " + first + " → " + store.Current().Commit, "lite (id1) → lite (id2)", "pi-8b07bcc6 → alpha",
		"command line  - cgroup_enable=memory", "command line  + quiet", "role          - base", "role          + db", "1h0m0s → 5m0s",
		"+ states/new/init.sls", "~ pillar/base.sls", `"pi-8b07bcc6" → "alpha"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the plan lacks %q:\n%s", want, out)
		}
	}

	// Salt follows while the node runs: what it has applied is no change of the next boot
	nodes.Apply(node.Event{Kind: node.AgentDone, Step: "salt", Node: node.MAC{1}, Commit: store.Current().Commit})
	if out := ask("plan", "8b07bcc6"); strings.Contains(out, "states/new") || !strings.Contains(out, "role ") {
		t.Errorf("after it was applied:\n%s", out)
	}
	images["lite"] = ""
	delete(images, "lite")
	if out := ask("plan", "8b07bcc6"); !strings.Contains(out, "would not be booted. The image \"lite\" is not in the catalogue") {
		t.Errorf("without an image:\n%s", out)
	}
	if _, err := bramble(t, "plan", "nobody", "--server", server.URL); err == nil || !strings.Contains(err.Error(), "No board is known") {
		t.Errorf("of an unknown board: %v", err)
	}
}

// push commits files to a repository, with git.
func push(t *testing.T, to string, files map[string]string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "clone")
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=Ada", "-c", "user.email=ada@example.org"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s\nIs the package git installed?", args, err, out)
		}
	}
	git("clone", "-q", to, dir)
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git("-C", dir, "add", "-A")
	git("-C", dir, "commit", "-q", "-m", "Change")
	git("-C", dir, "push", "-q")
}

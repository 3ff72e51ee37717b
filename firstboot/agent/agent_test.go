package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bramble/firstboot/salt"
	"bramble/firstboot/wire"
)

func config(commit string) wire.Config {
	return wire.Config{Commit: commit, Salt: wire.Salt{Mode: salt.Masterless, ID: "pi-1", Env: "base"}}
}

func tree(text string) map[string]string {
	return map[string]string{"states/top.sls": text, "pillar/top.sls": "secret: yes"}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	return string(text)
}

// TestWhole goes from a booted system to a configured node, restarts the agent, and has it follow a commit.
func TestWhole(t *testing.T) {
	w := newAppliance(t)
	c := config("c1")
	c.Users = []wire.LoginUser{{Name: "ada", Keys: []string{"ssh-ed25519 ADA a@b"}, Sudo: true}, {Name: "pi", Keys: []string{"ssh-ed25519 PI"}}}
	w.commit(c, tree("one"))
	b := newBoard(t, w)
	stop := b.start(t)
	if r := w.awaitPlain("login", true); r.MAC != mac || r.Boot != "0badcafe" {
		t.Errorf("login: %+v", r)
	}
	for _, step := range []string{"facts", "enroll", "ssh", "users", "config", "salt", "ready"} {
		select {
		case r := <-w.steps:
			if r.Step != step || !r.OK || r.Text == "" {
				t.Fatalf("%s comes after the steps before %s: %+v", r.Step, step, r)
			}
			switch step {
			case "facts":
				if r.Facts["suffix"] != "3Bp" || r.Facts["serial"] != "d43f1c2e" {
					t.Errorf("facts: %v", r.Facts)
				}
			case "config", "salt", "ready":
				if r.Commit != "c1" {
					t.Errorf("%s: of commit %q", step, r.Commit)
				}
			}
			if step == "salt" && (r.States != 3 || r.Changed != 1 || r.Peak != 1<<20) {
				t.Errorf("salt: %+v", r)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("no report of %s", step)
		}
	}
	for file, mode := range map[string]os.FileMode{"agent/key.pem": 0o600, "agent": 0o700 | os.ModeDir, "config": 0o700 | os.ModeDir, "config/c1/pillar": 0o700 | os.ModeDir, "keys/ada": 0o644} {
		info, err := os.Stat(b.path("run/bramble/" + file))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v; want %v", file, info.Mode(), err, mode)
		}
	}
	for file, want := range map[string]string{
		"run/bramble/config/current/states/top.sls": "one", "run/bramble/keys/ada": "ssh-ed25519 ADA a@b\n",
		"etc/sudoers.d/020_bramble_ada": "ada ALL=(ALL) NOPASSWD: ALL\n", hostCert: "ssh-ed25519-cert-v01@openssh.com ssh-ed25519 AAAA root@pi-1\n",
	} {
		if got := read(t, b.path(file)); got != want {
			t.Errorf("%s: %q; want %q", file, got, want)
		}
	}
	if got := read(t, b.path(sshdConfig)); !strings.HasSuffix(got, "\nHostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub\n") {
		t.Errorf("sshd's configuration: %q", got)
	}
	stop()
	b.mu.Lock()
	want := []string{
		"/usr/sbin/sshd -t", "systemctl try-reload-or-restart ssh.service",
		"useradd --prefix ROOT --create-home --shell /bin/bash --password * ada",
	}
	if d := cmp.Diff(want, b.commands); d != "" {
		t.Errorf("commands: -want +got:\n%s", d)
	}
	b.mu.Unlock()
	w.mu.Lock()
	heard, output := w.heard.String(), w.output.String()
	w.mu.Unlock()
	if key := strings.Split(read(t, b.state(keyFile)), "\n")[1]; strings.Contains(heard, key) || strings.Contains(heard, "PRIVATE") {
		t.Error("a private key went over the wire")
	}
	if output != "salt: running one\n" {
		t.Errorf("output: %q", output)
	}

	// Started again, it has nothing to do but the facts, until there is another commit.
	again := newBoard(t, w)
	again.Root = b.Root
	again.start(t)
	w.await("facts", true)
	d := config("c2")
	w.commit(d, tree("two"))
	if r := w.await("salt", true); r.Commit != "c2" {
		t.Errorf("salt: %+v", r)
	}
	w.await("ready", true)
	again.mu.Lock()
	defer again.mu.Unlock()
	if len(again.runs) != 1 || len(again.commands) != 0 {
		t.Errorf("done again: %v, %v", again.runs, again.commands)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.enrolled) != 1 {
		t.Errorf("enrolled %d times", len(w.enrolled))
	}
	if entries, err := filepath.Glob(b.path("run/bramble/config/*")); err != nil || len(entries) != 2 {
		t.Errorf("the old commit stays: %v, %v", entries, err)
	}
	for _, gone := range []string{"run/bramble/keys/ada", "etc/sudoers.d/020_bramble_ada"} {
		if _, err := os.Stat(b.path(gone)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s stays: %v", gone, err)
		}
	}
}

// TestTrouble: everything fails at first, each failure is told once in the appliance's or the agent's words.
func TestTrouble(t *testing.T) {
	w := newAppliance(t)
	w.no = map[string]int{wire.EnrollPath: 2, wire.ConfigPath: 2, wire.TreePath: 1, wire.StepPath: 2}
	w.wait = 3
	c := config("c1")
	c.Users = []wire.LoginUser{{Name: "ada"}}
	w.commit(c, tree("one"))
	b := newBoard(t, w)
	b.fail["systemctl"] = errors.New("Unit ssh.service not found")
	b.fail["useradd"] = errors.New("exit status 1")
	b.start(t)
	w.await("enroll", true)
	if r := w.await("ssh", false); r.Text != "Sshd does not read its host certificate: Unit ssh.service not found." {
		t.Errorf("ssh: %q", r.Text)
	}
	heal := func(name string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.fail, name)
	}
	heal("systemctl")
	w.await("ssh", true)
	if r := w.await("config", false); r.Text != "The appliance says no (503 Service Unavailable): not now." {
		t.Errorf("config: %q", r.Text)
	}
	if r := w.await("users", false); r.Text != "The user ada cannot be made: exit status 1." {
		t.Errorf("users: %q", r.Text)
	}
	heal("useradd")
	w.await("users", true)
	w.await("config", true) // once more refused in the same words, which is not told again
	w.await("ready", true)
	b.mu.Lock()
	defer b.mu.Unlock()
	if want := "This node waits for its admin's approval. Its code is 4K7Q-2MXD; compare it with the appliance's page."; !slices.Equal(b.said, []string{want}) {
		t.Errorf("said: %q", b.said)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.enrolled {
		if r.CSR != w.enrolled[0].CSR || r.SSHKey != "ssh-ed25519 AAAA root@pi-1" {
			t.Error("the agent does not ask for the same again")
		}
	}
	for len(w.reports) > 0 {
		if r := <-w.reports; r.Step == "enroll" {
			t.Errorf("the appliance is told what it has said itself: %+v", r)
		}
	}
}

// TestDegraded: a highstate that fails is tried again by itself, and cured by another commit.
func TestDegraded(t *testing.T) {
	w := newAppliance(t)
	w.commit(config("c1"), tree("one"))
	b := newBoard(t, w)
	var ticks atomic.Int64
	b.Now = func() time.Time { return time.Now().Add(time.Duration(ticks.Add(1)) * 10 * time.Second) }
	bad := salt.Result{Text: "1 of 2 states failed; the first is x in y: no.", States: 2, Failed: []wire.FailedState{{ID: "x", File: "y", Comment: "no"}}}
	worse := bad
	worse.Text = "2 of 2 states failed; the first is x in y: no."
	b.results = []salt.Result{bad, bad, worse}
	b.start(t)
	if r := w.await("salt", false); r.Text != bad.Text || !cmp.Equal(r.Failed, bad.Failed) {
		t.Errorf("salt: %+v", r)
	}
	if r := w.await("degraded", false); r.Text != bad.Text || r.Commit != "c1" {
		t.Errorf("degraded: %+v", r)
	}
	if r := w.await("salt", false); r.Text != worse.Text {
		t.Errorf("the same failure is told twice, or the next one is not: %+v", r)
	}
	w.await("degraded", false)
	w.await("salt", true)
	w.await("ready", true)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.runs) != 4 {
		t.Errorf("%d runs", len(b.runs))
	}
}

// TestSchedule: the highstate is repeated, also while the appliance is away; ready is said once.
func TestSchedule(t *testing.T) {
	w := newAppliance(t)
	c := config("c1")
	c.Salt.Every = 50 * time.Millisecond
	w.commit(c, tree("one"))
	b := newBoard(t, w)
	b.start(t)
	w.await("ready", true)
	w.await("salt", true)
	w.await("salt", true)
	runs := func() int {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.runs)
	}
	w.secure.CloseClientConnections()
	_ = w.secure.Listener.Close()
	before := runs()
	for timeout := time.Now().Add(20 * time.Second); runs() < before+3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(timeout) {
			t.Fatal("without the appliance there are no highstates")
		}
	}
	for len(w.steps) > 0 {
		if r := <-w.steps; r.Step == "ready" {
			t.Errorf("ready again: %+v", r)
		}
	}
}

// TestWrongAuthority: an agent that is to speak to somebody else than the command line says gives nothing away.
func TestWrongAuthority(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *board){
		"another CA in the files": func(t *testing.T, b *board) {
			must(t, os.WriteFile(b.path("etc/bramble/ca.pem"), newAuthority(t, time.Now()).pem, 0o644))
		},
		"another server": func(t *testing.T, b *board) {
			other := newAppliance(t)
			b.Orders.Secure = strings.TrimPrefix(other.secure.URL, "https://")
		},
		"no certificate": func(t *testing.T, b *board) {
			must(t, os.WriteFile(b.path("etc/bramble/ca.pem"), []byte("hello"), 0o644))
		},
		"no token": func(t *testing.T, b *board) { b.Orders.Token = "" },
		"no pin":   func(t *testing.T, b *board) { b.Orders.Pin = "" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newAppliance(t)
			b := newBoard(t, w)
			change(t, b)
			b.start(t)
			r := w.awaitPlain("enroll", false)
			t.Log(r.Text)
			w.mu.Lock()
			defer w.mu.Unlock()
			if strings.Contains(w.heard.String(), "the token") {
				t.Error("the token is out")
			}
		})
	}
}

// TestClock: a board in 1970 takes the appliance's word for the time.
func TestClock(t *testing.T) {
	w := newAppliance(t)
	w.commit(config("c1"), tree("one"))
	b := newBoard(t, w)
	began := time.Now()
	b.Now = func() time.Time { return time.Unix(100, 0).Add(time.Since(began)) }
	b.start(t)
	w.await("ready", true)
}

// TestRenewal: the certificate is renewed over mutual TLS, without the token, before it ends.
func TestRenewal(t *testing.T) {
	w := newAppliance(t)
	w.life = time.Hour + 6*time.Second // it began an hour ago
	w.commit(config("c1"), tree("one"))
	b := newBoard(t, w)
	b.start(t)
	w.await("ready", true)
	w.await("enroll", true)
	w.await("ssh", true)
	w.mu.Lock()
	defer w.mu.Unlock()
	if last := w.enrolled[len(w.enrolled)-1]; last.Token != "" || last.CSR != w.enrolled[0].CSR {
		t.Errorf("renewed with %+v", last)
	}
}

// TestMaster: the minion's key is made here and is known to the appliance before the minion starts.
func TestMaster(t *testing.T) {
	w := newAppliance(t)
	c := config("c1")
	c.Salt.Mode, c.Salt.Master = salt.Master, "10.0.0.1"
	w.commit(c, tree("one"))
	b := newBoard(t, w)
	b.start(t)
	w.await("ready", true)
	w.mu.Lock()
	last := w.enrolled[len(w.enrolled)-1]
	w.mu.Unlock()
	if public := read(t, b.path("etc/salt/pki/minion/minion.pub")); len(w.enrolled) != 2 || last.Minion != public || !strings.HasPrefix(public, "-----BEGIN PUBLIC KEY-----\n") {
		t.Errorf("enrolled with %+v", last)
	}
	if info, err := os.Stat(b.path("etc/salt/pki/minion/minion.pem")); err != nil || info.Mode() != 0o400 {
		t.Errorf("minion.pem: %v, %v", info, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := b.commands[len(b.commands)-1]; last != "systemctl restart salt-minion.service" {
		t.Errorf("commands: %q", b.commands)
	}
}

// TestOff: a node without Salt is ready all the same.
func TestOff(t *testing.T) {
	w := newAppliance(t)
	c := config("c1")
	c.Salt.Mode = salt.Off
	w.commit(c, tree("one"))
	b := newBoard(t, w)
	b.start(t)
	w.await("ready", true)
	c.Commit = "c2"
	w.commit(c, tree("two"))
	if r := w.await("ready", true); r.Commit != "c2" {
		t.Errorf("ready: %+v", r)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.runs) != 0 {
		t.Error("Salt ran")
	}
}

// TestNoSalt: a node without Salt that should have it is degraded, and says why.
func TestNoSalt(t *testing.T) {
	w := newAppliance(t)
	w.commit(config("c1"), tree("one"))
	b := newBoard(t, w)
	b.Salt = func(context.Context, wire.Salt, salt.Dirs, io.Writer) (salt.Result, error) {
		return salt.Result{}, salt.ErrNoSalt
	}
	b.start(t)
	if r := w.await("degraded", false); r.Text != "There is no Salt on this node." {
		t.Errorf("degraded: %q", r.Text)
	}
}

// TestBadTrees: what is not what it says, or leads elsewhere, changes nothing; the next commit is taken.
func TestBadTrees(t *testing.T) {
	w := newAppliance(t)
	w.commit(config("c1"), tree("one"))
	b := newBoard(t, w)
	b.start(t)
	w.await("ready", true)
	c := config("c2")
	c.TreeSHA = strings.Repeat("0", 64)
	w.commit(c, tree("two"))
	if r := w.await("config", false); !strings.Contains(r.Text, "the configuration says 000000") {
		t.Errorf("config: %q", r.Text)
	}
	w.commit(config("c3"), map[string]string{"states/top.sls": "three", "../../evil": "x"})
	if r := w.await("config", false); !strings.Contains(r.Text, "leads out of the tree") {
		t.Errorf("config: %q", r.Text)
	}
	w.commit(config("../c4"), tree("four"))
	if r := w.await("config", false); !strings.Contains(r.Text, `"../c4", which is none`) {
		t.Errorf("config: %q", r.Text)
	}
	if got := read(t, b.path("run/bramble/config/current/states/top.sls")); got != "one" {
		t.Errorf("the current tree is %q", got)
	}
	w.commit(config("c5"), tree("five"))
	if r := w.await("ready", true); r.Commit != "c5" {
		t.Errorf("ready: %+v", r)
	}
}

package repo

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"bramble/node"
)

// One appliance's configuration is another's first repository, over HTTP.
func TestFirstOverHTTP(t *testing.T) {
	from := open(t, Options{})
	url := from.serve()
	o := Options{URL: url, Dir: filepath.Join(t.TempDir(), "config")}
	w := open(t, o)
	if w.Current().Commit != "" || len(w.recorded()) != 0 {
		t.Errorf("before it was fetched %q holds", w.Current().Commit)
	}
	w.Look(t.Context())
	if w.Current().Commit != from.Current().Commit || w.Current().sha != from.Current().sha {
		t.Errorf("%q holds (%s); want %s", w.Current().Commit, w.Refused(), from.Current().Commit)
	}
	clone := filepath.Join(t.TempDir(), "c")
	git_(t, "", "clone", "-q", url, clone)
	next := commit(t, clone, map[string]string{"README.md": "changed"})
	git_(t, clone, "push", "-q", "origin", "main")
	w.Look(t.Context())
	if w.Current().Commit != next {
		t.Errorf("after the push %q holds; want %s", w.Current().Commit, next)
	}
	for _, e := range w.recorded() {
		if strings.Contains(e.Text, token) {
			t.Errorf("the password is told: %q", e.Text)
		}
	}
	answer := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "http://appliance"+Path+"info/refs?service=git-upload-pack", nil)
	w.Handler().ServeHTTP(answer, r)
	if answer.Code != http.StatusNotFound || !strings.Contains(answer.Body.String(), "push there") || strings.Contains(answer.Body.String(), token) {
		t.Errorf("asked for its own repository it says %d %s", answer.Code, answer.Body)
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	w := open(t, Options{URL: "http://user:" + token + "@" + l.Addr().String() + "/x.git"})
	for range 2 {
		w.Look(t.Context())
	}
	kind, text := w.last()
	if kind != node.Warning || len(w.recorded()) != 1 || strings.Contains(text, token) || !strings.Contains(text, "what held before holds") {
		t.Errorf("recorded %d events, the last %s %q", len(w.recorded()), kind, text)
	}
	if w.Current() == nil || w.Current().Salt(node.State{}).Mode != "off" {
		t.Errorf("without a configuration Salt runs")
	}
}

func TestSSH(t *testing.T) {
	dir := remote(t, "master", map[string]string{"salt/top.sls": "base: {}\n"})
	w := open(t, Options{})
	addr, host := sshServer(t, w.path("id_ed25519.pub"))
	w.o.URL = "ssh://git@" + addr + dir
	w.Look(t.Context())
	if _, text := w.last(); !strings.Contains(text, "ssh-keyscan 127.0.0.1") || !strings.Contains(text, "id_ed25519.pub") {
		t.Errorf("with an unknown host it says %q", text)
	}
	other, err := ssh.NewSignerFromKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	hosts := func(key ssh.PublicKey) {
		if err := os.WriteFile(w.path("known_hosts"), []byte(knownhosts.Line([]string{addr}, key)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hosts(other.PublicKey())
	w.Look(t.Context())
	if _, text := w.last(); !strings.Contains(text, "key mismatch") {
		t.Errorf("with another host key it says %q", text)
	}
	hosts(host)
	w.Look(t.Context())
	if got := tree(t, w.Current()); got["states/top.sls"] != "base: {}\n" {
		_, text := w.last()
		t.Errorf("over ssh: %v, %q", got, text)
	}
}

func newKey(t *testing.T) any {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	if err := makeKey(name); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sshServer runs git-upload-pack for whoever has the key in file.
func sshServer(t *testing.T, file string) (addr string, host ssh.PublicKey) {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		allowed, _, _, _, err := ssh.ParseAuthorizedKey(text)
		if err != nil || string(allowed.Marshal()) != string(key.Marshal()) {
			return nil, os.ErrPermission
		}
		return nil, nil
	}}
	config.AddHostKey(signer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveSSH(c, config)
		}
	}()
	return l.Addr().String(), signer.PublicKey()
}

func serveSSH(c net.Conn, config *ssh.ServerConfig) {
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	defer conn.Close()
	go ssh.DiscardRequests(requests)
	for offered := range channels {
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		for r := range requests {
			if r.Type != "exec" {
				_ = r.Reply(false, nil)
				continue
			}
			_ = r.Reply(true, nil)
			var line struct{ Command string }
			_ = ssh.Unmarshal(r.Payload, &line)
			cmd := exec.Command("sh", "-c", line.Command)
			cmd.Stdout, cmd.Stderr = channel, channel.Stderr()
			in, _ := cmd.StdinPipe()
			go func() { _, _ = io.Copy(in, channel); in.Close() }()
			status := struct{ Code uint32 }{}
			if cmd.Run() != nil {
				status.Code = 1
			}
			_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(status))
			channel.Close()
		}
	}
}

package repo

import (
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bramble/node"
)

// A whole day with real git: clone, push, fetch what is new, a shallow clone, and a push that is refused.
func TestGit(t *testing.T) {
	w := open(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	url := w.serve()
	first := w.Current().Commit
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	git_(t, "", "clone", "-q", url, a)
	git_(t, "", "clone", "-q", url, b)
	if head := git_(t, a, "rev-parse", "HEAD"); head != first || git_(t, a, "branch", "--show-current") != "main" {
		t.Errorf("cloned %s; want the present commit %s on main", head, first)
	}

	changed := w.Changed()
	second := commit(t, a, map[string]string{"salt/extra/init.sls": "/etc/extra:\n  file.managed: []\n"})
	git_(t, a, "push", "-q", "origin", "main")
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Fatal("the push changed nothing")
	}
	if got := w.Current().Commit; got != second {
		t.Errorf("after the push %s holds; want %s", got, second)
	}
	if tree(t, w.Current())["states/extra/init.sls"] == "" {
		t.Error("the pushed file is not in the tree")
	}
	git_(t, b, "fetch", "-q", "origin") // incremental: b has all but one commit
	if got := git_(t, b, "rev-parse", "origin/main"); got != second {
		t.Errorf("fetched %s; want %s", got, second)
	}
	shallow := filepath.Join(t.TempDir(), "shallow")
	git_(t, "", "clone", "-q", "--depth", "1", url, shallow)
	if n := git_(t, shallow, "rev-list", "--count", "HEAD"); n != "1" {
		t.Errorf("a clone with --depth 1 has %s commits", n)
	}

	commit(t, a, map[string]string{"bramble.yaml": "nodes:\n  - serial: 8b07bcc6\n    nmae: alpha\n"})
	says := fails(t, a, "push", "origin", "main")
	if !strings.Contains(says, `bramble.yaml:3: unknown key "nmae" in this node; did you mean "name"?`) {
		t.Errorf("the refused push says:\n%s", says)
	}
	commit(t, a, map[string]string{"bramble.yaml": "nodes: []\n", "pillar/base.sls": "a: [\n"})
	if says := fails(t, a, "push", "origin", "main"); !strings.Contains(says, "pillar/base.sls:1: this is not valid YAML") {
		t.Errorf("the refused push says:\n%s", says)
	}
	git_(t, a, "push", "-q", "origin", "HEAD:refs/heads/draft") // other branches hold for nothing, and may be anything
	fails(t, a, "push", "origin", ":main")
	if got := w.Current().Commit; got != second {
		t.Errorf("after the refused pushes %s holds; want %s", got, second)
	}
	// larger than http.postBuffer: git sends chunks, which CGI does not know
	noise := make([]byte, 3<<20)
	_, _ = rand.Read(noise)
	git_(t, b, "merge", "-q", "origin/main")
	if err := os.WriteFile(filepath.Join(b, "noise"), noise, 0o644); err != nil {
		t.Fatal(err)
	}
	third := commit(t, b, nil)
	changed = w.Changed()
	git_(t, b, "push", "-q", "origin", "main")
	<-changed
	if got := w.Current().Commit; got != third {
		t.Errorf("after the large push %s holds; want %s", got, third)
	}
	for _, e := range w.recorded() {
		if e.Kind != node.ConfigChanged {
			t.Errorf("recorded %+v", e)
		}
	}
}

func TestWhoMay(t *testing.T) {
	closed, public := open(t, Options{}), open(t, Options{Public: true})
	far, tls := "192.0.2.7:1234", "tls"
	for _, test := range []struct {
		name     string
		w        *world
		method   string
		path     string
		password string
		from     string
		want     int
	}{
		{"reading without the token", closed, "GET", "info/refs?service=git-upload-pack", "", "", 401},
		{"reading with another token", closed, "GET", "info/refs?service=git-upload-pack", "x", "", 401},
		{"reading", closed, "GET", "info/refs?service=git-upload-pack", token, "", 200},
		{"reading in clear from elsewhere", closed, "GET", "info/refs?service=git-upload-pack", token, far, 403},
		{"reading over TLS from elsewhere", closed, "GET", "info/refs?service=git-upload-pack", token, tls, 200},
		{"public reading from elsewhere", public, "GET", "info/refs?service=git-upload-pack", "", far, 200},
		{"pushing to a public one", public, "GET", "info/refs?service=git-receive-pack", "", "", 401},
		{"pushing to a public one in clear", public, "GET", "info/refs?service=git-receive-pack", token, far, 403},
		{"pushing", public, "GET", "info/refs?service=git-receive-pack", token, "", 200},
		{"the push itself without the token", public, "POST", "git-receive-pack", "", "", 401},
		{"dumb HTTP", public, "GET", "info/refs", "", "", 404},
		{"a file", public, "GET", "config", "", "", 404},
		{"another repository", public, "GET", "../remotes.git/info/refs?service=git-upload-pack", "", "", 404},
		{"another method", public, "PUT", "git-receive-pack", token, "", 404},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest(test.method, "http://appliance"+Path+test.path, nil)
			switch r.RemoteAddr = "127.0.0.1:9"; test.from {
			case "":
			case tls:
				r = httptest.NewRequest(test.method, "https://appliance"+Path+test.path, nil)
			default:
				r.RemoteAddr = test.from
			}
			if test.password != "" {
				r.SetBasicAuth("admin", test.password)
			}
			answer := httptest.NewRecorder()
			test.w.Handler().ServeHTTP(answer, r)
			body, _ := io.ReadAll(answer.Body)
			if answer.Code != test.want {
				t.Errorf("status %d, %s; want %d", answer.Code, body, test.want)
			}
			if test.want != http.StatusOK && !strings.HasSuffix(strings.TrimSpace(string(body)), ".") {
				t.Errorf("%q is no sentence", body)
			}
		})
	}
}

func TestNoGit(t *testing.T) {
	w := open(t, Options{})
	t.Setenv("PATH", t.TempDir())
	r := httptest.NewRequest("GET", "http://appliance"+Path+"info/refs?service=git-upload-pack", nil)
	r.RemoteAddr = "127.0.0.1:9"
	r.SetBasicAuth("admin", token)
	answer := httptest.NewRecorder()
	w.Handler().ServeHTTP(answer, r)
	if answer.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Body.String(), "Install the package git") {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
}

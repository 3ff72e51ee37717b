package web

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bramble/firstboot/wire"
	"bramble/node"
	"bramble/web/api"
	"bramble/web/client"
)

// serving runs a world on loopback sockets until the test ends.
func serving(t *testing.T, w *world) (http *client.Client, https *client.Client) {
	t.Helper()
	w.TLSAddr, w.CertFile = "127.0.0.1:0", filepath.Join(t.TempDir(), "web.pem")
	if err := w.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- w.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the server does not end")
		}
	})
	return &client.Client{Base: "http://" + w.PlainAddr().String()},
		&client.Client{Base: "https://" + w.SecureAddr().String(), HTTP: client.Pinned(Fingerprint(w.certs.now))}
}

func TestServe(t *testing.T) {
	w := newWorld(t)
	w.play()
	plain, secure := serving(t, w)
	for _, c := range []*client.Client{plain, secure} {
		nodes, err := c.Nodes(t.Context())
		if err != nil || len(nodes) != 3 || nodes[0].Name != "alpha" || nodes[0].MAC != alpha || nodes[0].Stage != node.StageReady || nodes[1].Explain == "" {
			t.Errorf("%s: %+v %v", c.Base, nodes, err)
		}
		d, err := c.Node(t.Context(), "alpha")
		if err != nil || len(d.Timeline) != 12 || d.Next.Reason == "" || d.Addr != netip.MustParseAddr("192.168.1.77") || d.Timeline[0].Sentence == "" {
			t.Errorf("%s: %+v %v", c.Base, d, err)
		}
		events, err := c.Events(t.Context(), 20, "", 2)
		if err != nil || len(events) != 2 || events[0].Seq != 21 {
			t.Errorf("%s: %+v %v", c.Base, events, err)
		}
		if findings, err := c.Findings(t.Context()); err != nil || len(findings) != 2 {
			t.Errorf("%s: %+v %v", c.Base, findings, err)
		}
		if images, err := c.Images(t.Context()); err != nil || len(images) != 1 {
			t.Errorf("%s: %+v %v", c.Base, images, err)
		}
		if h, err := c.Health(t.Context()); err != nil || !h.OK {
			t.Errorf("%s: %+v %v", c.Base, h, err)
		}
		var refused *client.Error
		if _, err := c.Node(t.Context(), "nobody"); !errors.As(err, &refused) || refused.Status != 404 || !strings.Contains(err.Error(), "nobody") {
			t.Errorf("%s: %v, want a sentence about nobody", c.Base, err)
		}
		if err := c.Forget(t.Context(), "alpha"); !errors.As(err, &refused) || refused.Status != 401 {
			t.Errorf("%s: forget without token: %v, want 401", c.Base, err)
		}
	}
	answer, err := http.Get(plain.Base + wire.PlanPath + "?mac=" + alpha.String())
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var plan wire.Plan
	if err := json.NewDecoder(answer.Body).Decode(&plan); err != nil || plan.Root.Addr != "127.0.0.1:10809" {
		t.Errorf("plan %+v %v; want the root at the address that was asked", plan, err)
	}
	secure.Token = token
	if err := secure.Forget(t.Context(), "alpha"); err != nil {
		t.Error(err)
	}
	if _, known := w.journal.Nodes().Get(alpha); known {
		t.Error("the board is still known")
	}
	if events, err := plain.Events(t.Context(), 0, alpha.String(), 100); err != nil || len(events) != 13 {
		t.Errorf("%d events of the forgotten board (%v), want its 12 and the forgetting", len(events), err)
	}
	other := &client.Client{Base: secure.Base, HTTP: client.Pinned(strings.Repeat("00", 32))}
	if _, err := other.Nodes(t.Context()); err == nil || !strings.Contains(err.Error(), "right machine") {
		t.Errorf("another fingerprint: %v", err)
	}
	busy := &Server{Addr: w.PlainAddr().String()}
	if err := busy.Listen(); err == nil || !strings.Contains(err.Error(), "another program") {
		t.Errorf("a busy port: %v", err)
	}
}

func TestGuard(t *testing.T) {
	const forget = "/api/v1/nodes/alpha/forget"
	bearer := func(t string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+t) }
	}
	basic := func(r *http.Request) { r.SetBasicAuth("me", token) }
	here := func(r *http.Request) { r.RemoteAddr = "[::1]:9" }
	secure := func(r *http.Request) { r.TLS = &tls.ConnectionState{} }
	proxied := func(r *http.Request) { here(r); r.Header.Set("X-Forwarded-For", "192.168.1.9") }
	all := func(changes ...func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) {
			for _, c := range changes {
				c(r)
			}
		}
	}
	for _, test := range []struct {
		name         string
		private      bool
		method, path string
		change       func(*http.Request)
		want         int
	}{
		{"reading is open", false, "GET", "/api/v1/nodes", nil, 200},
		{"private: not over plain HTTP", true, "GET", "/api/v1/nodes", nil, 403},
		{"private: nor the token in clear", true, "GET", "/api/v1/nodes", bearer(token), 403},
		{"private: from this host", true, "GET", "/", here, 200},
		{"private: through a proxy on this host", true, "GET", "/", proxied, 403},
		{"private: TLS alone", true, "GET", "/", secure, 401},
		{"private: TLS and token", true, "GET", "/", all(secure, bearer(token)), 200},
		{"private: a browser's password", true, "GET", "/", all(secure, basic), 200},
		{"private: a wrong token", true, "GET", "/metrics", all(secure, bearer("x")), 401},
		{"private: boards have no token", true, "GET", wire.PlanPath + "?mac=b8:27:eb:69:20:2e", nil, 200},
		{"private: health", true, "GET", "/api/v1/healthz", nil, 200},
		{"changing in clear", false, "POST", forget, bearer(token), 403},
		{"changing without token", false, "POST", forget, secure, 401},
		{"changing with an empty token", false, "POST", forget, all(secure, bearer("")), 401},
		{"changing with a password that a browser would send", false, "POST", forget, all(secure, basic), 401},
		{"changing from this host without token", false, "POST", forget, here, 401},
		{"changing from this host", false, "POST", forget, all(here, bearer(token)), 204},
		{"changing over TLS", false, "POST", forget, all(secure, bearer(token)), 204},
		{"a method that nothing answers", false, "DELETE", "/api/v1/nodes/alpha", all(here, bearer(token)), 405},
	} {
		w := newWorld(t)
		w.play()
		w.Private = test.private
		out := w.ask(test.method, test.path, "", test.change)
		if out.Code != test.want {
			t.Errorf("%s: %d %s, want %d", test.name, out.Code, out.Body, test.want)
		}
		if out.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("%s: no content security policy", test.name)
		}
	}
	w := newWorld(t)
	w.play()
	w.Token = ""
	if out := w.ask("POST", forget, "", all(here, bearer(""))); out.Code != 401 {
		t.Errorf("a server without token lets %d through", out.Code)
	}
}

func TestStream(t *testing.T) {
	w := newWorld(t)
	w.play()
	plain, _ := serving(t, w)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lines := make(chan api.Line, 100)
	follow := func(since uint64, word string) {
		go plain.Follow(ctx, since, word, func(l api.Line) error { lines <- l; return nil })
	}
	expect := func(want ...uint64) {
		t.Helper()
		for _, seq := range want {
			select {
			case l := <-lines:
				if l.Seq != seq || l.Sentence == "" {
					t.Fatalf("got %+v, want event %d", l, seq)
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("event %d did not come", seq)
			}
		}
	}
	follow(20, "")
	expect(21, 22, 23)
	w.journal.Record(node.Event{Kind: node.Ready, Node: gamma, Boot: "c1"})
	expect(24)
	cancel()

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	follow(0, "alpha")
	expect(3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)
	cancel()

	stop := errors.New("enough")
	if err := plain.Follow(t.Context(), 22, "", func(api.Line) error { return stop }); err != stop {
		t.Errorf("Follow ended with %v, want the caller's error", err)
	}
	if err := plain.Follow(t.Context(), 0, "nobody", func(api.Line) error { return nil }); err == nil {
		t.Error("following nobody is no error")
	}

	r, err := http.NewRequestWithContext(t.Context(), "GET", plain.Base+"/api/v1/events/stream?since=3", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Last-Event-ID", "22") // a browser that comes back
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text := bufio.NewScanner(answer.Body)
	for text.Scan() && !strings.HasPrefix(text.Text(), "id:") {
	}
	if text.Text() != "id: 23" || answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("the stream goes on with %q, want event 23", text.Text())
	}
}

// TestStreamSlowReader: a reader that takes nothing holds nobody up, and is cut off.
func TestStreamSlowReader(t *testing.T) {
	w := newWorld(t)
	w.patience = 300 * time.Millisecond
	plain, _ := serving(t, w)
	conn, err := net.Dial("tcp", w.PlainAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /api/v1/events/stream?since=0 HTTP/1.1\r\nHost: x\r\n\r\n")
	for range 500 {
		if w.streams.Load() == 1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for range 200 {
		began := time.Now()
		for range 3000 {
			w.journal.Record(node.Event{Kind: node.Finding, Text: strings.Repeat("x", 300)})
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("recording took %v beside a reader that sleeps", took)
		}
		if _, err := plain.Health(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w.streams.Load() == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("the sleeping reader was not cut off")
}

func TestTokenAndCertAreKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	path := filepath.Join(dir, "token")
	first, err := LoadOrMakeToken(path)
	if err != nil || len(first) < 20 {
		t.Fatalf("%q %v", first, err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	second, err := LoadOrMakeToken(path)
	info, _ := os.Stat(path)
	if err != nil || second != first || info.Mode().Perm() != 0o600 {
		t.Errorf("%q %v with mode %v, want %q and 0600", second, err, info.Mode(), first)
	}
	if err := os.WriteFile(path, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrMakeToken(path); err == nil {
		t.Error("a short token is taken")
	}

	path = filepath.Join(dir, "web.pem")
	names, addrs := ownNames()
	one, err := LoadOrMakeCert(path, names, addrs)
	if err != nil {
		t.Fatal(err)
	}
	two, err := LoadOrMakeCert(path, names, addrs)
	if err != nil || Fingerprint(one) != Fingerprint(two) || len(Fingerprint(one)) != 64 {
		t.Errorf("%v: fingerprints %s and %s, want the same", err, Fingerprint(one), Fingerprint(two))
	}
	if err := two.Leaf.VerifyHostname("127.0.0.1"); err != nil {
		t.Error(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v", info.Mode())
	}
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrMakeCert(path, nil, nil); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged certificate: %v", err)
	}
}

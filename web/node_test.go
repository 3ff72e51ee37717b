package web

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"bramble/enroll"
	"bramble/firstboot/wire"
	"bramble/node"
	"bramble/web/api"
	"bramble/web/client"
)

// settings is a configuration of one commit, which can change.
type settings struct {
	mu      sync.Mutex
	commit  string
	changed chan struct{}
}

func (c *settings) Config(s node.State) (wire.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return wire.Config{Commit: c.commit, Salt: wire.Salt{Mode: "masterless", ID: s.Name}}, nil
}

func (c *settings) Tree(s node.State, commit string) ([]byte, error) {
	if commit != "c1" {
		return nil, errors.New("no such commit")
	}
	return []byte("tar for " + s.Name), nil
}

func (c *settings) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

func (c *settings) set(commit string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.commit, c.changed = commit, make(chan struct{})
}

// member is a world that enrolls, served over TLS, and a board in it.
type memberWorld struct {
	*world
	authority *enroll.Authority
	config    *settings
	base      string
	request   wire.EnrollRequest
	key       *ecdsa.PrivateKey
}

func newMember(t *testing.T) *memberWorld {
	t.Helper()
	w := newWorld(t)
	a, err := enroll.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m := &memberWorld{world: w, authority: a, config: &settings{commit: "c1", changed: make(chan struct{})}}
	now := time.Now // TLS has a real clock
	w.Authority, w.Identity, w.NodeConfig, w.Now = a, enroll.Identity, m.config, now
	w.Enrolment = &enroll.Desk{
		Authority: a, Nodes: w.journal.Nodes(), Record: w.journal.Record, Now: now, Policy: enroll.Anybody,
		Events: func(mac node.MAC) []node.Event {
			events, err := w.journal.Boot(context.Background(), mac, 1000)
			if err != nil {
				t.Error(err)
			}
			return events
		},
		Neighbour: func(netip.Addr) (node.MAC, bool) { return alpha, true },
	}
	w.TLSAddr, w.pollFor = "127.0.0.1:0", 300*time.Millisecond
	if err := w.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	m.base = "https://" + w.SecureAddr().String()
	m.power("a1")
	return m
}

// power begins a boot of alpha, and makes its keys.
func (m *memberWorld) power(boot node.BootID) {
	m.t.Helper()
	m.journal.Record(node.Event{Time: time.Now().Round(0), Kind: node.BootStarted, Node: alpha, Boot: boot, Name: "alpha"})
	key, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	public, _, err2 := ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		m.t.Fatal(err)
	}
	csr, err1 := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	host, err2 := ssh.NewPublicKey(public)
	if err := errors.Join(err1, err2); err != nil {
		m.t.Fatal(err)
	}
	m.key, m.request = key, wire.EnrollRequest{
		MAC: alpha, Boot: boot, Token: m.authority.Token(alpha, boot), SSHKey: string(ssh.MarshalAuthorizedKey(host)),
		CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
	}
}

// client believes in the authority; cert may be empty.
func (m *memberWorld) client(cert string) *http.Client {
	m.t.Helper()
	config := &tls.Config{RootCAs: m.authority.Pool()}
	if cert != "" {
		der, err := x509.MarshalPKCS8PrivateKey(m.key)
		if err != nil {
			m.t.Fatal(err)
		}
		pair, err := tls.X509KeyPair([]byte(cert), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		if err != nil {
			m.t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config}, Timeout: 20 * time.Second}
}

func (m *memberWorld) do(c *http.Client, method, path string, v any) (int, string) {
	m.t.Helper()
	text, ok := v.(string)
	if !ok {
		data, err := json.Marshal(v)
		if err != nil {
			m.t.Fatal(err)
		}
		text = string(data)
	}
	r, err := http.NewRequest(method, m.base+path, strings.NewReader(text))
	if err != nil {
		m.t.Fatal(err)
	}
	answer, err := c.Do(r)
	if err != nil {
		m.t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return answer.StatusCode, string(data)
}

func (m *memberWorld) join() *http.Client {
	m.t.Helper()
	code, text := m.do(m.client(""), "POST", wire.EnrollPath, m.request)
	var answer wire.EnrollAnswer
	if err := json.Unmarshal([]byte(text), &answer); err != nil || code != 200 {
		m.t.Fatalf("enrolment: %d %s", code, text)
	}
	return m.client(answer.Cert)
}

func TestNodeAPI(t *testing.T) {
	m := newMember(t)
	outside := m.client("")
	for _, path := range []string{wire.ConfigPath, wire.TreePath + "?commit=c1"} {
		if code, text := m.do(outside, "GET", path, ""); code != 403 || !strings.Contains(text, "certificate") {
			t.Errorf("without a certificate: %d %s", code, text)
		}
	}
	mine := m.join()
	if code, text := m.do(mine, "GET", wire.ConfigPath, ""); code != 200 || !strings.Contains(text, `"commit":"c1"`) || !strings.Contains(text, `"id":"alpha"`) {
		t.Errorf("config: %d %s", code, text)
	}
	if code, text := m.do(mine, "GET", wire.TreePath+"?commit=c1", ""); code != 200 || text != "tar for alpha" {
		t.Errorf("tree: %d %s", code, text)
	}
	if code, text := m.do(mine, "GET", wire.ConfigPath+"?since=c1", ""); code != 304 {
		t.Errorf("nothing new: %d %s", code, text)
	}
	time.AfterFunc(50*time.Millisecond, func() { m.config.set("c2") })
	if code, text := m.do(mine, "GET", wire.ConfigPath+"?since=c1", ""); code != 200 || !strings.Contains(text, `"commit":"c2"`) {
		t.Errorf("a new commit: %d %s", code, text)
	}
	m.request.Token = ""
	if code, text := m.do(mine, "POST", wire.EnrollPath, m.request); code != 200 || !strings.Contains(text, "BEGIN CERTIFICATE") {
		t.Errorf("renewal: %d %s", code, text)
	}
	if code, _ := m.do(mine, "POST", wire.OutputPath+"?step=salt", "one\x1b[2Jtwo\n"+strings.Repeat("é", maxOutput)+"the end"); code != 204 {
		t.Errorf("output: %d", code)
	}
	var all []api.Output
	out := m.ask("GET", "/api/v1/nodes/alpha/output", "", nil)
	if err := json.Unmarshal(out.Body.Bytes(), &all); err != nil || len(all) != 1 || all[0].Step != "salt" || len(all[0].Text) > maxOutput ||
		!strings.HasSuffix(all[0].Text, "the end") || strings.ContainsRune(all[0].Text, 0x1b) {
		t.Errorf("output read back: %d %.100s", out.Code, out.Body)
	}
	// A power cycle while the old boot still speaks: two machines.
	m.power("a2")
	m.join()
	if code, text := m.do(mine, "GET", wire.ConfigPath, ""); code != 403 || !strings.Contains(text, "Two machines") {
		t.Errorf("an older boot's certificate: %d %s", code, text)
	}
	if s, _ := m.journal.Nodes().Get(alpha); !s.Frozen {
		t.Error("no alarm")
	}
	// Nothing that is secret is in the journal.
	events, err := m.journal.Since(t.Context(), 0, node.MAC{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(events)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"PRIVATE KEY", m.authority.Token(alpha, "a1"), m.authority.Token(alpha, "a2")} {
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("the journal holds %q", secret)
		}
	}
}

func TestNodeTLS(t *testing.T) {
	m := newMember(t)
	other, err := enroll.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	wrong := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: other.Pool()}}}
	if _, err := wrong.Get(m.base); err == nil {
		t.Error("a node believes an appliance with another CA")
	}
	old := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: m.authority.Pool(), Time: func() time.Time { return time.Unix(60, 0) }}}}
	if answer, err := old.Get(m.base + "/api/v1/healthz"); err != nil {
		t.Errorf("a node in 1970: %v", err)
	} else {
		answer.Body.Close()
	}
	for pin, good := range map[string]bool{m.authority.Pin(): true, other.Pin(): false} {
		_, err := (&client.Client{Base: m.base, HTTP: client.Pinned(pin)}).Health(t.Context())
		if (err == nil) != good {
			t.Errorf("pinned to %s: %v", pin, err)
		}
	}
	// a certificate that somebody else signed
	leaf, err := other.ServerCert([]string{"x"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	foreign := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: m.authority.Pool(), GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &leaf, nil },
	}}}
	if answer, err := foreign.Get(m.base + wire.ConfigPath); err == nil {
		answer.Body.Close()
		t.Errorf("another appliance's certificate is let in: %s", answer.Status)
	}
	if out := m.ask("POST", wire.EnrollPath, "{}", nil); out.Code != 403 || !strings.Contains(out.Body.String(), "https") {
		t.Errorf("over plain HTTP: %d %s", out.Code, out.Body)
	}
	if out := newWorld(t).ask("POST", wire.EnrollPath, "{}", nil); out.Code != 404 || !strings.Contains(out.Body.String(), "switched off") {
		t.Errorf("switched off: %d %s", out.Code, out.Body)
	}
}

// The admin's part: over the API, with the token only.
func TestEnrolmentAPI(t *testing.T) {
	m := newMember(t)
	m.Enrolment.(*enroll.Desk).Policy = enroll.Approve
	admin := &client.Client{Base: m.base, Token: token, HTTP: client.Pinned(m.authority.Pin())}
	anybody := &client.Client{Base: m.base, HTTP: admin.HTTP}
	_, text := m.do(m.client(""), "POST", wire.EnrollPath, m.request)
	var waits wire.EnrollAnswer
	if err := json.Unmarshal([]byte(text), &waits); err != nil || waits.Code == "" || waits.Cert != "" {
		t.Fatalf("enrolment: %s", text)
	}
	if err := anybody.Approve(t.Context(), "alpha", waits.Code); err == nil {
		t.Error("approved without the token")
	}
	if err := admin.Approve(t.Context(), "alpha", "AAAA-AAAA"); err == nil || !strings.Contains(err.Error(), "do not approve") {
		t.Errorf("a wrong code: %v", err)
	}
	if err := admin.Approve(t.Context(), "alpha", waits.Code); err != nil {
		t.Fatal(err)
	}
	m.join()
	if err := admin.OpenWindow(t.Context(), time.Hour); err == nil || !strings.Contains(err.Error(), "the policy for enrolment is approve") {
		t.Errorf("a window under approve: %v", err)
	}
	m.Enrolment.(*enroll.Desk).Policy = enroll.Window
	if err := admin.OpenWindow(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	e, err := admin.Enrolment(t.Context())
	if err != nil || e.Policy != "window" || e.Until.IsZero() || e.Pin != m.authority.Pin() || e.KnownHosts != m.authority.KnownHostsLine("*") {
		t.Errorf("enrolment: %+v, %v", e, err)
	}
}

func TestStepEvent(t *testing.T) {
	failed := []wire.FailedState{{ID: "sshd_config", File: "base.ssh", Comment: "Source not found."}, {ID: "motd", File: "base", Comment: "No."}, {ID: "users", File: "base", Comment: "No."}, {ID: "cgroups", File: "base", Comment: "No."}}
	for name, test := range map[string]struct {
		r    wire.StepReport
		want node.Event
	}{
		"done":     {wire.StepReport{Step: "config", OK: true, Text: "12 files.", Commit: "c1", Took: time.Second}, node.Event{Kind: node.AgentDone, Step: "config", Text: "12 files.", Commit: "c1", Took: time.Second}},
		"failed":   {wire.StepReport{Step: "config", Text: "No\nroute\x1b."}, node.Event{Kind: node.AgentFailed, Step: "config", Text: "No route ."}},
		"states":   {wire.StepReport{Step: "salt", Text: "4 states failed.", Failed: failed}, node.Event{Kind: node.AgentFailed, Step: "salt", Text: "4 states failed. sshd_config in base.ssh: Source not found. motd in base: No. users in base: No. 1 more states failed."}},
		"degraded": {wire.StepReport{Step: "degraded", Text: "A state failed."}, node.Event{Kind: node.Degraded, Step: "degraded", Text: "A state failed."}},
		"ready":    {wire.StepReport{Step: "ready", OK: true, Commit: "c1"}, node.Event{Kind: node.Ready, Step: "ready", Commit: "c1"}},
		"login":    {wire.StepReport{Step: "login", OK: true, Took: -1}, node.Event{Kind: node.Login, Step: "login"}},
		"facts": {wire.StepReport{Step: "facts", OK: true, Facts: map[string]string{"model": "3 Model B Plus Rev 1.3", "suffix": "3Bp", "ram": "948000000", "temperature": "hot", "kernel": "6.12\n"}},
			node.Event{Kind: node.AgentDone, Step: "facts", Facts: node.Facts{Board: "3 Model B Plus Rev 1.3", Suffix: "3Bp", RAM: 948000000, Kernel: "6.12"}}},
	} {
		text, err := json.Marshal(test.r)
		if err != nil {
			t.Fatal(err)
		}
		r, err := readStep(bytes.NewReader(text))
		if got := stepEvent(r); err != nil || got != test.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, test.want)
		}
	}
}

func TestTalk(t *testing.T) {
	var k talk
	n := 0
	for range 1000 {
		if k.allow(alpha, noon) {
			n++
		}
	}
	if n != talkBurst || !k.allow(beta, noon) || !k.allow(alpha, noon.Add(talkEvery)) {
		t.Errorf("%d reports at once; want %d, others not hindered, and more later", n, talkBurst)
	}
}

func FuzzStep(f *testing.F) {
	f.Add([]byte(`{"step":"salt","ok":false,"text":"x","took":5,"failed":[{"id":"a","file":"b","comment":"c"}],"facts":{"ram":"1"}}`))
	f.Add([]byte(`{"step":"\u0000","failed":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := readStep(bytes.NewReader(data))
		if err != nil {
			return
		}
		if e := stepEvent(r); e.Step == "" || len(e.Text) > 2500 || strings.ContainsAny(e.Text+e.Step+e.Commit, "\n\x00\x1b") || e.Took < 0 {
			t.Errorf("%q became %+v", data, e)
		}
	})
}

package agent

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bramble/firstboot/salt"
	"bramble/firstboot/stage1"
	"bramble/firstboot/wire"
	"bramble/node"
)

var mac = node.MAC{0xb8, 0x27, 0xeb, 1, 2, 3}

// authority is a CA of its own.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newAuthority(t *testing.T, begin time.Time) authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	a := authority{key: key}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bramble"}, NotBefore: begin, NotAfter: begin.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	a.cert, err = x509.ParseCertificate(der)
	must(t, err)
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func (a authority) pin() string {
	sum := sha256.Sum256(a.cert.Raw)
	return hex.EncodeToString(sum[:])
}

func (a authority) issue(name string, public any, life time.Duration) ([]byte, error) {
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotBefore.Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a.cert, public, a.key)
}

// appliance is all that an agent talks to.
type appliance struct {
	t       *testing.T
	ca      authority
	plain   *httptest.Server
	secure  *httptest.Server
	life    time.Duration // of the certificates
	clock   time.Time     // what it says on the plain path
	reports chan wire.Report
	steps   chan wire.StepReport

	mu       sync.Mutex
	heard    bytes.Buffer // every body that came
	output   strings.Builder
	enrolled []wire.EnrollRequest
	wait     int            // how often enrolment is answered with a code
	no       map[string]int // path → how often it is refused
	config   wire.Config
	trees    map[string][]byte
	changed  chan struct{}
}

func newAppliance(t *testing.T) *appliance {
	return newApplianceOf(t, newAuthority(t, time.Now().Add(-time.Hour)))
}

func newApplianceOf(t *testing.T, ca authority) *appliance {
	w := &appliance{
		t: t, ca: ca, life: 24 * time.Hour, clock: time.Now(), reports: make(chan wire.Report, 100), steps: make(chan wire.StepReport, 100),
		no: map[string]int{}, trees: map[string][]byte{}, changed: make(chan struct{}),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wire.ClockPath, func(out http.ResponseWriter, r *http.Request) { answer(out, wire.Clock{Now: w.clock}) })
	mux.HandleFunc("POST "+wire.ReportPath, func(out http.ResponseWriter, r *http.Request) {
		var report wire.Report
		w.hear(r, &report)
		w.reports <- report
		out.WriteHeader(http.StatusNoContent)
	})
	w.plain = httptest.NewServer(mux)
	t.Cleanup(w.plain.Close)

	mux = http.NewServeMux()
	mux.HandleFunc("POST "+wire.EnrollPath, w.enroll)
	mux.HandleFunc("GET "+wire.ConfigPath, w.member(w.serveConfig))
	mux.HandleFunc("GET "+wire.TreePath, w.member(func(out http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		_, _ = out.Write(w.trees[r.FormValue("commit")])
	}))
	mux.HandleFunc("POST "+wire.StepPath, w.member(func(out http.ResponseWriter, r *http.Request) {
		var report wire.StepReport
		w.hear(r, &report)
		w.steps <- report
		out.WriteHeader(http.StatusNoContent)
	}))
	mux.HandleFunc("POST "+wire.OutputPath, w.member(func(out http.ResponseWriter, r *http.Request) {
		text := w.hear(r, nil)
		w.mu.Lock()
		defer w.mu.Unlock()
		fmt.Fprintf(&w.output, "%s: %s", r.FormValue("step"), text)
		out.WriteHeader(http.StatusNoContent)
	}))
	w.secure = httptest.NewUnstartedServer(mux)
	w.secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := ca.issue("appliance", key.Public(), 10*365*24*time.Hour)
	must(t, err)
	clients := x509.NewCertPool()
	clients.AddCert(ca.cert)
	w.secure.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: clients,
	}
	w.secure.StartTLS()
	t.Cleanup(w.secure.Close)
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func answer(out io.Writer, v any) { _ = json.NewEncoder(out).Encode(v) }

// hear reads a body, and remembers it.
func (w *appliance) hear(r *http.Request, into any) []byte {
	body, err := io.ReadAll(r.Body)
	if err == nil && into != nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		w.t.Errorf("%s: %v: %s", r.URL, err, body)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard.Write(body)
	return body
}

// refuses takes one from the refusals that are due on a path.
func (w *appliance) refuses(path string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.no[path] == 0 {
		return false
	}
	w.no[path]--
	return true
}

func (w *appliance) enroll(out http.ResponseWriter, r *http.Request) {
	var request wire.EnrollRequest
	w.hear(r, &request)
	if w.refuses(wire.EnrollPath) {
		http.Error(out, "Nobody may join now; open the window.", http.StatusForbidden)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.enrolled = append(w.enrolled, request)
	if (request.Token == "the token") == (len(r.TLS.PeerCertificates) > 0) {
		http.Error(out, "either the token or the certificate, please", http.StatusForbidden)
		return
	}
	if w.wait > 0 {
		w.wait--
		answer(out, wire.EnrollAnswer{Name: "pi-1", Code: "4K7Q-2MXD", Wait: time.Second})
		return
	}
	block, _ := pem.Decode([]byte(request.CSR))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil {
		w.t.Errorf("the CSR: %v", err)
	}
	der, err := w.ca.issue("pi-1", csr.PublicKey, w.life)
	if err != nil {
		w.t.Error(err)
	}
	answer(out, wire.EnrollAnswer{
		Name: "pi-1", Cert: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		SSHCert: "ssh-ed25519-cert-v01@openssh.com " + request.SSHKey,
	})
}

// member lets only nodes with a certificate in.
func (w *appliance) member(h http.HandlerFunc) http.HandlerFunc {
	return func(out http.ResponseWriter, r *http.Request) {
		switch {
		case len(r.TLS.PeerCertificates) == 0:
			http.Error(out, "who are you?", http.StatusUnauthorized)
		case w.refuses(r.URL.Path):
			http.Error(out, "not\nnow", http.StatusServiceUnavailable)
		default:
			h(out, r)
		}
	}
}

func (w *appliance) serveConfig(out http.ResponseWriter, r *http.Request) {
	for {
		w.mu.Lock()
		config, changed := w.config, w.changed
		w.mu.Unlock()
		if config.Commit != r.FormValue("since") {
			answer(out, config)
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		case <-time.After(time.Second):
			out.WriteHeader(http.StatusNotModified)
			return
		}
	}
}

// commit makes a new configuration hold.
func (w *appliance) commit(c wire.Config, files map[string]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	data := pack(w.t, files)
	sum := sha256.Sum256(data)
	if c.TreeSHA == "" {
		c.TreeSHA = hex.EncodeToString(sum[:])
	}
	w.config, w.trees[c.Commit] = c, data
	close(w.changed)
	w.changed = make(chan struct{})
}

func pack(t *testing.T, files map[string]string) []byte {
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		must(t, out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Typeflag: tar.TypeReg, Uid: os.Getuid(), Gid: os.Getgid()}))
		_, err := out.Write([]byte(files[name]))
		must(t, err)
	}
	must(t, out.Close())
	return b.Bytes()
}

// board is a system that an agent runs on.
type board struct {
	*Agent
	mu       sync.Mutex
	commands []string
	said     []string
	paused   []time.Duration
	runs     []wire.Salt
	results  []salt.Result // of the next highstates; then all is well
	fail     map[string]error
}

func newBoard(t *testing.T, w *appliance) *board {
	b := &board{fail: map[string]error{}}
	root := t.TempDir()
	for name, text := range map[string]string{
		"etc/bramble/ca.pem": string(w.ca.pem), hostKey + ".pub": "ssh-ed25519 AAAA root@pi-1\n",
		"etc/passwd":   "root:x:0:0:root:/root:/bin/bash\npi:x:1000:1000::/home/pi:/bin/bash\n",
		"proc/cpuinfo": "Revision : a020d3\nSerial : 00000000d43f1c2e\n",
	} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o644))
	}
	sshd, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = sshd.Close() })
	go func() {
		for {
			conn, err := sshd.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("SSH-2.0-test\r\n"))
			_ = conn.Close()
		}
	}()
	b.Agent = &Agent{
		Orders: Orders{
			Orders: stage1.Orders{Server: strings.TrimPrefix(w.plain.URL, "http://"), Boot: "0badcafe", MAC: mac},
			Token:  "the token", Pin: w.ca.pin(), Secure: strings.TrimPrefix(w.secure.URL, "https://"),
		},
		Root: root, SSH: sshd.Addr().String(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Say: func(format string, args ...any) { b.note(&b.said, fmt.Sprintf(format, args...)) },
		Command: func(_ context.Context, name string, args ...string) error {
			words := strings.ReplaceAll(strings.Join(append([]string{name}, args...), " "), root, "ROOT")
			b.note(&b.commands, words)
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.fail[name]
		},
		Salt:      b.salt,
		Throttled: func() (string, error) { return "", errors.New("no firmware here") },
		Now:       time.Now,
		Pause: func(ctx context.Context, d time.Duration) error {
			b.mu.Lock()
			b.paused = append(b.paused, d)
			b.mu.Unlock()
			return pause(ctx, min(d, 5*time.Millisecond))
		},
	}
	return b
}

func (b *board) note(where *[]string, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	*where = append(*where, text)
}

func (b *board) salt(_ context.Context, s wire.Salt, d salt.Dirs, output io.Writer) (salt.Result, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.runs = append(b.runs, s)
	top, err := os.ReadFile(d.States + "/top.sls")
	if err != nil {
		return salt.Result{}, err
	}
	fmt.Fprintf(output, "running %s\n", top)
	if len(b.results) > 0 {
		r := b.results[0]
		b.results = b.results[1:]
		return r, nil
	}
	return salt.Result{OK: true, Text: "3 states are applied; 1 changed something.", States: 3, Changed: 1, Peak: 1 << 20}, nil
}

// start runs the agent until the test or stop ends it.
func (b *board) start(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Run() = %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the agent does not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

// await waits for a report of the agent.
func (w *appliance) await(step string, ok bool) wire.StepReport {
	w.t.Helper()
	for timeout := time.After(20 * time.Second); ; {
		select {
		case r := <-w.steps:
			if r.Step == step && r.OK == ok {
				return r
			}
			w.t.Logf("before that: %s %v %s", r.Step, r.OK, r.Text)
		case <-timeout:
			w.t.Fatalf("no report of %s (%v)", step, ok)
		}
	}
}

// awaitPlain waits for a report on stage 1's path.
func (w *appliance) awaitPlain(step string, ok bool) wire.Report {
	w.t.Helper()
	for timeout := time.After(20 * time.Second); ; {
		select {
		case r := <-w.reports:
			if r.Step == step && r.OK == ok {
				return r
			}
			w.t.Logf("before that: %s %v %s", r.Step, r.OK, r.Text)
		case <-timeout:
			w.t.Fatalf("no report of %s (%v)", step, ok)
		}
	}
}

package web

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bramble/boot"
	"bramble/firstboot/wire"
	"bramble/journal"
	"bramble/node"
	"bramble/web/api"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	time.Local = time.UTC // pages show local time
	os.Exit(m.Run())
}

var (
	noon  = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	quiet = slog.New(slog.NewTextHandler(io.Discard, nil))
	alpha = node.MAC{0xb8, 0x27, 0xeb, 0x69, 0x20, 0x2e}
	beta  = node.MAC{0xb8, 0x27, 0xeb, 0x07, 0xbc, 0xc6}
	gamma = node.MAC{0xdc, 0xa6, 0x32, 0x01, 0x02, 0x03}
)

const token = "TESTTOKENTESTTOKENTESTTOKEN"

// world is a server over a real journal, at a fixed time.
type world struct {
	*Server
	t       *testing.T
	journal *journal.Journal
	rules   boot.Rules
	files   func(boot.Plan) ([]byte, error)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, rules: boot.Rules{
		Commit:  "c0ffee",
		Default: boot.Profile{Image: "raspios-lite-arm64", User: "pi", Overlay: "600m"},
		Images:  map[string]string{"raspios-lite-arm64": "raspios-lite-arm64@4f2a91c0"},
		Nodes:   []boot.NodeRule{{Serial: 0x4c69202e, Name: "alpha"}, {MAC: node.MAC{2, 0, 0, 0, 0, 9}, Ignore: true}},
	}}
	now := func() time.Time { return noon }
	var err error
	w.journal, err = journal.Open(t.Context(), journal.Options{Dir: t.TempDir(), Log: quiet, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.journal.Close() })
	w.files = func(p boot.Plan) ([]byte, error) { return []byte("tar of " + p.Name), nil }
	rules := func() boot.Rules { return w.rules }
	w.Server = &Server{
		Addr: "127.0.0.1:0", Token: token, Version: "1.2.3", Journal: w.journal, Rules: rules, Log: quiet, Now: now,
		Desk: &boot.Desk{Nodes: w.journal.Nodes(), Rules: rules, Record: w.journal.Record, Now: now},
		Root: func(host netip.Addr, p boot.Plan) (wire.Block, error) {
			return wire.Block{Addr: netip.AddrPortFrom(host, 10809).String(), Export: p.Image, FSType: "ext4"}, nil
		},
		Files: func(p boot.Plan) ([]byte, error) { return w.files(p) },
		Images: func() []api.Image {
			return []api.Image{{Name: "raspios-lite-arm64", ID: "raspios-lite-arm64@4f2a91c0", Bytes: 2_900_000_000, Added: noon.Add(-time.Hour)}}
		},
	}
	return w
}

// play tells a small story: alpha is ready, beta stuck in its ROM, gamma (a Pi 4) on its way.
func (w *world) play() {
	at := func(before time.Duration, e node.Event) {
		e.Time = noon.Add(-before)
		w.journal.Record(e)
	}
	at(10*time.Minute, node.Event{Kind: node.Started})
	at(9*time.Minute, node.Event{Kind: node.Finding, Step: "main", Text: "The router 192.168.1.1 gives out addresses."})
	a := node.Event{Node: alpha, Boot: "a1b2c3d4"}
	say := func(before time.Duration, e node.Event) { e.Node, e.Boot = a.Node, a.Boot; at(before, e) }
	say(300*time.Second, node.Event{Kind: node.BootStarted, Serial: 0x4c69202e, Model: node.Pi3, Name: "alpha", Image: "raspios-lite-arm64@4f2a91c0", Commit: "c0ffee", Text: "alpha boots raspios-lite-arm64: a rule of the configuration names this board."})
	say(300*time.Second-20*time.Millisecond, node.Event{Kind: node.Offered, File: "rom"})
	say(299900*time.Millisecond, node.Event{Kind: node.FileSent, File: "bootcode.bin", Bytes: 52460, Took: 42 * time.Millisecond})
	say(299880*time.Millisecond, node.Event{Kind: node.FileMissed, File: "bootsig.bin"})
	say(299700*time.Millisecond, node.Event{Kind: node.Offered, File: "bootcode"})
	say(297*time.Second, node.Event{Kind: node.FileSent, File: "4c69202e/start.elf", Bytes: 2_973_536, Took: 2710 * time.Millisecond, Resent: 3})
	say(288*time.Second, node.Event{Kind: node.FileSent, File: "4c69202e/initramfs8", Bytes: 3_800_000, Took: 3400 * time.Millisecond})
	say(280*time.Second, node.Event{Kind: node.FileSent, File: "4c69202e/kernel8.img", Bytes: 9_437_184, Took: 7500 * time.Millisecond})
	say(270*time.Second, node.Event{Kind: node.StepDone, Step: "network", Addr: netip.MustParseAddr("192.168.1.77"), Took: 900 * time.Millisecond})
	say(269*time.Second, node.Event{Kind: node.StepDone, Step: "root", Took: 80 * time.Millisecond})
	say(268*time.Second, node.Event{Kind: node.StepDone, Step: "handover", Took: 5 * time.Millisecond})
	say(252*time.Second, node.Event{Kind: node.Ready})
	a = node.Event{Node: beta, Boot: "b1"}
	say(60*time.Second, node.Event{Kind: node.BootStarted, Model: node.Pi3B, Name: "pi-07bcc6", Image: "raspios-lite-arm64@4f2a91c0", Text: "pi-07bcc6 boots raspios-lite-arm64: it is the default for boards without a rule."})
	for i := range 5 {
		say(time.Duration(60-5*i)*time.Second, node.Event{Kind: node.Offered, File: "rom"})
	}
	a = node.Event{Node: gamma, Boot: "c1"}
	say(6*time.Second, node.Event{Kind: node.BootStarted, Serial: 0x10203040, Model: node.Pi4, Name: "pi-10203040", Image: "gone@1", Text: "pi-10203040 boots gone: it is the default for boards without a rule."})
	say(2*time.Second, node.Event{Kind: node.FileSent, File: "10203040/start4.elf", Bytes: 2_250_000, Took: 900 * time.Millisecond})
	at(time.Second, node.Event{Kind: node.Warning, Step: "disk", Text: "The disk has 3 % left <soon full>."})
}

// ask sends a request from a given peer; change may be nil.
func (w *world) ask(method, path, body string, change func(*http.Request)) *httptest.ResponseRecorder {
	w.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = "192.168.1.50:40000"
	if change != nil {
		change(r)
	}
	out := httptest.NewRecorder()
	w.Handler().ServeHTTP(out, r)
	return out
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(got), string(want)); d != "" {
		t.Errorf("%s differs; run with -update if that is meant (-got +want):\n%s", path, d)
	}
}

func TestAPIGoldens(t *testing.T) {
	w := newWorld(t)
	w.play()
	for name, path := range map[string]string{
		"nodes.json":    "/api/v1/nodes",
		"node.json":     "/api/v1/nodes/alpha",
		"stuck.json":    "/api/v1/nodes/b8:27:eb:07:bc:c6",
		"events.json":   "/api/v1/events?since=3&node=4c69202e&limit=3",
		"findings.json": "/api/v1/findings",
		"images.json":   "/api/v1/images",
	} {
		out := w.ask("GET", path, "", nil)
		if out.Code != http.StatusOK || out.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", path, out.Code, out.Body)
		}
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, out.Body.Bytes(), "", "  "); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		golden(t, name, pretty.Bytes())
	}
	if out := w.ask("GET", "/metrics", "", nil); out.Code != 200 || !strings.Contains(out.Body.String(), `bramble_nodes{stage="ready"} 1`+"\n") ||
		!strings.Contains(out.Body.String(), "bramble_nodes_stuck 1\n") {
		t.Errorf("metrics: %d %s", out.Code, out.Body)
	}
	var health api.Health
	out := w.ask("GET", "/api/v1/healthz", "", nil)
	if err := json.Unmarshal(out.Body.Bytes(), &health); err != nil || !health.OK || health.Nodes != 3 || health.Seq != 23 {
		t.Errorf("health %s (%v); want all well with 3 boards and 23 events", out.Body, err)
	}
}

func TestAPIErrors(t *testing.T) {
	w := newWorld(t)
	w.play()
	for path, want := range map[string]int{
		"/api/v1/nodes/nobody":                          404,
		"/api/v1/nodes/" + strings.Repeat("x", 65):      422,
		"/api/v1/events?since=-1":                       422,
		"/api/v1/events?limit=0":                        422,
		"/api/v1/events?limit=10001":                    422,
		"/api/v1/events?node=nobody":                    404,
		"/api/v1/events/stream?node=nobody":             404,
		"/api/v1/events/stream?since=x":                 422,
		"/api/v1/other":                                 404,
		"/nodes/nobody":                                 404,
		"/assets/node.html":                             404,
		"/assets/..%2fserver.go":                        404,
		"/nodes/%3Cscript%3Ealert(1)%3C%2Fscript%3E%00": 404,
	} {
		if out := w.ask("GET", path, "", nil); out.Code != want || strings.Contains(out.Body.String(), "<script>alert") {
			t.Errorf("%s: %d %s, want %d", path, out.Code, out.Body, want)
		}
	}
	bad := func(r *http.Request) { r.Header.Set("Last-Event-ID", "one") }
	if out := w.ask("GET", "/api/v1/events/stream", "", bad); out.Code != 422 {
		t.Errorf("a bad Last-Event-ID: %d, want 422", out.Code)
	}
}

// TestOpenAPI: the document parses, and it describes every route of the API, with what each answers.
func TestOpenAPI(t *testing.T) {
	out := newWorld(t).ask("GET", "/api/v1/openapi.json", "", nil)
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			Summary, Description string
			Responses            map[string]struct{ Content map[string]any }
			Security             []map[string][]string
		}
	}
	if err := json.Unmarshal(out.Body.Bytes(), &doc); err != nil || out.Code != 200 {
		t.Fatalf("%d %v", out.Code, err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("version %q, want 3.1", doc.OpenAPI)
	}
	routes := map[string]string{
		"/nodes": "get", "/nodes/{word}": "get", "/events": "get", "/events/stream": "get", "/findings": "get", "/images": "get",
		"/healthz": "get", "/nodes/{word}/forget": "post", "/nodes/{word}/output": "get", "/nodes/{word}/approve": "post",
		"/enrolment": "get", "/enrolment/window": "post",
	}
	if len(doc.Paths) != len(routes) {
		t.Errorf("%d paths are described, want %d", len(doc.Paths), len(routes))
	}
	for path, method := range routes {
		op, ok := doc.Paths[api.Prefix+path][method]
		if !ok || op.Summary == "" || op.Description == "" {
			t.Errorf("%s %s is not described: %+v", method, path, op)
		}
		if method == "post" {
			if len(op.Security) == 0 {
				t.Errorf("%s changes something and does not say that it needs the token", path)
			}
			continue
		}
		if len(op.Responses["200"].Content) == 0 {
			t.Errorf("%s does not say what it answers", path)
		}
	}
}

func TestPageGoldens(t *testing.T) {
	w := newWorld(t)
	golden(t, "empty.html", w.ask("GET", "/", "", nil).Body.Bytes())
	w.play()
	golden(t, "nodes.html", w.ask("GET", "/", "", nil).Body.Bytes())
	golden(t, "node.html", w.ask("GET", "/nodes/alpha", "", nil).Body.Bytes())
	for _, asset := range []string{"style.css", "page.js", "icon.svg"} {
		if out := w.ask("GET", "/assets/"+asset, "", nil); out.Code != 200 || out.Body.Len() == 0 {
			t.Errorf("%s: %d", asset, out.Code)
		}
	}
}

func FuzzQuery(f *testing.F) {
	for _, s := range []string{"mac=b8:27:eb:69:20:2e", "mac=%zz", "since=1&node=alpha&limit=3", "since=18446744073709551615", "limit=-1;node=%00"} {
		f.Add(s)
	}
	j, err := journal.Open(f.Context(), journal.Options{Dir: f.TempDir(), Log: quiet})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { j.Close() })
	s := &Server{Journal: j, Rules: func() boot.Rules { return boot.Rules{} }, Log: quiet}
	s.Desk = &boot.Desk{Nodes: j.Nodes(), Rules: s.Rules, Record: j.Record, Now: time.Now}
	handler := s.Handler()
	f.Fuzz(func(t *testing.T, query string) {
		for _, path := range []string{wire.PlanPath, api.Prefix + "/events"} {
			r := httptest.NewRequest("GET", path, nil)
			r.URL.RawQuery = query
			out := httptest.NewRecorder()
			handler.ServeHTTP(out, r)
			if out.Code >= 500 {
				t.Errorf("%s?%s: %d %s", path, query, out.Code, out.Body)
			}
		}
	})
}

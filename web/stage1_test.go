package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bramble/boot"
	"bramble/firstboot/wire"
	"bramble/node"
)

func TestStage1Plan(t *testing.T) {
	w := newWorld(t)
	w.play()
	out := w.ask("GET", wire.PlanPath+"?mac=b8:27:eb:69:20:2e&boot=a1b2c3d4", "", nil)
	var plan wire.Plan
	if err := json.Unmarshal(out.Body.Bytes(), &plan); err != nil || out.Code != 200 {
		t.Fatalf("%d %s", out.Code, out.Body)
	}
	want := wire.Plan{
		Boot: "a1b2c3d4", Name: "alpha", Now: noon, Overlay: "600m", Init: "/sbin/init", DeadConn: 3600,
		User: &wire.User{Name: "pi", UID: 1000},
		Root: wire.Block{Export: "raspios-lite-arm64@4f2a91c0", FSType: "ext4"},
	}
	files := w.ask("GET", wire.FilesPath+"?mac=b8:27:eb:69:20:2e", "", nil)
	if files.Header().Get("ETag") != `"`+plan.FilesSHA+`"` || files.Body.String() != "tar of alpha" {
		t.Errorf("files %q with ETag %s, want those of the plan, %s", files.Body, files.Header().Get("ETag"), plan.FilesSHA)
	}
	plan.FilesSHA = ""
	plan.Root.Addr = "" // has no local address in this test; TestServe looks at it
	if d := cmp.Diff(plan, want); d != "" {
		t.Errorf("plan (-got +want):\n%s", d)
	}
	again := w.ask("GET", wire.FilesPath+"?mac=b8:27:eb:69:20:2e", "", func(r *http.Request) { r.Header.Set("If-None-Match", files.Header().Get("ETag")) })
	if again.Code != http.StatusNotModified {
		t.Errorf("unchanged files: %d, want 304", again.Code)
	}
	part := w.ask("GET", wire.FilesPath+"?mac=b8:27:eb:69:20:2e", "", func(r *http.Request) { r.Header.Set("Range", "bytes=7-") })
	if part.Code != http.StatusPartialContent || part.Body.String() != "alpha" {
		t.Errorf("a range: %d %q, want 206 and alpha", part.Code, part.Body)
	}

	unknown := w.ask("GET", wire.PlanPath+"?mac=b8:27:eb:00:00:07", "", nil)
	if err := json.Unmarshal(unknown.Body.Bytes(), &plan); err != nil || plan.Name != "pi-000007" || plan.Root.Export == "" {
		t.Errorf("a board never seen: %d %s; want the default profile", unknown.Code, unknown.Body)
	}
	for query, want := range map[string]int{"": 400, "?mac=x": 400, "?mac=ff:ff:ff:ff:ff:ff": 400, "?mac=00:00:00:00:00:00": 400, "?mac=02:00:00:00:00:09": 403} {
		if out := w.ask("GET", wire.PlanPath+query, "", nil); out.Code != want || len(out.Body.String()) < 20 {
			t.Errorf("plan%s: %d %q, want %d with a sentence", query, out.Code, out.Body, want)
		}
	}
}

// Who asks for the plan of a board that never booted must be that board.
func TestStranger(t *testing.T) {
	w := newWorld(t)
	w.play()
	here := node.MAC{2, 0, 0, 0, 0, 7}
	w.Neighbour = func(a netip.Addr) (node.MAC, bool) { return here, a == netip.MustParseAddr("192.168.1.50") }
	before := len(w.journal.Nodes().All())
	for _, test := range []struct {
		name, path, mac, peer string
		code                  int
		want                  string
	}{
		{"a known board, from anywhere", wire.PlanPath, "b8:27:eb:69:20:2e", "10.9.9.9:1", 200, "alpha"},
		{"somebody else", wire.PlanPath, "02:00:00:00:00:08", "192.168.1.50:1", 403, "No boot of 02:00:00:00:00:08 is known, and 192.168.1.50 is another machine, 02:00:00:00:00:07. A board that did not boot from this appliance must ask for its plan itself."},
		{"somebody else's files", wire.FilesPath, "02:00:00:00:00:08", "192.168.1.50:1", 403, "another machine"},
		{"from another segment", wire.PlanPath, "02:00:00:00:00:07", "10.9.9.9:1", 403, "No boot of 02:00:00:00:00:07 is known, and whether 10.9.9.9 is that board cannot be seen from here. Boot the board from this appliance, or put both on one network segment."},
		{"the board itself", wire.PlanPath, "02:00:00:00:00:07", "192.168.1.50:1", 200, "pi-000007"},
		{"known by now", wire.PlanPath, "02:00:00:00:00:07", "10.9.9.9:1", 200, "pi-000007"},
	} {
		out := w.ask("GET", test.path+"?mac="+test.mac, "", func(r *http.Request) { r.RemoteAddr = test.peer })
		if out.Code != test.code || !strings.Contains(out.Body.String(), test.want) {
			t.Errorf("%s: %d %q; want %d %q", test.name, out.Code, out.Body, test.code, test.want)
		}
	}
	if n := len(w.journal.Nodes().All()) - before; n != 1 {
		t.Errorf("%d boards have become known; want 1", n)
	}
}

// One machine may have many addresses, and make up as many boards: they come slowly.
func TestNewcomers(t *testing.T) {
	w := newWorld(t)
	at := noon
	w.Now = func() time.Time { return at }
	come := func(i int) int {
		mac := node.MAC{2, 0, 0, 1, byte(i >> 8), byte(i)}
		out := w.ask("GET", wire.PlanPath+"?mac="+mac.String(), "", nil)
		if want := "too many new boards have come at once. Ask again in 2s."; out.Code == 403 && !strings.Contains(out.Body.String(), want) {
			t.Errorf("refused with %q; want %q", out.Body, want)
		}
		return out.Code
	}
	admitted := 0
	for i := range 200 {
		if come(i) == 200 {
			admitted++
		}
	}
	if admitted != newcomerBurst {
		t.Errorf("%d of 200 were admitted at once; want %d", admitted, newcomerBurst)
	}
	if come(0) != 200 {
		t.Error("a board that was admitted is refused when it asks again")
	}
	at = at.Add(newcomerEvery)
	if first, second := come(1000), come(1001); first != 200 || second != 403 {
		t.Errorf("after %s: %d, %d; want 200, then 403", newcomerEvery, first, second)
	}
}

func TestStage1Broken(t *testing.T) {
	w := newWorld(t)
	w.play()
	w.files = func(boot.Plan) ([]byte, error) { return nil, errors.New("open /srv/secret: no such file") }
	before := w.journal.Stats().Last
	for range 3 {
		out := w.ask("GET", wire.PlanPath+"?mac=b8:27:eb:69:20:2e", "", nil)
		if out.Code != 503 || strings.Contains(out.Body.String(), "secret") {
			t.Errorf("%d %q; want 503 without the cause", out.Code, out.Body)
		}
	}
	if n := w.journal.Stats().Last - before; n != 1 {
		t.Errorf("%d events for three tries, want one", n)
	}
	if s, _ := w.journal.Nodes().Get(alpha); !strings.Contains(s.Problem, "secret") {
		t.Errorf("the timeline says %q, want the cause", s.Problem)
	}
}

func TestReport(t *testing.T) {
	w := newWorld(t)
	w.play()
	report := func(change func(*wire.Report)) string {
		r := wire.Report{MAC: gamma, Boot: "c1", Step: "network", OK: true, Text: "eth0 has 192.168.1.50.", Took: time.Second}
		change(&r)
		body, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	for _, test := range []struct {
		name, body string
		code       int
		want       node.Event
	}{
		{"a step", report(func(*wire.Report) {}), 204, node.Event{Kind: node.StepDone, Step: "network", Text: "eth0 has 192.168.1.50.", Took: time.Second}},
		{"a failure", report(func(r *wire.Report) { r.OK, r.Step, r.Text = false, "root", "connection refused" }), 204, node.Event{Kind: node.StepFailed, Step: "root", Text: "connection refused", Took: time.Second}},
		{"ready", report(func(r *wire.Report) { r.Step, r.Text = "ready", "" }), 204, node.Event{Kind: node.Ready, Step: "ready", Took: time.Second}},
		{"long and strange", report(func(r *wire.Report) { r.Text, r.Took = "\x1b[31m"+strings.Repeat("é", 1000), -5 }), 204, node.Event{Kind: node.StepDone, Step: "network", Text: "[31m" + strings.Repeat("é", 246) + "…"}},
		{"a boot that the journal calls otherwise", report(func(r *wire.Report) { r.Boot = "old" }), 204, node.Event{Kind: node.StepDone, Step: "network", Text: "eth0 has 192.168.1.50.", Took: time.Second}},
		{"a stranger", report(func(r *wire.Report) { r.MAC = node.MAC{2} }), 404, node.Event{}},
		{"no board", report(func(r *wire.Report) { r.MAC = node.MAC{} }), 400, node.Event{}},
		{"no boot", report(func(r *wire.Report) { r.Boot = "" }), 400, node.Event{}},
		{"no step", report(func(r *wire.Report) { r.Step = "\n" }), 400, node.Event{}},
		{"no JSON", "hello", 400, node.Event{}},
		{"nothing", "", 400, node.Event{}},
		{"too large", `{"text":"` + strings.Repeat("x", 70<<10) + `"}`, 413, node.Event{}},
	} {
		before := w.journal.Stats().Last
		out := w.ask("POST", wire.ReportPath, test.body, nil)
		if out.Code != test.code {
			t.Errorf("%s: %d %s, want %d", test.name, out.Code, out.Body, test.code)
		}
		events, err := w.journal.Since(t.Context(), before, node.MAC{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if test.code != 204 {
			if len(events) != 0 {
				t.Errorf("%s: recorded %+v", test.name, events)
			}
			continue
		}
		test.want.Seq, test.want.Time, test.want.Node, test.want.Boot, test.want.Addr = before+1, noon, gamma, "c1", netip.MustParseAddr("192.168.1.50")
		if len(events) != 1 || events[0] != test.want {
			t.Errorf("%s: recorded %+v, want %+v", test.name, events, test.want)
		}
	}
}

func TestClock(t *testing.T) {
	var clock wire.Clock
	out := newWorld(t).ask("GET", wire.ClockPath, "", nil)
	if err := json.Unmarshal(out.Body.Bytes(), &clock); err != nil || !clock.Now.Equal(noon) {
		t.Errorf("clock says %s, want noon", out.Body)
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"mac":"b8:27:eb:69:20:2e","boot":"b1","step":"root","ok":true,"text":"done","took":5}`))
	f.Add([]byte(`{"mac":"","boot":"\u0000","step":"\ud800","text":"\xff"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := readReport(bytes.NewReader(data))
		if err != nil {
			return
		}
		if r.MAC.IsZero() || r.Boot == "" || r.Step == "" || len(r.Step) > 32 || len(r.Boot) > 32 || len(r.Text) > maxText ||
			strings.ContainsAny(r.Text+r.Step+string(r.Boot), "\n\x00\x1b") || r.Took < 0 {
			t.Errorf("%q was taken as %+v", data, r)
		}
	})
}

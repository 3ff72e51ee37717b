package web

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"bramble/node"
	"bramble/web/api"
)

//go:embed assets
var assets embed.FS

// page is what the templates show. They hold no logic beyond loops.
type page struct {
	Title   string
	Version string
	Seq     uint64
	Now     int64 // milliseconds; the page's clock runs by the appliance's
	Summary string
	Notices []notice
	Cards   []card
	Card    *card // on a board's own page
	Next    api.Plan
	Lines   []line
	Older   bool // the present boot's beginning is no longer in the journal
}

type notice struct {
	Warning bool
	Text    string
	When    string
}

// card is one board.
type card struct {
	ID, Path, Name string
	Badge, Class   string // class is ready, boots or stuck
	Track          []mark
	Says           string
	Stuck          bool
	Facts          []fact
	From           int64  // milliseconds; set while the board boots
	Took           string // since power-on, or until login
	Files          string
	LastSeen       string
	Boots          int
}

type mark struct{ Label, Class string }

type fact struct{ Name, Value string }

// line is one event of a timeline.
type line struct {
	ID    uint64
	At    string
	Text  string
	Took  string
	Class string // good, bad, dim or plain
}

// stages are the marks of a boot's track. A board with an EEPROM has no bootcode.bin.
var stages = []struct {
	stage node.Stage
	label string
}{
	{node.StageROM, "boot ROM"}, {node.StageBootcode, "bootcode.bin"}, {node.StageFirmware, "firmware"}, {node.StageKernel, "kernel"},
	{node.StageStage1, "stage 1"}, {node.StageRoot, "systemd"}, {node.StageLogin, "login"},
	{node.StageReady, "ready"},
}

func (s *Server) routePages(mux *http.ServeMux) {
	files, err := fs.Sub(assets, "assets")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	templates := template.Must(template.New("").ParseFS(files, "*.html"))
	static := http.StripPrefix("/assets/", http.FileServerFS(files))
	mux.HandleFunc("GET /assets/{file}", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".html") {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-cache")
		static.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		s.show(w, templates, "nodes.html", s.nodesPage(), http.StatusOK)
	})
	mux.HandleFunc("GET /nodes/{word}", func(w http.ResponseWriter, r *http.Request) {
		p, status := s.nodePage(r)
		s.show(w, templates, "node.html", p, status)
	})
}

func (s *Server) show(w http.ResponseWriter, templates *template.Template, name string, p page, status int) {
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, name, p); err != nil {
		s.log().Error("a page cannot be shown", "page", name, "err", err)
		http.Error(w, "This page cannot be shown; the appliance's log says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes())
}

func (s *Server) frame(title string) page {
	p := page{Title: title, Version: s.Version, Seq: s.Journal.Stats().Last, Now: s.now().UnixMilli()}
	for _, e := range s.notices() {
		p.Notices = append(p.Notices, notice{Warning: e.Kind == node.Warning, Text: node.Sentence(e), When: clockTime(e.Time, s.now())})
	}
	return p
}

// notices are the newest first.
func (s *Server) notices() []node.Event {
	all := s.Journal.Notices()
	slices.Reverse(all)
	return all
}

func (s *Server) nodesPage() page {
	p := s.frame("bramble")
	ready, stuck := 0, 0
	for _, state := range s.Journal.Nodes().All() {
		c := s.card(state)
		p.Cards = append(p.Cards, c)
		switch c.Class {
		case "ready":
			ready++
		case "stuck":
			stuck++
		}
	}
	switch n := len(p.Cards); {
	case n == 0:
		p.Summary = "waiting for the first board"
	case ready == n && n == 1:
		p.Summary = "the board is ready"
	case ready == n:
		p.Summary = fmt.Sprintf("all %d boards are ready", n)
	case stuck > 0:
		p.Summary = fmt.Sprintf("%d of %d ready, %d in need of you", ready, n, stuck)
	default:
		p.Summary = fmt.Sprintf("%d of %d ready", ready, n)
	}
	return p
}

func (s *Server) nodePage(r *http.Request) (page, int) {
	word := r.PathValue("word")
	state, ok := s.Journal.Nodes().Find(word)
	if !ok {
		p := s.frame("unknown board")
		p.Summary = fmt.Sprintf("no board is known by %q", clean(word, 64))
		return p, http.StatusNotFound
	}
	c := s.card(state)
	p := s.frame(c.Name)
	p.Card, p.Next = &c, api.PlanOf(s.next(state))
	events, err := s.Journal.Boot(r.Context(), state.MAC, timelineLimit)
	if err != nil {
		s.log().Error("a timeline cannot be read", "node", state.MAC, "err", err)
		p.Notices = append(p.Notices, notice{Warning: true, Text: "The journal cannot be read now; the appliance's log says why. Boots go on."})
	}
	p.Older = err == nil && len(events) == 0
	for _, e := range events {
		p.Lines = append(p.Lines, lineOf(e, state.BootTime))
	}
	return p, http.StatusOK
}

func (s *Server) card(state node.State) card {
	n, now := s.node(state), s.now()
	c := card{
		ID: strings.ReplaceAll(state.MAC.String(), ":", ""), Name: state.Name, Boots: state.Boots,
		Badge: "not seen booting", Class: "boots", Says: node.Sentence(state.Last), LastSeen: clockTime(state.Last.Time, now),
	}
	if c.Name == "" {
		c.Name = state.MAC.String()
	}
	c.Path = "/nodes/" + url.PathEscape(c.Name)
	eeprom := state.Model == node.Pi4 || state.Model == node.Pi5
	for _, m := range stages {
		if m.stage == node.StageBootcode && eeprom {
			continue
		}
		k := mark{Label: m.label}
		switch {
		case m.stage < state.Stage || state.Stage == node.StageReady:
			k.Class = "done"
		case m.stage == state.Stage:
			k.Class = "here"
		}
		if m.stage == state.Stage {
			c.Badge = m.label
		}
		c.Track = append(c.Track, k)
	}
	switch {
	case n.Explain != "":
		c.Class, c.Stuck, c.Says = "stuck", true, n.Explain
		if state.Degraded {
			c.Badge = "degraded"
		}
	case state.Stage == node.StageReady:
		c.Class = "ready"
	}
	switch {
	case state.BootTime.IsZero():
	case state.ReadyTime.IsZero():
		c.From, c.Took = state.BootTime.UnixMilli(), span(now.Sub(state.BootTime))
	default:
		c.Took = span(state.ReadyTime.Sub(state.BootTime))
	}
	if state.Files > 0 {
		c.Files = plural(state.Files, "file") + ", " + node.Size(state.Bytes)
	}
	c.Facts = facts(n)
	return c
}

func facts(n api.Node) []fact {
	image := n.ImageName
	if image == "" {
		image = short(n.Image)
	}
	addr := ""
	if n.Addr.IsValid() {
		addr = n.Addr.String()
	}
	model := string(n.Model)
	if model != "" {
		model = "Pi " + model
	}
	all := []fact{{"Board", model}, {"Address", addr}, {"Image", image}, {"MAC", n.MAC.String()}}
	return slices.DeleteFunc(all, func(f fact) bool { return f.Value == "" })
}

// short is enough of an ID to tell it by.
func short(id string) string {
	if len(id) > 24 {
		return id[:23] + "…"
	}
	return id
}

func lineOf(e node.Event, powerOn time.Time) line {
	l := line{ID: e.Seq, Text: node.Sentence(e), At: "+" + offset(e.Time.Sub(powerOn)), Class: "plain"}
	if e.Took > 0 {
		l.Took = took(e.Took)
	}
	switch e.Kind {
	case node.BootStarted, node.StepDone, node.RootOpened, node.Login, node.AgentDone, node.Enrolled:
		l.Class = "mark"
	case node.Ready:
		l.Class = "good"
	case node.BootRefused, node.FileLost, node.StepFailed, node.RootClosed, node.Warning, node.AgentFailed, node.Refused, node.Alarm,
		node.Degraded:
		l.Class = "bad"
	case node.FileMissed:
		l.Class = "dim"
	}
	return l
}

// offset is a time since power-on, to a tenth of a second while that matters.
func offset(d time.Duration) string {
	switch {
	case d < 0:
		return "0.0 s"
	case d < 10*time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return span(d)
}

func took(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", max(1, d.Milliseconds()))
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// span is a length of time as people say it; page.js says it the same way.
func span(d time.Duration) string {
	s := int(max(d, 0).Seconds())
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %02d s", s/60, s%60)
	case s < 48*3600:
		return fmt.Sprintf("%d h %02d min", s/3600, s/60%60)
	}
	return fmt.Sprintf("%d days", s/86400)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// clockTime is the time of day, with the date when that is not the day of now.
func clockTime(t, now time.Time) string {
	if t, now = t.Local(), now.Local(); t.YearDay() != now.YearDay() || t.Year() != now.Year() {
		return t.Format("2 Jan 15:04")
	}
	return t.Format("15:04:05")
}

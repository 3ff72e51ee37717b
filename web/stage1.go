package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode"

	"bramble/boot"
	"bramble/firstboot/wire"
	"bramble/node"
)

const (
	maxReport  = 64 << 10 // bytes of a report's body
	maxText    = 500      // bytes of a report's sentence that are kept
	defaultTmp = "50%"
	loginUID   = 1000
)

// board reads who asks from ?mac=…
func board(q url.Values) (node.MAC, error) {
	mac, err := node.ParseMAC(q.Get("mac"))
	if err != nil {
		return node.MAC{}, fmt.Errorf("the address lacks ?mac= with the board's address: %w", err)
	}
	if mac.IsZero() || mac[0]&1 != 0 {
		return node.MAC{}, fmt.Errorf("%s is not the address of one board", mac)
	}
	return mac, nil
}

// ask gets the plan for the board that r names; when there is none, it has answered.
func (s *Server) ask(w http.ResponseWriter, r *http.Request) (node.MAC, boot.Plan, bool) {
	mac, err := board(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return mac, boot.Plan{}, false
	}
	if why := s.stranger(r, mac); why != "" {
		http.Error(w, why, http.StatusForbidden)
		return mac, boot.Plan{}, false
	}
	plan := s.Desk.Ask(boot.Request{Step: boot.Stage1, MAC: mac})
	if !plan.Serve {
		http.Error(w, plan.Reason, http.StatusForbidden)
		return mac, boot.Plan{}, false
	}
	return mac, plan, true
}

func (s *Server) servePlan(w http.ResponseWriter, r *http.Request) {
	mac, plan, ok := s.ask(w, r)
	if !ok {
		return
	}
	root, err := s.Root(localAddr(r), plan)
	if err != nil {
		s.broken(w, mac, "Its root cannot be served.", err)
		return
	}
	files, err := s.Files(plan)
	if err != nil {
		s.broken(w, mac, "Its files cannot be made.", err)
		return
	}
	sum := sha256.Sum256(files)
	answer := wire.Plan{
		Boot: plan.Boot, Name: plan.Name, Now: s.now().UTC(), Root: root, Overlay: plan.Overlay,
		FilesSHA: hex.EncodeToString(sum[:]), Init: "/sbin/init", DeadConn: int(s.deadConn().Seconds()),
	}
	if answer.Overlay == "" {
		answer.Overlay = defaultTmp
	}
	if plan.User != "" {
		answer.User = &wire.User{Name: plan.User, UID: loginUID}
	}
	sendJSON(w, answer)
}

func (s *Server) serveFiles(w http.ResponseWriter, r *http.Request) {
	mac, plan, ok := s.ask(w, r)
	if !ok {
		return
	}
	files, err := s.Files(plan)
	if err != nil {
		s.broken(w, mac, "Its files cannot be made.", err)
		return
	}
	sum := sha256.Sum256(files)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
	w.Header().Set("Content-Type", "application/x-tar")
	http.ServeContent(w, r, "files.tar", time.Time{}, bytes.NewReader(files))
}

func (s *Server) serveClock(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	sendJSON(w, wire.Clock{Now: s.now().UTC()})
}

// serveReport takes one step of a board that the journal knows. Others are refused, so that strangers cannot fill it.
func (s *Server) serveReport(w http.ResponseWriter, r *http.Request) {
	report, err := readReport(http.MaxBytesReader(w, r.Body, maxReport))
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		http.Error(w, fmt.Sprintf("The report is larger than %d bytes.", maxReport), http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	state, known := s.Journal.Nodes().Get(report.MAC)
	if !known {
		http.Error(w, fmt.Sprintf("No boot of %s is known; ask for the plan first.", report.MAC), http.StatusNotFound)
		return
	}
	e := event(report)
	e.Addr = peerAddr(r)
	// A board reports only the boot that it is in. Its command line may name it otherwise than the journal does,
	// if the journal was lost meanwhile.
	e.Boot = state.Boot
	s.Journal.Record(e)
	w.WriteHeader(http.StatusNoContent)
}

// readReport decodes a report and cuts it to what a timeline can show.
func readReport(body io.Reader) (wire.Report, error) {
	var r wire.Report
	if err := json.NewDecoder(body).Decode(&r); err != nil {
		return r, fmt.Errorf("the report is not the JSON that it should be: %w", err)
	}
	if r.MAC.IsZero() {
		return r, errors.New("the report does not say which board it is about: mac is missing")
	}
	if r.Boot = node.BootID(clean(string(r.Boot), 32)); r.Boot == "" {
		return r, errors.New("the report does not say which boot it is about: boot is missing")
	}
	if r.Step = clean(r.Step, 32); r.Step == "" {
		return r, errors.New("the report does not say what it is about: step is missing")
	}
	r.Text = clean(r.Text, maxText)
	r.Took = min(max(r.Took, 0), 24*time.Hour)
	return r, nil
}

// clean makes one line of valid, printable text of at most limit bytes.
func clean(s string, limit int) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, " "))), " ")
	if len(s) > limit {
		s = strings.TrimSpace(strings.ToValidUTF8(s[:limit-len("…")], "")) + "…"
	}
	return s
}

func event(r wire.Report) node.Event {
	e := node.Event{Kind: node.StepDone, Node: r.MAC, Boot: r.Boot, Serial: r.Serial, Step: r.Step, Text: r.Text, Took: r.Took}
	switch {
	case !r.OK:
		e.Kind = node.StepFailed
	case r.Step == "login":
		e.Kind, e.Text = node.Login, ""
	case r.Step == "ready":
		e.Kind, e.Text = node.Ready, ""
	}
	return e
}

// broken answers a board whose plan cannot be carried out. The cause goes to the log and, once, to the timeline.
func (s *Server) broken(w http.ResponseWriter, mac node.MAC, what string, err error) {
	text := clean(what+" "+err.Error(), maxText)
	if state, _ := s.Journal.Nodes().Get(mac); state.Problem != text {
		s.log().Error("stage 1 cannot be served", "node", mac, "what", what, "err", err)
		s.Journal.Record(node.Event{Kind: node.StepFailed, Node: mac, Boot: state.Boot, Step: "plan", Text: text})
	}
	http.Error(w, what+" The appliance's log says why.", http.StatusServiceUnavailable)
}

// localAddr is the address of this host that r came to: the board can reach it.
func localAddr(r *http.Request) netip.Addr {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if ap, err := netip.ParseAddrPort(a.String()); err == nil {
			return ap.Addr().Unmap()
		}
	}
	return netip.Addr{}
}

func peerAddr(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr().Unmap().WithZone("")
}

func sendJSON(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "The answer cannot be written.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n'))
}

package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"bramble/firstboot/wire"
	"bramble/node"
)

// Authority issues the HTTPS server's certificate, and knows those of nodes; *enroll.Authority is one.
type Authority interface {
	ServerCert(names []string, addrs []net.IP) (tls.Certificate, error)
	Pool() *x509.CertPool
	Pin() string
	KnownHostsLine(pattern string) string
}

// Enrolment decides who may join; *enroll.Desk is one.
type Enrolment interface {
	Enroll(peer netip.Addr, r wire.EnrollRequest) (wire.EnrollAnswer, error)
	Renew(mac node.MAC, boot node.BootID, peer netip.Addr, r wire.EnrollRequest) (wire.EnrollAnswer, error)
	Admit(mac node.MAC, boot node.BootID, peer netip.Addr) (node.State, error)
	Approve(mac node.MAC, code string) error
	OpenWindow(open time.Duration) error
	Status() (policy string, until time.Time)
}

// NodeConfig is what the configuration says of a node.
type NodeConfig interface {
	Config(node.State) (wire.Config, error)
	Tree(s node.State, commit string) ([]byte, error) // tar
	Changed() <-chan struct{}                         // closed at the next change
}

const (
	maxEnroll = 32 << 10
	longPoll  = 50 * time.Second
)

func (s *Server) routeNodes(mux *http.ServeMux) {
	mux.HandleFunc("POST "+wire.EnrollPath, s.serveEnroll)
	mux.HandleFunc("GET "+wire.ConfigPath, s.member(s.serveConfig))
	mux.HandleFunc("GET "+wire.TreePath, s.member(s.serveTree))
	mux.HandleFunc("POST "+wire.StepPath, s.member(s.serveStep))
	mux.HandleFunc("POST "+wire.OutputPath, s.member(s.serveOutput))
}

// sender is the node and boot that the certificate of r names; ok is false without one.
func (s *Server) sender(r *http.Request) (mac node.MAC, boot node.BootID, ok bool) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || s.Identity == nil {
		return mac, boot, false
	}
	mac, boot, err := s.Identity(r.TLS.VerifiedChains[0][0])
	return mac, boot, err == nil
}

func (s *Server) serveEnroll(w http.ResponseWriter, r *http.Request) {
	switch {
	case s.Enrolment == nil:
		http.Error(w, "Enrolment is switched off on this appliance.", http.StatusNotFound)
		return
	case r.TLS == nil:
		http.Error(w, "Tokens do not cross the network in clear: enroll over https.", http.StatusForbidden)
		return
	}
	var request wire.EnrollRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxEnroll)).Decode(&request); err != nil {
		http.Error(w, "The request to enroll is not the JSON that it should be: "+clean(err.Error(), maxText), http.StatusBadRequest)
		return
	}
	var answer wire.EnrollAnswer
	var err error
	if mac, boot, ok := s.sender(r); ok {
		answer, err = s.Enrolment.Renew(mac, boot, peerAddr(r), request)
	} else {
		answer, err = s.Enrolment.Enroll(peerAddr(r), request)
	}
	if err != nil {
		s.deny(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	sendJSON(w, answer)
}

// deny gives the reason of a refusal; the cause of a failure is for the log.
func (s *Server) deny(w http.ResponseWriter, err error) {
	var no interface{ Refused() string }
	if errors.As(err, &no) {
		http.Error(w, no.Refused(), http.StatusForbidden)
		return
	}
	s.log().Error("a node cannot be served", "err", err)
	http.Error(w, "The appliance cannot do this now; its log says why.", http.StatusServiceUnavailable)
}

// member lets nodes through that have joined in their present boot.
func (s *Server) member(next func(http.ResponseWriter, *http.Request, node.State)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.Enrolment == nil {
			http.Error(w, "Enrolment is switched off on this appliance.", http.StatusNotFound)
			return
		}
		mac, boot, ok := s.sender(r)
		if !ok {
			http.Error(w, "This is for nodes that have joined: it needs a node's certificate, over https.", http.StatusForbidden)
			return
		}
		state, err := s.Enrolment.Admit(mac, boot, peerAddr(r))
		if err != nil {
			s.deny(w, err)
			return
		}
		next(w, r, state)
	}
}

// serveConfig answers with the node's configuration; with ?since= when it is another commit, or after a while.
func (s *Server) serveConfig(w http.ResponseWriter, r *http.Request, state node.State) {
	if s.NodeConfig == nil {
		http.Error(w, "This appliance has no configuration for nodes.", http.StatusNotFound)
		return
	}
	since := r.URL.Query().Get("since")
	ctx, cancel := context.WithTimeout(r.Context(), s.poll())
	defer cancel()
	if since != "" {
		control := http.NewResponseController(w)
		// errors.ErrUnsupported only without a connection: nothing times out there
		_ = control.SetReadDeadline(time.Time{})
		_ = control.SetWriteDeadline(time.Now().Add(s.poll() + 30*time.Second))
	}
	for {
		changed := s.NodeConfig.Changed()
		config, err := s.NodeConfig.Config(state)
		if err != nil {
			s.broken(w, state.MAC, "Its configuration cannot be made.", err)
			return
		}
		if config.Commit != since {
			w.Header().Set("Cache-Control", "no-store")
			sendJSON(w, config)
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			w.WriteHeader(http.StatusNotModified)
			return
		}
		// much may have happened meanwhile
		if state, err = s.Enrolment.Admit(state.MAC, state.Boot, peerAddr(r)); err != nil {
			s.deny(w, err)
			return
		}
	}
}

func (s *Server) poll() time.Duration {
	if s.pollFor > 0 {
		return s.pollFor
	}
	return longPoll
}

func (s *Server) serveTree(w http.ResponseWriter, r *http.Request, state node.State) {
	if s.NodeConfig == nil {
		http.Error(w, "This appliance has no configuration for nodes.", http.StatusNotFound)
		return
	}
	tar, err := s.NodeConfig.Tree(state, r.URL.Query().Get("commit"))
	if err != nil {
		s.broken(w, state.MAC, "Its Salt files cannot be made.", err)
		return
	}
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set("Content-Length", strconv.Itoa(len(tar)))
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(tar)
}

func (s *Server) serveStep(w http.ResponseWriter, r *http.Request, state node.State) {
	report, err := readStep(http.MaxBytesReader(w, r.Body, maxReport))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !s.talk.allow(state.MAC, s.now()) {
		w.Header().Set("Retry-After", "10")
		http.Error(w, "This node reports too much. Ask again in ten seconds.", http.StatusTooManyRequests)
		return
	}
	e := stepEvent(report)
	e.Node, e.Boot, e.Addr = state.MAC, state.Boot, peerAddr(r)
	s.Journal.Record(e)
	w.WriteHeader(http.StatusNoContent)
}

// readStep decodes a step's report and cuts it to what a timeline can show.
func readStep(body io.Reader) (wire.StepReport, error) {
	var r wire.StepReport
	if err := json.NewDecoder(body).Decode(&r); err != nil {
		return r, fmt.Errorf("the report is not the JSON that it should be: %w", err)
	}
	if r.Step = clean(r.Step, 32); r.Step == "" {
		return r, errors.New("the report does not say what it is about: step is missing")
	}
	r.Text, r.Commit = clean(r.Text, maxText), clean(r.Commit, 64)
	r.Took = min(max(r.Took, 0), 24*time.Hour)
	for i, f := range r.Failed {
		r.Failed[i] = wire.FailedState{ID: clean(f.ID, 100), File: clean(f.File, 100), Comment: clean(f.Comment, 200)}
	}
	return r, nil
}

func stepEvent(r wire.StepReport) node.Event {
	e := node.Event{Kind: node.AgentDone, Step: r.Step, Text: stepText(r), Took: r.Took, Commit: r.Commit}
	switch {
	case r.Step == "degraded":
		e.Kind = node.Degraded
	case !r.OK:
		e.Kind = node.AgentFailed
	case r.Step == "ready":
		e.Kind = node.Ready
	case r.Step == "login":
		e.Kind = node.Login
	case r.Step == "facts":
		e.Facts = factsOf(r.Facts)
	}
	return e
}

// stepText is the report's sentence, and which states failed unless it says so itself.
func stepText(r wire.StepReport) string {
	const shown = 3
	says := []string{r.Text}
	for i, f := range r.Failed {
		if i == shown {
			says = append(says, fmt.Sprintf("%d more states failed.", len(r.Failed)-shown))
			break
		}
		if f.ID != "" && !strings.Contains(r.Text, f.ID) {
			says = append(says, fmt.Sprintf("%s in %s: %s", f.ID, f.File, f.Comment))
		}
	}
	return strings.TrimSpace(strings.Join(says, " "))
}

// factsOf takes the facts that are for people; what is no number is not known.
func factsOf(m map[string]string) node.Facts {
	ram, _ := strconv.ParseInt(m["ram"], 10, 64)
	temperature, _ := strconv.Atoi(m["temperature"])
	return node.Facts{
		Board: clean(m["model"], 64), Suffix: clean(m["suffix"], 16), Revision: clean(m["revision"], 16), Kernel: clean(m["kernel"], 64),
		Throttled: clean(m["throttled"], 16), RAM: max(ram, 0), Temperature: temperature,
	}
}

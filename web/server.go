// Package web is the appliance's HTTP side: what stage 1 asks, the JSON API with its OpenAPI document, the event
// stream and the page that owners look at while boards boot. All of it reads the same fold; it keeps nothing itself.
package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"bramble/boot"
	"bramble/firstboot/wire"
	"bramble/journal"
	"bramble/node"
	"bramble/web/api"
)

// Journal is what the web needs of the journal; *journal.Journal is one.
type Journal interface {
	Nodes() *node.Registry
	Record(node.Event)
	Since(ctx context.Context, seq uint64, mac node.MAC, limit int) ([]node.Event, error)
	Boot(ctx context.Context, mac node.MAC, limit int) ([]node.Event, error)
	Subscribe(ctx context.Context, fromSeq uint64) <-chan node.Event
	Notices() []node.Event
	Stats() journal.Stats
}

// Desk answers what a board gets; *boot.Desk is one.
type Desk interface {
	Ask(boot.Request) boot.Plan
}

// Server is the settings of the web server. Fields are required unless they say otherwise.
type Server struct {
	Addr     string // of plain HTTP; empty: ":8080"
	TLSAddr  string // of HTTPS; empty: no HTTPS
	CertFile string // certificate and key, made at the first start; empty without HTTPS, or with an Authority
	Token    string // admin token, see LoadOrMakeToken; empty: nothing can be changed
	Private  bool   // reading needs the token, too, except from this host
	Version  string // optional

	Journal Journal
	Desk    Desk
	Rules   func() boot.Rules                                      // the present snapshot
	Root    func(host netip.Addr, p boot.Plan) (wire.Block, error) // where a board that reached host finds its root
	Files   func(boot.Plan) ([]byte, error)                        // tar of the board's own files: same plan, same bytes
	Images  func() []api.Image                                     // catalogue; nil: none is shown

	// Neighbour is the kernel's neighbour table: a board that was never seen booting must ask for its plan from its own
	// address. nil: this is not checked.
	Neighbour func(netip.Addr) (node.MAC, bool)

	// Enrolment, with an Authority and an Identity, lets boards join; NodeConfig is what those that have get. nil: that part
	// is off.
	Authority  Authority
	Identity   func(*x509.Certificate) (node.MAC, node.BootID, error)
	Enrolment  Enrolment
	NodeConfig NodeConfig

	Routes func(*http.ServeMux) // more of the API; nil: none
	Git    http.Handler         // at /git/; it asks for the token by itself, as git gives it. nil: none

	DeadConn time.Duration    // how long a node waits for a lost root; 0: one hour
	Log      *slog.Logger     // nil: slog.Default
	Now      func() time.Time // nil: time.Now

	patience      time.Duration // with a reader of the event stream; 0: defaultPatience
	pollFor       time.Duration // how long a node waits for a new commit; 0: longPoll
	newcomers     newcomers
	outputs       outputs
	talk          talk
	streams       atomic.Int32 // open event streams
	plain, secure net.Listener
	certs         certs
}

const (
	maxConns   = 1024
	maxStreams = 128
	maxHeader  = 16 << 10
	grace      = 3 * time.Second // for answers under way when the server ends
)

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.Default()
	}
	return s.Log
}

func (s *Server) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

func (s *Server) deadConn() time.Duration {
	if s.DeadConn <= 0 {
		return time.Hour
	}
	return s.DeadConn
}

// Listen opens the sockets, so that a busy port is an error before anything is served.
func (s *Server) Listen() (err error) {
	addr := s.Addr
	if addr == "" {
		addr = ":8080"
	}
	if s.plain, err = net.Listen("tcp", addr); err != nil {
		return fmt.Errorf("the web server cannot listen on %s; another program may use the port: %w", addr, err)
	}
	if s.TLSAddr == "" {
		return nil
	}
	if err = s.certs.open(s.Authority, s.CertFile); err == nil {
		s.secure, err = net.Listen("tcp", s.TLSAddr)
	}
	if err != nil {
		s.plain.Close()
		return fmt.Errorf("the web server cannot offer HTTPS on %s: %w", s.TLSAddr, err)
	}
	s.log().Info("HTTPS is on", "addr", s.secure.Addr().String(), "sha256", s.certs.pin())
	return nil
}

// PlainAddr is where Listen listens for HTTP.
func (s *Server) PlainAddr() net.Addr { return s.plain.Addr() }

// SecureAddr is where Listen listens for HTTPS; nil when it does not.
func (s *Server) SecureAddr() net.Addr {
	if s.secure == nil {
		return nil
	}
	return s.secure.Addr()
}

// Serve serves what Listen opened until ctx ends; then it lets answers under way finish, and returns nil.
func (s *Server) Serve(ctx context.Context) error {
	servers := []*http.Server{s.server(ctx)}
	listeners := []net.Listener{netutil.LimitListener(s.plain, maxConns)}
	if s.secure != nil {
		secured := tls.NewListener(netutil.LimitListener(s.secure, maxConns), s.certs.config())
		servers, listeners = append(servers, s.server(ctx)), append(listeners, secured)
	}
	ended := make(chan error, len(servers))
	for i, srv := range servers {
		go func() { ended <- srv.Serve(listeners[i]) }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-ended:
		err = fmt.Errorf("the web server ended: %w", err)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	for _, srv := range servers {
		if srv.Shutdown(last) != nil {
			err = errors.Join(err, srv.Close())
		}
	}
	return err
}

func (s *Server) server(ctx context.Context) *http.Server {
	return &http.Server{
		Handler:           s.Handler(),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      time.Minute, // the event stream moves its own on
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log().Handler(), slog.LevelDebug),
	}
}

// Handler is everything that the server answers.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wire.PlanPath, s.servePlan)
	mux.HandleFunc("GET "+wire.FilesPath, s.serveFiles)
	mux.HandleFunc("GET "+wire.ClockPath, s.serveClock)
	mux.HandleFunc("POST "+wire.ReportPath, s.serveReport)
	mux.HandleFunc("GET /metrics", s.serveMetrics)
	s.routeNodes(mux)
	s.routePages(mux)
	s.routeAPI(mux)
	if s.Routes != nil {
		s.Routes(mux)
	}
	guarded := s.guard(mux)
	if s.Git == nil {
		return guarded
	}
	all := http.NewServeMux()
	all.Handle("/", guarded)
	all.Handle("/git/", s.Git)
	return all
}

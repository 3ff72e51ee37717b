package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"bramble/firstboot/wire"
	"bramble/node"
	"bramble/web/api"
)

// guard lets through what may be asked:
//   - stage 1 and the health check always: boards have no token, and what they get is public;
//   - reading by everybody, or, when the server is private, from this host or with the token over TLS;
//   - changing only with the token in an Authorization header, over TLS or from this host. A browser does not send
//     that header by itself, so that no foreign page can make it change anything.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'")
		if open(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		reading := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch {
		case reading && (!s.Private || fromHere(r)):
		case r.TLS == nil && !fromHere(r):
			refuse(w, http.StatusForbidden, "The token must not cross the network in clear. Ask over https, or on the appliance itself.")
			return
		case s.authorized(r, reading):
		default:
			if reading {
				h.Set("WWW-Authenticate", `Basic realm="bramble: any name, and the admin token", charset="UTF-8"`)
			} else {
				h.Set("WWW-Authenticate", `Bearer realm="bramble"`)
			}
			refuse(w, http.StatusUnauthorized, "This needs the admin token, which is in the appliance's state directory in the file token: Authorization: Bearer TOKEN.")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// open are the paths for everybody.
func open(path string) bool {
	switch path {
	case wire.PlanPath, wire.FilesPath, wire.ReportPath, wire.ClockPath,
		wire.EnrollPath, wire.ConfigPath, wire.TreePath, wire.StepPath, wire.OutputPath, // these ask for a token of their own, or a certificate
		api.Prefix + "/healthz":
		return true
	}
	return false
}

// stranger says why a board that is not known may not become known by asking for its plan: nobody may fill the
// registry with boards that are not there. It is empty for a board that was seen booting, or that asks itself.
func (s *Server) stranger(r *http.Request, mac node.MAC) string {
	if known, _ := s.Journal.Nodes().Get(mac); known.Boot != "" {
		return ""
	}
	peer := peerAddr(r)
	if s.Neighbour != nil {
		switch at, ok := s.Neighbour(peer); {
		case !ok:
			return fmt.Sprintf("No boot of %s is known, and whether %s is that board cannot be seen from here. Boot the board from this appliance, or put both on one network segment.", mac, peer)
		case at != mac:
			return fmt.Sprintf("No boot of %s is known, and %s is another machine, %s. A board that did not boot from this appliance must ask for its plan itself.", mac, peer, at)
		}
	}
	if !s.newcomers.admit(s.now()) {
		return fmt.Sprintf("No boot of %s is known, and too many new boards have come at once. Ask again in %s.", mac, newcomerEvery)
	}
	return ""
}

// newcomers counts boards that were never seen booting. The zero value is ready.
type newcomers struct {
	mu   sync.Mutex
	next time.Time // when all who came would have come, one after the other
}

const (
	newcomerBurst = 64 // more than a tower has, for an appliance that lost its journal
	newcomerEvery = 2 * time.Second
)

// admit lets a burst through, and then one board at a time.
func (n *newcomers) admit(now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next.Before(now) {
		n.next = now
	}
	if n.next.Sub(now) >= newcomerBurst*newcomerEvery {
		return false
	}
	n.next = n.next.Add(newcomerEvery)
	return true
}

// authorized reports whether r has the token. For reading, browsers may give it as a password.
func (s *Server) authorized(r *http.Request, reading bool) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok && reading {
		_, token, ok = r.BasicAuth()
	}
	given, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(s.Token))
	return ok && s.Token != "" && subtle.ConstantTimeCompare(given[:], want[:]) == 1
}

// fromHere reports whether r was sent by this host, not handed on by a proxy for somebody else.
func fromHere(r *http.Request) bool {
	if r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "" {
		return false
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}

// refuse answers as huma does (RFC 9457).
func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	body, err := json.Marshal(map[string]any{"title": http.StatusText(status), "status": status, "detail": why})
	if err == nil {
		_, _ = w.Write(append(body, '\n'))
	}
}

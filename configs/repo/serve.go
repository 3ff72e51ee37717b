package repo

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cgi"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Path is where Handler serves the own repository.
const Path = "/git/" + ownName + "/"

const (
	maxPush  = 64 << 20
	maxWants = 16 << 20
	patience = 5 * time.Minute // for one request
)

// Handler serves the own repository to git: clone, fetch and push over smart HTTP, by git's own http-backend. The
// password is the admin token; it is asked for pushes and, unless Options.Public, for reading, too, since pillars may
// hold what is not for everybody. It is never taken in clear from another host.
func (s *Store) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		service, known := s.service(r)
		switch pushing := service == "git-receive-pack"; {
		case s.o.URL != "":
			say(w, http.StatusNotFound, "The configuration of this appliance is in the repository "+redact(s.o.URL)+"; push there.")
		case !known:
			say(w, http.StatusNotFound, "Only git asks here: git clone of "+strings.TrimSuffix(Path, "/")+".")
		case r.TLS == nil && !fromHere(r) && (pushing || !s.o.Public):
			say(w, http.StatusForbidden, "The token must not cross the network in clear. Use the https URL, or the appliance itself.")
		case (pushing || !s.o.Public) && !s.authorized(r):
			w.Header().Set("WWW-Authenticate", `Basic realm="bramble: any name, and the admin token", charset="UTF-8"`)
			say(w, http.StatusUnauthorized, "This needs the admin token as the password; it is in the appliance's state directory in the file token.")
		default:
			s.backend(w, r, pushing)
		}
	})
}

// service is what a request is about; the smart protocol has two services and two kinds of requests.
func (s *Store) service(r *http.Request) (name string, known bool) {
	rest, ok := strings.CutPrefix(r.URL.Path, Path)
	switch {
	case ok && rest == "info/refs" && r.Method == http.MethodGet:
		name = r.URL.Query().Get("service")
	case ok && r.Method == http.MethodPost:
		name = rest
	}
	return name, name == "git-upload-pack" || name == "git-receive-pack"
}

func (s *Store) authorized(r *http.Request) bool {
	_, password, ok := r.BasicAuth()
	given, want := sha256.Sum256([]byte(password)), sha256.Sum256([]byte(s.o.Token))
	return ok && s.o.Token != "" && subtle.ConstantTimeCompare(given[:], want[:]) == 1
}

// fromHere reports whether r was sent by this host, not handed on by a proxy for somebody else.
func fromHere(r *http.Request) bool {
	if r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "" {
		return false
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}

func (s *Store) backend(w http.ResponseWriter, r *http.Request, pushing bool) {
	program, err := exec.LookPath("git")
	if err != nil {
		say(w, http.StatusServiceUnavailable, "The appliance has no git, so it cannot serve its repository. Install the package git there, and try again.")
		return
	}
	select {
	case s.pushes <- struct{}{}:
		defer func() { <-s.pushes }()
	default:
		w.Header().Set("Retry-After", "5")
		say(w, http.StatusServiceUnavailable, "Too many clients ask for the repository at once. Try again.")
		return
	}
	// a push may take longer than the server's usual limits; not every ResponseWriter has deadlines
	control, end := http.NewResponseController(w), time.Now().Add(patience)
	_, _ = control.SetReadDeadline(end), control.SetWriteDeadline(end)
	limit := int64(maxWants)
	if pushing {
		limit = maxPush
	}
	r.Body = http.MaxBytesReader(w, r.Body, limit)
	if err := s.spool(r); err != nil {
		say(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("The request could not be read; it may have up to %d MB: keep images and packages out of the configuration.", limit>>20))
		return
	}
	defer r.Body.Close()
	handler := cgi.Handler{
		Path: program, Args: []string{"http-backend"}, Root: strings.TrimSuffix(Path, "/"+ownName+"/"), Dir: s.o.Dir,
		Env: []string{
			"GIT_PROJECT_ROOT=" + s.o.Dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "HOME=" + s.o.Dir,
			"LC_ALL=C.UTF-8",
		},
		Logger: slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug), Stderr: io.Discard,
	}
	if pushing {
		handler.Env = append(handler.Env, "REMOTE_USER=admin") // http-backend takes pushes of known users
	}
	r.Header.Del("Authorization")
	handler.ServeHTTP(w, r)
	if pushing && r.Method == http.MethodPost {
		select {
		case s.poke <- struct{}{}:
		default:
		}
	}
}

// spool puts a body of unknown length into a file: CGI wants to know the length before (git sends so what is larger
// than http.postBuffer).
func (s *Store) spool(r *http.Request) error {
	if len(r.TransferEncoding) == 0 {
		return nil
	}
	f, err := os.CreateTemp(s.o.Dir, ".push-*")
	if err != nil {
		return err
	}
	if err := os.Remove(f.Name()); err != nil { // it lives as long as it is open
		f.Close()
		return err
	}
	n, err := io.Copy(f, r.Body)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return err
	}
	r.Body, r.ContentLength, r.TransferEncoding = f, n, nil
	return nil
}

// say answers in plain text, which git shows to its user.
func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}

package nbd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// ends collects how sessions ended.
type ends chan struct {
	stats Stats
	err   error
}

func (e ends) closed(s *Session, err error) {
	e <- struct {
		stats Stats
		err   error
	}{s.Stats(), err}
}

func TestAccounting(t *testing.T) {
	opened, closed := make(chan string, 1), make(ends, 1)
	addr := start(t, &Server{
		Exports: worlds{"root": newMemory(noise(1 << 20))},
		Opened:  func(s *Session) { opened <- s.Export() + " " + s.Peer().Network() },
		Closed:  closed.closed,
	})
	conn, _ := dial(t, addr, "root")
	if got, want := <-opened, "root tcp"; got != want {
		t.Errorf("Opened saw %q; want %q", got, want)
	}
	ask(t, conn, request{length: 1000})
	ask(t, conn, request{length: 500000})
	ask(t, conn, request{kind: cmdTrim})
	if _, err := conn.Write(appendRequest(nil, request{kind: cmdDisc})); err != nil {
		t.Fatal(err)
	}
	end := <-closed
	if want := (Stats{Requests: 3, Bytes: 501000, Errors: 1}); end.stats != want || end.err != nil {
		t.Errorf("Closed saw %+v, %v; want %+v and no error", end.stats, end.err, want)
	}
}

func TestClientVanishesWithinARead(t *testing.T) {
	path, _ := noiseFile(t, maxRequest)
	for name, exports := range map[string]Exports{"sendfile": files{"": path}, "copy": worlds{"": newMemory(noise(maxRequest))}} {
		t.Run(name, func(t *testing.T) {
			closed := make(ends, 1)
			addr := start(t, &Server{Exports: exports, Closed: closed.closed})
			conn, _ := dial(t, addr, "")
			if _, err := conn.Write(bytes.Repeat(appendRequest(nil, request{length: maxRequest}), 5)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, conn, 100000); err != nil {
				t.Fatal(err)
			}
			if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
				t.Fatal(err)
			}
			conn.Close()
			select {
			case end := <-closed:
				if end.err == nil {
					t.Error("the session ended without an error")
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the session did not end")
			}
		})
	}
}

// One client asks for everything and reads nothing; the memory of all replies
// is small. The others must not notice, and the first is dropped in the end.
func TestClientThatNeverReads(t *testing.T) {
	closed := make(ends, 2)
	data := noise(maxRequest)
	addr := start(t, &Server{
		Exports: worlds{"": newMemory(data)}, Memory: 2 * largeBuffer,
		WriteTimeout: 500 * time.Millisecond, Closed: closed.closed,
	})
	lazy, _ := dial(t, addr, "")
	if _, err := lazy.Write(bytes.Repeat(appendRequest(nil, request{length: maxRequest}), 2*parallel)); err != nil {
		t.Fatal(err)
	}
	conn, _ := dial(t, addr, "")
	for i := range 20 {
		if code, got := ask(t, conn, request{offset: uint64(i), length: 1 << 20}); code != errNone || !bytes.Equal(got, data[i:i+1<<20]) {
			t.Fatalf("READ %d beside a client that does not read: error %d, or wrong data", i, code)
		}
	}
	select {
	case end := <-closed:
		if end.err == nil || !strings.Contains(end.err.Error(), "timeout") {
			t.Errorf("the lazy session ended with %v; want a timeout", end.err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the lazy session did not end")
	}
}

func TestStrangersAreBounded(t *testing.T) {
	for _, tt := range []struct {
		name      string
		srv       Server
		strangers int // that get a greeting
	}{
		{"in all, half of them strangers", Server{MaxConns: 6}, 3},
		{"for each peer", Server{MaxConnsPerPeer: 2}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log safeBuffer
			srv := tt.srv
			srv.Exports = worlds{"": newMemory(noise(512))}
			srv.HandshakeTimeout = 500 * time.Millisecond
			srv.Logger = slog.New(slog.NewTextHandler(&log, nil))
			addr := start(t, &srv)
			for i := range tt.strangers + 3 {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				n, err := io.ReadFull(conn, make([]byte, greetingSize))
				if greeted := n == greetingSize && err == nil; greeted != (i < tt.strangers) {
					t.Errorf("stranger %d is greeted: %v (%v)", i, greeted, err)
				}
			}
			// Their time runs out; then there is room again.
			deadline := time.Now().Add(10 * time.Second)
			for {
				conn, _, err := Dial(t.Context(), addr, "")
				if err == nil {
					conn.Close()
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("no room after the strangers' time was up: %v", err)
				}
				time.Sleep(20 * time.Millisecond)
			}
			if got := strings.Count(log.String(), "too many connections"); got != 1 {
				t.Errorf("the log tells %d times of too many connections; want once:\n%s", got, log.String())
			}
		})
	}
}

func TestEndOfServe(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	closed := make(ends, 1)
	export := newMemory(noise(maxRequest))
	srv := Server{Exports: worlds{"": export}, Closed: closed.closed}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	stranger, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	conn, _ := dial(t, ln.Addr().String(), "")
	if _, err := conn.Write(appendRequest(nil, request{length: maxRequest})); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Serve() = %v; want nil", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Serve goes on after its context has ended")
	}
	if end := <-closed; !errors.Is(end.err, context.Canceled) {
		t.Errorf("the session ended with %v; want the end of the context", end.err)
	}
	if n := export.closed.Load(); n != 1 {
		t.Errorf("the export was closed %d times; want once", n)
	}
}

func TestClosedListenerIsAnError(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	srv := Server{Exports: worlds{}}
	if err := srv.Serve(t.Context(), ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve on a closed listener = %v; want net.ErrClosed", err)
	}
}

// safeBuffer is a bytes.Buffer for several goroutines.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

package nbd

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Server serves the exports of a catalogue. The fields are its settings and
// must not change while it serves; only Exports has no default.
type Server struct {
	Exports Exports

	// Logger takes the server's own sentences. Nil is silence.
	Logger *slog.Logger

	// List lets clients ask for the names of all exports. False refuses.
	List bool

	// HandshakeTimeout is how long a client may take to choose an export.
	// Zero is 10 seconds.
	HandshakeTimeout time.Duration

	// WriteTimeout is how long a client may take to accept a piece of at most
	// 1 MiB. Zero is 30 seconds.
	WriteTimeout time.Duration

	// MaxConns bounds the connections of one Serve; at most half of them may be
	// in their handshake. Zero is 1024.
	MaxConns int

	// MaxConnsPerPeer bounds the connections of one IP address. Zero is 64.
	MaxConnsPerPeer int

	// Memory bounds the bytes that replies in flight may share, beside 128 KiB
	// for each active connection. Zero is 32 MiB.
	Memory int64

	// Opened, if set, is called when a client has chosen an export, Closed when
	// that session has ended: with nil if the client said goodbye. Both must
	// return quickly; the session's counters may be read at any time.
	Opened func(*Session)
	Closed func(*Session, error)
}

// Serve accepts connections from ln, which it closes, until ctx ends: then it
// drops all connections, waits for their goroutines and returns nil. Any other
// return is an error of the listener.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	run := newRun(s)
	var conns sync.WaitGroup
	defer conns.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	defer ln.Close()
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("nbd: the listener on %s was closed: %w", ln.Addr(), err)
		case err != nil:
			// Out of file descriptors or memory: both pass.
			run.log.Warn("nbd: cannot accept a connection, trying again in a second", "err", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		default:
			conns.Go(func() { run.serve(ctx, conn) })
		}
	}
}

// run is what the connections of one Serve share.
type run struct {
	*Server
	log   *slog.Logger
	gate  gate
	store *store
}

func newRun(s *Server) *run {
	r := &run{Server: s, log: s.Logger, store: newStore(cmp.Or(s.Memory, 32<<20))}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.gate = gate{
		max:     cmp.Or(s.MaxConns, 1024),
		perPeer: cmp.Or(s.MaxConnsPerPeer, 64),
		peers:   make(map[netip.Addr]int),
	}
	return r
}

// serve is the life of one connection.
func (r *run) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	ticket, refused := r.gate.enter(conn.RemoteAddr(), time.Now())
	if ticket == nil {
		if refused > 0 {
			r.log.Warn("nbd: too many connections, refusing new ones", "peer", conn.RemoteAddr(), "refused", refused)
		}
		return
	}
	defer ticket.leave()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if tcp, ok := conn.(*net.TCPConn); ok {
		// A vanished client is noticed after a minute, even if it owes us nothing.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3})
	}

	in := bufio.NewReader(conn)
	name, export, err := r.negotiate(ctx, conn, in)
	if err != nil {
		r.log.Debug("nbd: handshake ended without an export", "peer", conn.RemoteAddr(), "err", err)
		return
	}
	defer func() {
		if err := export.Close(); err != nil {
			r.log.Warn("nbd: closing an export", "export", brief([]byte(name)), "err", err)
		}
	}()
	ticket.settle()

	s := newSession(r, conn, in, name, export)
	if r.Opened != nil {
		r.Opened(s)
	}
	err = s.serve()
	if ctx.Err() != nil {
		err = fmt.Errorf("nbd: the server is stopping: %w", context.Cause(ctx))
	}
	if r.Closed != nil {
		r.Closed(s, err)
	}
}

// negotiate runs the handshake under its deadline.
func (r *run) negotiate(ctx context.Context, conn net.Conn, in *bufio.Reader) (string, Export, error) {
	timeout := cmp.Or(r.HandshakeTimeout, 10*time.Second)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", nil, err
	}
	h := handshake{in: in, out: conn, exports: r.Exports, list: r.List, log: r.log.With("peer", conn.RemoteAddr())}
	name, export, err := h.run(ctx)
	if err != nil {
		return "", nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return "", nil, errors.Join(err, export.Close())
	}
	return name, export, nil
}

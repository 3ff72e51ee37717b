// Package tftp is the file server of the boot ROM and the firmware: read-only, lock-step, with the options tsize and
// blksize, and a retransmission timer that follows each client's round trip.
//
// What a client gets is the Tree's matter; what happened goes to the Observer. docs/boot.md tells what a Raspberry
// Pi asks for and in which order.
package tftp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Tree is the policy: which file a client gets under a name. The name is relative and clean (fs.ValidPath). An error
// that is fs.ErrNotExist is a miss, which is normal; any other is a failure. Nothing of an error reaches the client.
// Open is called from many goroutines; ctx ends with the request.
type Tree interface {
	Open(ctx context.Context, peer Peer, name string) (File, error)
}

// Server serves a Tree. The struct is the settings; the zero value of a field means what its comment says.
type Server struct {
	Tree      Tree
	Observe   func(Report)  // hears of every request, in order, from one goroutine; nil: nobody listens
	Log       *slog.Logger  // nil: no log
	Block     int           // largest block size that is granted, 8 to 1468 bytes; 0: 1468, which fits a 1500-byte frame
	Transfers int           // open at once, in total; 0: 512
	PerClient int           // open at once for one client address; 0: 64
	QueueTime time.Duration // how long a request waits for a place before it is forgotten; 0: 2 s
	Patience  time.Duration // how long a client that has begun to read may be silent; 0: 10 s, start.elf's own (firmware#1292)
}

const (
	shortPatience = 1500 * time.Millisecond // see conversation.bearable
	maxRequests   = 2048                    // looked up, waiting or running; beyond it requests stay in the kernel's queue
	maxReports    = 4096                    // waiting for a slow Observer; beyond it reports are dropped and counted
	maxLocals     = 64                      // addresses of this machine that are asked
	again         = time.Second             // a request repeated within it is a duplicate, not a new start
)

// running is a Server at work.
type running struct {
	Server
	gate     *gate
	reports  chan Report
	requests chan struct{} // a place for each request in work
	busy     chan struct{} // wakes the clock
	rooms    *sync.Pool

	mu      sync.Mutex
	clients map[netip.AddrPort]*transfer
	lanes   map[netip.Addr]*lane
	dropped int
}

// Serve answers what comes in on conn, which is usually bound to port 69, until ctx ends; then it closes conn, lets
// go of every transfer and returns nil. An error says that conn can no longer be read.
func (s *Server) Serve(ctx context.Context, conn *net.UDPConn) error {
	if s.Tree == nil {
		return errors.New("the TFTP server has no Tree: set Server.Tree to what it shall serve")
	}
	r := &running{
		Server:   s.withDefaults(),
		reports:  make(chan Report, maxReports),
		requests: make(chan struct{}, maxRequests),
		busy:     make(chan struct{}, 1),
		rooms:    newRooms(),
		clients:  map[netip.AddrPort]*transfer{},
		lanes:    map[netip.Addr]*lane{},
	}
	r.gate = newGate(r.Transfers, r.PerClient)

	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	told := make(chan struct{})
	go func() { defer close(told); r.observe() }()

	var transfers, loops sync.WaitGroup
	loops.Go(func() { r.clock(ctx) })
	err := r.listen(ctx, conn, &transfers, &loops)
	if ctx.Err() != nil {
		err = nil
	}
	cancel()
	conn.Close()
	transfers.Wait()
	for _, l := range r.lanes {
		l.close()
	}
	loops.Wait()
	close(r.reports)
	<-told
	return err
}

func (s *Server) withDefaults() Server {
	d := *s
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Block < minBlock || d.Block > maxBlock4 {
		d.Block = maxBlock4
	}
	d.Transfers = orElse(d.Transfers, 512)
	d.PerClient = orElse(d.PerClient, 64)
	d.QueueTime = orElse(d.QueueTime, 2*time.Second)
	d.Patience = orElse(d.Patience, 10*time.Second)
	return d
}

func orElse[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// listen reads requests and starts a transfer for each that is new.
func (r *running) listen(ctx context.Context, conn *net.UDPConn, transfers, loops *sync.WaitGroup) error {
	in, err := newListener(conn)
	if err != nil {
		return err
	}
	for {
		datagram, peer, err := in.read()
		if err != nil {
			return fmt.Errorf("the TFTP port %s cannot be read any more: %w", conn.LocalAddr(), err)
		}
		request, err := parseRequest(datagram)
		if err != nil {
			continue // strangers cost nothing
		}
		select {
		case r.requests <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		own, done := context.WithCancel(ctx)
		t := &transfer{server: r, peer: peer, request: request, began: time.Now(), done: done}
		ended := func() { done(); r.forget(t); <-r.requests }
		if isNew, err := r.register(t, loops); !isNew {
			if err != nil {
				r.Log.Warn("tftp: a request is not answered", "client", peer.Addr, "error", err)
			}
			ended()
			continue
		}
		transfers.Go(func() { defer ended(); t.run(own) })
	}
}

// register makes t the transfer of its client port and gives it a lane and a port there. It declines a duplicate of the
// transfer that is under way, and lets go of an older one that t takes the place of: client ports come again in every
// stage of a boot.
func (r *running) register(t *transfer, loops *sync.WaitGroup) (isNew bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.port = int(t.peer.Addr.Port()) % portsPerLane
	if old := r.clients[t.peer.Addr]; old != nil {
		if old.sameAs(t) {
			return false, nil
		}
		old.replace()
		t.port = (old.port + 1) % portsPerLane
	}
	if t.lane, err = r.laneOf(t.peer.Local, loops); err != nil {
		return false, err
	}
	if before := r.clients[t.previous()]; before != nil && before.talk != nil {
		before.lane.overtaken(before.talk)
	}
	r.clients[t.peer.Addr] = t
	return true, nil
}

func (r *running) laneOf(local netip.Addr, loops *sync.WaitGroup) (*lane, error) {
	if l := r.lanes[local]; l != nil {
		return l, nil
	}
	if len(r.lanes) == maxLocals {
		return nil, fmt.Errorf("more than %d addresses of this machine were asked for files", maxLocals)
	}
	l, err := newLane(local)
	if err != nil {
		return nil, err
	}
	loops.Go(l.run)
	r.lanes[local] = l
	return l, nil
}

// sameAs reports whether a newer request is only another copy of t's: one that the network doubled, or that the
// client repeated before it saw the answer, which the timer sends again anyway.
func (t *transfer) sameAs(newer *transfer) bool {
	return t.request.name == newer.request.name && t.request.write == newer.request.write &&
		newer.began.Sub(t.began) < again
}

// previous is the port from which a Raspberry Pi made the request before: each comes from the next port.
func (t *transfer) previous() netip.AddrPort {
	return netip.AddrPortFrom(t.peer.Addr.Addr(), t.peer.Addr.Port()-1)
}

// replace lets go of t because its client asked anew. It is called with running.mu held.
func (t *transfer) replace() {
	t.gone = true
	if t.talk != nil {
		t.lane.finish(t.talk, replaced)
	}
	t.done()
}

// started makes known that t's conversation begins; false means that it need not any more.
func (r *running) started(t *transfer, talk *talk) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.talk = talk
	return !t.gone
}

func (r *running) forget(t *transfer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.clients[t.peer.Addr] == t {
		delete(r.clients, t.peer.Addr)
	}
}

// clock looks at the timers of all lanes while anything is under way. Nothing that is sent meanwhile is due before
// the next look: no timeout is shorter than margin.
func (r *running) clock(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.busy:
		case <-timer.C:
		}
		var next time.Time
		now := time.Now()
		for _, l := range r.allLanes() {
			if due := l.expire(now); !due.IsZero() && (next.IsZero() || due.Before(next)) {
				next = due
			}
		}
		if !next.IsZero() {
			timer.Reset(min(next.Sub(now), margin))
		}
	}
}

func (r *running) allLanes() []*lane {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.lanes))
}

// wake starts the clock.
func (r *running) wake() {
	select {
	case r.busy <- struct{}{}:
	default:
	}
}

// tell hands a report to the Observer's goroutine without ever waiting for it.
func (r *running) tell(report Report) {
	if r.Observe == nil {
		return
	}
	select {
	case r.reports <- report:
	default:
		r.mu.Lock()
		r.dropped++
		n := r.dropped
		r.mu.Unlock()
		if n&(n-1) == 0 {
			r.Log.Warn("tftp: the observer is too slow, reports were dropped", "dropped", n)
		}
	}
}

func (r *running) observe() {
	for report := range r.reports {
		r.Observe(report)
	}
}

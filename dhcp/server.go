package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bramble/boot"
	"bramble/node"
)

// Server answers netboot clients on some interfaces. Its fields are its settings; do not change them after Listen.
type Server struct {
	Interfaces []string                     // names; at least one
	Ask        func(boot.Request) boot.Plan // usually boot.Desk.Ask
	Record     func(node.Event)             // appends to the journal
	Nodes      interface {
		Get(node.MAC) (node.State, bool)
	} // usually *node.Registry
	Authority  *Authority    // nil: proxyDHCP, another server gives out the addresses
	ProbeWait  time.Duration // how long a probe of the segment listens; zero: 5 s, negative: never probe
	ProbeAgain time.Duration // after how long to look again while something is wrong; zero: 1 min
	Log        *slog.Logger
	Now        func() time.Time // nil: time.Now

	ports    []*port
	pending  atomic.Int32
	suspects chan suspicion
	own      []node.MAC // of the served interfaces: two may be plugged into one switch, and we never answer ourselves
}

// wire is what the server needs of a port; tests have their own.
type wire interface {
	address() (netip.Prefix, error)
	send(b []byte, from netip.Addr, to netip.AddrPort) error
	sendTo(mac node.MAC, b []byte, from, to netip.Addr) error
	ifname() string
}

func (p *port) ifname() string { return p.name }

// Listen opens port 67 on every interface, or on none. The error says which one could not be had and what to do.
func (s *Server) Listen() error {
	if len(s.Interfaces) == 0 {
		return errors.New("no interface to serve DHCP on; name one, such as -i eth0")
	}
	for i, name := range s.Interfaces {
		if slices.Contains(s.Interfaces[:i], name) {
			return errors.Join(fmt.Errorf("interface %s is named twice", name), s.close())
		}
		p, err := listen(name)
		if err != nil {
			return errors.Join(err, s.close())
		}
		s.ports, s.own = append(s.ports, p), append(s.own, p.mac)
	}
	s.suspects = make(chan suspicion, 1)
	if s.Authority != nil {
		if err := s.Authority.open(s.ports, s.now); err != nil {
			return errors.Join(err, s.close())
		}
	}
	return nil
}

// Run serves until ctx ends. It listens first, if Listen was not called.
func (s *Server) Run(ctx context.Context) error {
	if s.ports == nil {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for _, p := range s.ports {
		wg.Go(func() { s.serve(ctx, p) })
	}
	if s.Authority != nil {
		keeper, stop := context.WithCancel(context.WithoutCancel(ctx))
		kept := make(chan struct{})
		go func() { defer close(kept); s.Authority.keep(keeper, s.Log) }()
		defer func() { stop(); <-kept }() // after the last lease was given
	}
	if s.ProbeWait >= 0 {
		wg.Go(func() { s.watch(ctx) })
	}
	wg.Wait()
	return nil
}

// warn puts a sentence that is about no board on the timeline.
func (s *Server) warn(text string) {
	s.Log.Warn(text)
	s.Record(node.Event{Time: s.now(), Kind: node.Warning, Text: text})
}

func (s *Server) close() error {
	var errs []error
	for _, p := range s.ports {
		errs = append(errs, p.close())
	}
	s.ports = nil
	return errors.Join(errs...)
}

func (s *Server) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// serve answers on one interface until ctx ends, and opens the port anew when the interface comes back.
func (s *Server) serve(ctx context.Context, p *port) {
	for ctx.Err() == nil {
		stop := context.AfterFunc(ctx, func() { _ = p.close() })
		err := s.read(p)
		if !stop() {
			return
		}
		s.warn(fmt.Sprintf("No board is answered on %s until it is back: %v.", p.name, err))
		_ = p.close() // nothing is lost: errors of a port that cannot be read any more tell nothing
		if p = s.reopen(ctx, p.name); p != nil {
			s.warn(fmt.Sprintf("Boards are answered on %s again.", p.name))
		}
	}
}

func (s *Server) read(p *port) error {
	b := make([]byte, 2048) // more than any DHCP client sends; the rest of a longer packet is lost, and Parse says so
	for {
		n, err := p.receive(b)
		if err != nil {
			return err
		}
		s.handle(p, b[:n])
	}
}

// reopen waits until the port can be had again; it returns nil when ctx ends first.
func (s *Server) reopen(ctx context.Context, name string) *port {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(look):
		}
		if p, err := listen(name); err == nil {
			return p
		}
	}
}

// handle decides about one packet. b is valid only during the call.
func (s *Server) handle(w wire, b []byte) {
	if s.Authority == nil {
		if err := Foreign(b); err != nil {
			s.ignore(w, node.MAC{}, err)
			return
		}
	}
	q, err := Parse(b)
	if err != nil {
		s.ignore(w, q.MAC, err)
		return
	}
	if slices.Contains(s.own, q.MAC) {
		return
	}
	self, err := w.address()
	if err != nil {
		s.ignore(w, q.MAC, err)
		return
	}
	if s.Authority != nil && s.Authority.rules(self) {
		err = s.rule(w, q, self)
	} else {
		err = s.proxy(w, q, self.Addr())
	}
	if err != nil {
		s.ignore(w, q.MAC, err)
	}
}

// ignore logs why a packet stays unanswered; at debug level, since most packets on a segment are not for us.
func (s *Server) ignore(w wire, mac node.MAC, why error) {
	if s.Log.Enabled(context.Background(), slog.LevelDebug) {
		s.Log.Debug("no answer", "interface", w.ifname(), "mac", mac, "why", why)
	}
}

func (s *Server) proxy(w wire, q Query, self netip.Addr) error {
	if q.Probe {
		return w.send(probed(q, self), self, netip.AddrPortFrom(limitedBroadcast, clientPort))
	}
	if err := q.IsNetboot(); err != nil {
		return err
	}
	if _, err := q.proxied(self); err != nil {
		return err
	}
	plan := s.ask(q)
	a, err := Reply(q, plan, self)
	if err != nil {
		return err
	}
	to := netip.AddrPortFrom(limitedBroadcast, clientPort)
	if q.Relay.IsValid() {
		to = netip.AddrPortFrom(q.Relay, serverPort)
	}
	s.later(w, q, a, self, func() error {
		if err := w.send(a.Packet, self, to); err != nil {
			return err
		}
		s.offered(w, q, plan)
		return nil
	})
	return nil
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (s *Server) ask(q Query) boot.Plan {
	return s.Ask(boot.Request{Step: boot.Discover, MAC: q.MAC, Serial: q.Serial, Model: q.Model, Now: s.now()})
}

// offered puts an answer on the timeline, and has the segment looked at when a board comes back for another one.
func (s *Server) offered(w wire, q Query, plan boot.Plan) {
	if q.Type != dhcpv4.MessageTypeDiscover {
		return
	}
	before := s.state(q.MAC)
	s.Record(node.Event{
		Time: s.now(), Kind: node.Offered, Node: q.MAC, Boot: plan.Boot, Serial: q.Serial, Model: q.Model,
		File: q.asker(before),
	})
	const unanswered = 2
	if now := s.state(q.MAC); now.Offers >= unanswered && now.Stage <= node.StageROM {
		s.suspect(w.ifname(), q.MAC)
	}
}

func (s *Server) state(mac node.MAC) node.State {
	if s.Nodes == nil {
		return node.State{}
	}
	st, _ := s.Nodes.Get(mac)
	return st
}

// asker is who asked, "rom" or "bootcode", or empty when nobody can tell: the 3B+ ROM and bootcode.bin send the same
// packet, but bootcode.bin sends it right after it was loaded (FW#1078).
func (q *Query) asker(before node.State) string {
	switch {
	case q.Stage == "rom":
		return "rom"
	case q.Model == node.Pi3 && before.Stage == node.StageBootcode:
		return "bootcode"
	case q.Model == node.Pi3 && before.Stage == node.StageROM:
		return "rom"
	}
	return ""
}

// maxPending bounds the answers that wait for a 3B. More are dropped: the board asks again after five seconds.
const maxPending = 256

// later sends an answer and the frames that wake a 3B, each when its time has come.
func (s *Server) later(w wire, q Query, a Answer, self netip.Addr, send func() error) {
	try := func(send func() error) {
		if err := send(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.Log.Warn("an answer was not sent", "interface", w.ifname(), "mac", q.MAC, "err", err)
		}
	}
	if a.Delay == 0 {
		try(send)
		return
	}
	if s.pending.Add(int32(1+len(a.WakeUps))) > maxPending {
		s.pending.Add(-int32(1 + len(a.WakeUps)))
		s.Log.Warn("an answer was dropped: too many boards wait for theirs", "interface", w.ifname(), "mac", q.MAC)
		return
	}
	at := func(d time.Duration, send func() error) {
		time.AfterFunc(d, func() {
			defer s.pending.Add(-1)
			try(send)
		})
	}
	at(a.Delay, send)
	for _, d := range a.WakeUps {
		at(d, func() error {
			return w.send(wakeUp(q.MAC), self, netip.AddrPortFrom(limitedBroadcast, discardPort))
		})
	}
}

package dhcp

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"bramble/node"
)

// suspicion is a board that comes back for another OFFER.
type suspicion struct {
	ifname string
	mac    node.MAC
}

// suspect has a segment looked at; it never blocks.
func (s *Server) suspect(ifname string, mac node.MAC) {
	select {
	case s.suspects <- suspicion{ifname, mac}:
	default: // the watch is busy, and the board will ask again
	}
}

// watch looks at every segment at the start, again when boards get no further, and again now and then while
// something is wrong, so that the timeline also says when it was put right.
func (s *Server) watch(ctx context.Context) {
	w := watch{said: map[string]string{}}
	calm := s.ProbeAgain
	if calm == 0 {
		calm = time.Minute
	}
	troubled, looked := map[string]bool{}, map[string]time.Time{}
	look := func(name string, mac node.MAC) {
		troubled[name] = s.inspect(ctx, &w, name, mac)
		looked[name] = time.Now()
	}
	for _, name := range s.Interfaces {
		look(name, node.MAC{})
	}
	tick := time.NewTicker(calm)
	defer tick.Stop()
	for {
		var q suspicion
		select {
		case <-ctx.Done():
			return
		case q = <-s.suspects:
		case <-tick.C:
		}
		for _, name := range s.Interfaces {
			asked := name == q.ifname && time.Since(looked[name]) >= calm
			if asked || q.ifname == "" && troubled[name] {
				look(name, q.mac)
			}
		}
	}
}

// watch remembers what the timeline was told last about each interface.
type watch struct {
	said map[string]string
}

func (w *watch) news(ifname, text string) bool {
	if w.said[ifname] == text {
		return false
	}
	w.said[ifname] = text
	return true
}

// inspect probes a segment, puts what is new on the timeline, and reports whether anything is wrong. mac is the
// board that gave rise to it, if any.
func (s *Server) inspect(ctx context.Context, w *watch, name string, mac node.MAC) bool {
	wait := s.ProbeWait
	if wait == 0 {
		wait = probeWait
	}
	var tree []Finding
	var wg sync.WaitGroup
	wg.Go(func() { tree = spanningTree(ctx, name, wait) })
	offers, err := Probe(ctx, name, wait)
	wg.Wait()
	if ctx.Err() != nil {
		return false
	}
	self := addressOf(name)
	seg := Segment{Interface: name, Self: self, Authoritative: s.Authority != nil && s.Authority.rules(self)}
	found := append(seg.Findings(offers), tree...)
	if err != nil {
		found = []Finding{wrong("It is not known who serves DHCP on %s: %v.", name, err)}
	}
	var texts []string
	bad := false
	for _, f := range found {
		texts = append(texts, f.Text)
		bad = bad || f.Wrong
	}
	if news := w.news(name, strings.Join(texts, "\n")); !mac.IsZero() && !bad {
		found = []Finding{wrong("%s asks again although it was answered, and nothing is wrong with DHCP on %s. "+
			"Look at its cable and switch port, take other boot media out of the board, and switch its power off and on.", mac, name)}
	} else if !news {
		return bad
	}
	now := s.now() // one time for one probe: it replaces what the one before had found
	for _, f := range found {
		s.Log.Info(f.Text, "interface", name)
		s.Record(node.Event{Time: now, Kind: node.Finding, Step: name, Text: f.Text})
	}
	return bad
}

// addressOf is an interface's first IPv4 address; without one it is invalid, and Findings says so.
func addressOf(name string) netip.Prefix {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return netip.Prefix{}
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return netip.Prefix{}
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			return p
		}
	}
	return netip.Prefix{}
}

package dhcp

import (
	"context"
	"fmt"
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

// calm is how long a segment is left alone after a look.
const calm = time.Minute

// watch looks at every segment at the start, and again when boards get no further.
func (s *Server) watch(ctx context.Context) {
	w := watch{said: map[string]string{}}
	var wg sync.WaitGroup
	for _, p := range s.ports {
		wg.Go(func() { s.inspect(ctx, &w, p, node.MAC{}) })
	}
	wg.Wait()
	looked := map[string]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-s.suspects:
			if now := s.now(); now.Sub(looked[q.ifname]) < calm {
				continue
			}
			for _, p := range s.ports {
				if p.name == q.ifname {
					s.inspect(ctx, &w, p, q.mac)
				}
			}
			looked[q.ifname] = s.now()
		}
	}
}

// watch remembers what the timeline was told last about each interface.
type watch struct {
	mu   sync.Mutex
	said map[string]string
}

func (w *watch) news(ifname, text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.said[ifname] == text {
		return false
	}
	w.said[ifname] = text
	return true
}

// inspect probes a segment and puts what is new on the timeline. mac is the board that gave rise to it, if any.
func (s *Server) inspect(ctx context.Context, w *watch, p *port, mac node.MAC) {
	wait := s.ProbeWait
	if wait == 0 {
		wait = probeWait
	}
	var tree []Finding
	var wg sync.WaitGroup
	wg.Go(func() { tree = spanningTree(ctx, p.name, wait) })
	offers, err := Probe(ctx, p.name, wait)
	wg.Wait()
	if err != nil {
		if ctx.Err() == nil {
			s.Log.Warn("the segment cannot be asked who serves DHCP there", "interface", p.name, "err", err)
		}
		return
	}
	self, _ := p.address() // without one, Findings says so
	seg := Segment{Interface: p.name, Self: self, Authoritative: s.Authority != nil && s.Authority.rules(self)}
	found := append(seg.Findings(offers), tree...)
	var texts []string
	allWell := true
	for _, f := range found {
		texts = append(texts, f.Text)
		allWell = allWell && !f.Wrong
	}
	if !mac.IsZero() && allWell {
		found = append(found, Finding{Wrong: true, Text: fmt.Sprintf("%s asks again although it was answered, and nothing is wrong with DHCP on %s. "+
			"Look at its cable and switch port, take other boot media out of the board, and switch its power off and on.", mac, p.name)})
	} else if !w.news(p.name, strings.Join(texts, "\n")) {
		return
	}
	for _, f := range found {
		s.Log.Info(f.Text, "interface", p.name)
		s.Record(node.Event{Time: s.now(), Kind: node.Finding, Text: f.Text})
	}
}

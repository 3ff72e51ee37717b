package pisim

import (
	"slices"
	"sync"
)

// Segment is an Ethernet switch in this process. A frame is delivered on the goroutine that sends it, so receivers
// copy what they keep and return at once. The zero value is ready for use.
type Segment struct {
	mu     sync.RWMutex
	ports  map[MAC]*Port
	trunks []*Port
}

// Port is where a board, a host or an uplink is plugged into a Segment.
type Port struct {
	segment *Segment
	mac     MAC
	trunk   bool
	out     Impair // frames from whoever is plugged in here
	in      Impair // frames to whoever is plugged in here
	receive func(frame []byte)
}

// plug connects a station with an address of its own. It replaces a station of the same address.
func (s *Segment) plug(mac MAC, out, in Impair, receive func([]byte)) *Port {
	p := &Port{segment: s, mac: mac, out: out, in: in, receive: receive}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ports == nil {
		s.ports = map[MAC]*Port{}
	}
	s.ports[mac] = p
	return p
}

// plugTrunk connects something behind which there are other stations: it gets what is for nobody here.
func (s *Segment) plugTrunk(receive func([]byte)) *Port {
	p := &Port{segment: s, trunk: true, receive: receive}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trunks = append(s.trunks, p)
	return p
}

// Unplug takes the port out of the segment.
func (p *Port) Unplug() {
	s := p.segment
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.trunk {
		s.trunks = slices.DeleteFunc(slices.Clone(s.trunks), func(q *Port) bool { return q == p })
	} else if s.ports[p.mac] == p {
		delete(s.ports, p.mac)
	}
}

// Send puts a frame on the segment. The frame belongs to the caller again when Send returns.
func (p *Port) Send(frame []byte) { p.out.pass(frame, p.forward) }

func (p *Port) forward(frame []byte) {
	if len(frame) < etherLen {
		return
	}
	for _, q := range p.segment.receivers(p, MAC(frame[:6])) {
		q.in.pass(frame, q.receive)
	}
}

// receivers are the ports that a frame from p to dst goes to.
func (s *Segment) receivers(p *Port, dst MAC) []*Port {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if dst[0]&1 == 0 {
		if q := s.ports[dst]; q != nil {
			return []*Port{q}
		}
		if p.trunk {
			return nil
		}
		return s.trunks
	}
	all := make([]*Port, 0, len(s.ports)+len(s.trunks))
	for _, q := range s.ports {
		all = append(all, q)
	}
	all = append(all, s.trunks...)
	return slices.DeleteFunc(all, func(q *Port) bool { return q == p })
}

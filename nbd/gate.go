package nbd

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// gate counts connections, so that no stranger can fill the server.
type gate struct {
	max, perPeer int

	mu         sync.Mutex
	conns      int
	handshakes int
	peers      map[netip.Addr]int
	refused    int // since the last time somebody was told
	told       time.Time
}

// ticket is one connection's place.
type ticket struct {
	gate    *gate
	peer    netip.Addr
	settled bool
}

// enter returns a place for a connection from addr, or nil. In that case
// refused is, once in ten seconds, how many have been turned away since it was
// last positive: so a flood does not flood the log.
func (g *gate) enter(addr net.Addr, now time.Time) (t *ticket, refused int) {
	var peer netip.Addr // stays the zero value for a socket without IP addresses
	if tcp, ok := addr.(*net.TCPAddr); ok {
		peer = tcp.AddrPort().Addr().Unmap()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conns >= g.max || g.handshakes >= (g.max+1)/2 || peer.IsValid() && g.peers[peer] >= g.perPeer {
		g.refused++
		if now.Sub(g.told) >= 10*time.Second {
			refused, g.refused, g.told = g.refused, 0, now
		}
		return nil, refused
	}
	g.conns++
	g.handshakes++
	g.peers[peer]++
	return &ticket{gate: g, peer: peer}, 0
}

// settle says that the handshake is over.
func (t *ticket) settle() {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	t.settled = true
	t.gate.handshakes--
}

// leave gives the place back.
func (t *ticket) leave() {
	g := t.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns--
	if !t.settled {
		g.handshakes--
	}
	if g.peers[t.peer]--; g.peers[t.peer] == 0 {
		delete(g.peers, t.peer)
	}
}

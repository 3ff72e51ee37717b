package dhcp

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bramble/lab"
)

// BenchmarkPeers prints how many boards a second this server and dnsmasq's proxyDHCP answer, taken in turns, with the
// same client beside them. Run it with LAB=must -run - -bench Peers -benchtime 1x.
func BenchmarkPeers(b *testing.B) {
	lab.Need(b, "ip", "dnsmasq")
	ours := lab.NewSegment(b)
	startServer(b, ours.Host("bramble", "10.77.0.2/24").NS, serverConfig{Interfaces: []string{"eth0"}, ProbeWait: -1, Quiet: true})
	theirs := lab.NewSegment(b)
	startDnsmasq(b, theirs.Host("dnsmasq", "10.77.0.2/24"), "--interface=eth0", "--dhcp-range=10.77.0.0,proxy", "--pxe-service=0,Raspberry Pi Boot")
	us, them := newClient(b, ours.Host("boards")), newClient(b, theirs.Host("boards"))

	const rounds = 7
	fmt.Printf("\n| proxyDHCP answers a second, median of %d rounds | bramble | dnsmasq | to dnsmasq |\n|---|--:|--:|--:|\n", rounds)
	for b.Loop() {
		for _, window := range []int{1, 32} {
			var mine, peers []float64
			for range rounds {
				mine = append(mine, us.rate(window, time.Second))
				peers = append(peers, them.rate(window, time.Second))
			}
			m, p := median(mine), median(peers)
			fmt.Printf("| %d boards at a time | %.0f | %.0f | %.2fx |\n", window, m, p, m/p)
		}
	}
}

func median(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }

// rate keeps so many boards waiting for an answer, and counts the answers.
func (c *client) rate(window int, length time.Duration) float64 {
	packet := discover3BPlus()
	var board uint32
	send := func() {
		const boards = 200 // a tower of towers, each asking again and again
		board = (board + 1) % boards
		binary.BigEndian.PutUint32(packet[30:], 0xeb000000|board)
		c.broadcast(packet)
	}
	answers, start := 0, time.Now()
	for range window {
		send()
	}
	for time.Since(start) < length {
		got := c.until(100*time.Millisecond, func(heard) bool { return true })
		answers += len(got)
		send() // also for one that was lost
	}
	took := time.Since(start)
	c.clear()
	return float64(answers) / took.Seconds()
}

// BenchmarkHandle is the server's own work for one board, without sockets.
func BenchmarkHandle(b *testing.B) {
	s, w := newServer(io.Discard), &fakeWire{net: netip.MustParsePrefix("10.0.0.2/24")}
	packet := discover3BPlus()
	b.ReportAllocs()
	for b.Loop() {
		s.handle(w, packet)
		w.sent = w.sent[:0]
	}
}

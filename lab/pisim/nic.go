package pisim

import (
	"bytes"
	"context"
	"net/netip"
	"time"
)

// nic is a board's network interface and the little that the firmware has of an IP stack. One goroutine uses it;
// the segment fills its queue.
type nic struct {
	port     *Port
	mac      MAC
	queue    chan []byte
	timer    *time.Timer
	addr     netip.Addr // own; invalid before an OFFER is taken
	deaf     bool       // does not answer ARP
	everyone bool       // frames of all kinds matter, even those for nobody
}

const queueLen = 256 // frames; what arrives then is lost

func newNIC(s *Segment, mac MAC, out, in Impair, everyone bool) *nic {
	n := &nic{mac: mac, queue: make(chan []byte, queueLen), timer: time.NewTimer(0), everyone: everyone}
	n.port = s.plug(mac, out, in, func(b []byte) {
		if !n.everyone && boring(b) {
			return
		}
		select {
		case n.queue <- bytes.Clone(b):
		default:
		}
	})
	return n
}

// boring tells a broadcast to DHCP servers from all else: hundreds of boards send them to each other.
func boring(b []byte) bool {
	return len(b) > 37 && b[0]&1 != 0 && b[12] == etherIPv4>>8 && b[13] == etherIPv4&255 && b[36] == 0 && b[37] == serverPort
}

// raw waits for any frame; nil means that until passed or ctx ended.
func (n *nic) raw(ctx context.Context, until time.Time) []byte {
	left := time.Until(until)
	if left <= 0 {
		return nil
	}
	select {
	case b := <-n.queue:
		return b
	default:
	}
	n.timer.Reset(left)
	select {
	case b := <-n.queue:
		return b
	case <-n.timer.C:
	case <-ctx.Done():
	}
	return nil
}

// next waits for an ARP message or a datagram to this board, and answers ARP meanwhile.
func (n *nic) next(ctx context.Context, until time.Time) (frame, bool) {
	for {
		b := n.raw(ctx, until)
		if b == nil {
			return frame{}, false
		}
		if f, ok := parseFrame(b); ok && (f.dst == n.mac || f.dst == broadcast) {
			n.answerARP(f)
			return f, true
		}
	}
}

func (n *nic) answerARP(f frame) {
	if f.kind != etherARP || f.arp.op != arpRequest || n.deaf || !n.addr.IsValid() || f.arp.targetIP != n.addr {
		return
	}
	n.port.Send(arpFrame(f.arp.sender, arp{
		op: arpReply, sender: n.mac, senderIP: n.addr, target: f.arp.sender, targetIP: f.arp.senderIP,
	}))
}

// resolve asks for the Ethernet address of ip, once a second.
func (n *nic) resolve(ctx context.Context, ip netip.Addr, tries int) (MAC, bool) {
	for range tries {
		n.port.Send(arpFrame(broadcast, arp{op: arpRequest, sender: n.mac, senderIP: n.addr, targetIP: ip}))
		for until := time.Now().Add(second); ; {
			f, ok := n.next(ctx, until)
			if !ok {
				break
			}
			if f.kind == etherARP && f.arp.op == arpReply && f.arp.senderIP == ip {
				return f.arp.sender, true
			}
		}
	}
	return MAC{}, false
}

// broadcastDHCP sends to all DHCP servers, from no address.
func (n *nic) broadcastDHCP(payload []byte) {
	n.port.Send(udpFrame(broadcast, n.mac,
		netip.AddrPortFrom(netip.IPv4Unspecified(), clientPort),
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), serverPort), payload))
}

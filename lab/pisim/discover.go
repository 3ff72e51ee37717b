package pisim

import (
	"fmt"
	"time"
)

// discover gathers an address and a TFTP server, and leaves them in r.net.
func (r *run) discover(k DHCP) error {
	r.net = network{}
	xid := r.xid(k.Form)
	for series := range max(k.Series, 1) {
		if series > 0 {
			r.say("a pause of %s, then it asks again", k.Pause)
			r.idle(time.Now().Add(k.Pause))
		}
		for try := range k.Discovers {
			sent := time.Now()
			r.say("DISCOVER %d of %d, xid %08x", try+1, k.Discovers, xid)
			r.nic.broadcastDHCP(r.id.discover(k.Form, xid))
			if r.collect(k, xid, sent) {
				return r.take(k, xid)
			}
			if r.ctx.Err() != nil {
				return r.ctx.Err()
			}
		}
	}
	return r.silence(k)
}

// silence is the end of a board that nobody answered well enough.
func (r *run) silence(k DHCP) error {
	after := fmt.Sprintf("after %d DISCOVERs %s apart it stops for good, until the power is cycled", k.Discovers*max(k.Series, 1), k.Interval)
	switch {
	case r.net.addr.IsValid():
		return &halt{outcome: NoServer, reason: fmt.Sprintf(
			"it was offered the address %s, but no OFFER named a TFTP server by option 66 or by option 43 with %q; %s", r.net.addr, k.MenuText, after)}
	case r.net.server.IsValid():
		return &halt{outcome: NoOffer, reason: fmt.Sprintf(
			"it learned of the TFTP server %s, but nobody offered an address: a proxy alone is not enough; %s", r.net.server, after)}
	}
	if len(r.report.Offers) > 0 {
		return &halt{outcome: NoOffer, reason: "the OFFERs it got have neither an address nor a TFTP server for it; " + after}
	}
	return &halt{outcome: NoOffer, reason: "nobody answered; " + after}
}

// collect takes offers until the set is complete (true) or the interval after the DISCOVER has passed (false).
func (r *run) collect(k DHCP, xid uint32, sent time.Time) bool {
	end := sent.Add(k.Interval)
	var waiting []byte // with the 3B's bug: the frame that is looked at when another one arrives
	gathering := false
	for {
		until := end
		if k.NeedsNextFrame && waiting != nil {
			until = earlier(end, time.Now().Add(k.ReceiveTimeout))
		}
		b := r.nic.raw(r.ctx, until)
		switch {
		case r.ctx.Err() != nil:
			return false
		case b == nil && waiting != nil:
			r.say("a frame was dropped: none came after it within %s", k.ReceiveTimeout)
			waiting = nil
			if !time.Now().Before(end) {
				return false
			}
			continue
		case b == nil:
			return gathering
		}
		if k.NeedsNextFrame {
			b, waiting = waiting, b
		}
		if !r.offered(k, xid, b) || gathering {
			continue
		}
		if k.TooFast > 0 && time.Since(sent) < k.TooFast {
			r.say("answered within %s: the ROM locks up until its next DISCOVER", k.TooFast)
			r.net = network{}
			r.idle(end)
			return false
		}
		if k.Gather == 0 {
			return true
		}
		gathering, end = true, earlier(end, time.Now().Add(k.Gather))
	}
}

// offered merges a frame, if it is an OFFER, and reports whether the set is complete.
func (r *run) offered(k DHCP, xid uint32, b []byte) bool {
	o, ok := r.reply(k, xid, b)
	if !ok || o.kind != msgOffer {
		return r.net.complete()
	}
	r.report.Offers = append(r.report.Offers, o)
	r.say("%s", o)
	r.net = r.net.merge(o, k)
	return r.net.complete()
}

// reply reads a frame that may be a DHCP server's answer to this board.
func (r *run) reply(k DHCP, xid uint32, b []byte) (Offer, bool) {
	f, ok := parseFrame(b)
	if !ok || f.dst != r.nic.mac && f.dst != broadcast {
		return Offer{}, false
	}
	r.nic.answerARP(f)
	if f.kind != etherIPv4 || f.to.Port() != clientPort {
		return Offer{}, false
	}
	o, err := parseOffer(f.from.Addr(), f.payload)
	if err != nil || k.ChecksXID && o.xid != xid || k.ChecksMAC && o.For != r.nic.mac {
		return Offer{}, false
	}
	return o, true
}

// take makes the address the board's own, after a REQUEST if it makes one.
func (r *run) take(k DHCP, xid uint32) error {
	if !k.Request {
		r.nic.addr = r.net.addr
		r.say("address %s, TFTP server %s; no REQUEST", r.net.addr, r.net.server)
		return nil
	}
	const tries = 4
	for range tries {
		r.nic.broadcastDHCP(r.id.request(k.Form, xid, r.net.addr, r.net.lessor))
		for until := time.Now().Add(k.Interval); ; {
			b := r.nic.raw(r.ctx, until)
			if b == nil {
				break
			}
			if o, ok := r.reply(k, xid, b); ok && o.kind == msgAck {
				r.nic.addr = r.net.addr
				r.say("ACK from %s: address %s, TFTP server %s", o.From, r.net.addr, r.net.server)
				return nil
			}
		}
		if r.ctx.Err() != nil {
			return r.ctx.Err()
		}
	}
	return &halt{outcome: NoLease, reason: fmt.Sprintf("%s offered %s but never acknowledged the REQUEST", r.net.lessor, r.net.addr)}
}

// idle does nothing until then, and forgets what arrives.
func (r *run) idle(until time.Time) {
	for r.nic.raw(r.ctx, until) != nil && time.Now().Before(until) {
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

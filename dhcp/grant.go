package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bramble/boot"
	"bramble/node"
)

// rule answers a client of the authoritative mode.
func (s *Server) rule(w wire, q Query, net netip.Prefix) error {
	if q.Relay.IsValid() {
		return fmt.Errorf("the packet comes through the relay %s, but the range is for the interface's own network", q.Relay)
	}
	switch q.Type {
	case dhcpv4.MessageTypeDiscover:
		return s.offer(w, q, net)
	case dhcpv4.MessageTypeRequest:
		return s.confirm(w, q, net)
	case dhcpv4.MessageTypeInform:
		if !q.Client.IsValid() {
			return errors.New("the INFORM does not say which address it comes from")
		}
		return deliver(w, q, s.Authority.inform(q, net), net.Addr(), q.Client)
	case dhcpv4.MessageTypeRelease:
		if !s.Authority.release(q.MAC, q.Client, s.now()) {
			return fmt.Errorf("the client releases %s, which it does not have", q.Client)
		}
		return nil
	case dhcpv4.MessageTypeDecline:
		if !s.Authority.decline(q.MAC, q.Requested, s.now()) {
			return fmt.Errorf("the client declines %s, which it does not have", q.Requested)
		}
		s.warn(fmt.Sprintf("%s found %s in use by another machine and declined it; look for a machine with a fixed address in the range.", q.MAC, q.Requested))
		return nil
	}
	return fmt.Errorf("a DHCP server has no answer to a %s", q.Type)
}

// offer finds an address, makes sure that nobody uses it, and offers it.
func (s *Server) offer(w wire, q Query, net netip.Prefix) error {
	start := time.Now()
	var plan boot.Plan
	if q.IsNetboot() == nil {
		if plan = s.ask(q); !plan.Serve {
			return errors.New(plan.Reason)
		}
	}
	l, checked, err := s.Authority.reserve(q, net, s.now())
	if err != nil {
		s.exhausted(err)
		return err
	}
	if checked {
		s.send(w, q, l, plan, net, start)
		return nil
	}
	go func() {
		defer s.Authority.done(q.MAC)
		if l, ok := s.unused(w, q, l, net); ok {
			s.send(w, q, l, plan, net, start)
		}
	}()
	return nil
}

// exhausted puts it on the timeline, now and then, that the range is too small.
func (s *Server) exhausted(err error) {
	if errors.Is(err, errExhausted) && s.Authority.cry(s.now()) {
		s.warn(err.Error() + ".")
	}
}

// unused asks for the address on the segment, and for others until one is nobody's.
func (s *Server) unused(w wire, q Query, l lease, net netip.Prefix) (lease, bool) {
	const tries = 8 // within a 3-series board's patience of 25 s
	for range tries {
		owner, taken := s.Authority.used(w.ifname(), l.Addr)
		if !taken || owner == q.MAC {
			return l, true
		}
		s.warn(fmt.Sprintf("%s uses %s without a lease from here; it is kept out of the range for a while. Give that machine an address outside of the range.", owner, l.Addr))
		var err error
		if l, err = s.Authority.another(q, l.Addr, net, s.now()); err != nil {
			s.exhausted(err)
			s.ignore(w, q.MAC, err)
			return lease{}, false
		}
	}
	return lease{}, false
}

func (s *Server) send(w wire, q Query, l lease, plan boot.Plan, net netip.Prefix, start time.Time) {
	answer := q.timed(s.Authority.grant(q, dhcpv4.MessageTypeOffer, l, net, s.now()))
	if spent := time.Since(start); answer.Delay > 0 {
		answer.Delay = max(answer.Delay-spent, time.Millisecond)
		for i := range answer.WakeUps {
			answer.WakeUps[i] = max(answer.WakeUps[i]-spent, time.Millisecond)
		}
	}
	s.later(w, q, answer, net.Addr(), func() error {
		if err := deliver(w, q, answer.Packet, net.Addr(), l.Addr); err != nil {
			return err
		}
		if q.IsNetboot() == nil {
			s.leased(q, l)
			s.offered(w, q, plan)
		}
		return nil
	})
}

func (s *Server) confirm(w wire, q Query, net netip.Prefix) error {
	l, nak := s.Authority.confirm(q, net, s.now())
	switch {
	case nak != "":
		m := message(q, dhcpv4.MessageTypeNak, net.Addr())
		m.UpdateOption(dhcpv4.OptMessage(nak))
		m.Flags |= broadcastFlag
		if err := w.send(m.ToBytes(), net.Addr(), netip.AddrPortFrom(limitedBroadcast, clientPort)); err != nil {
			return err
		}
		return fmt.Errorf("refused the client's address: %s", nak)
	case !l.Addr.IsValid():
		return errors.New("the client takes another server's OFFER, or does not say which address it wants")
	}
	m := s.Authority.grant(q, dhcpv4.MessageTypeAck, l, net, s.now())
	if err := deliver(w, q, m.ToBytes(), net.Addr(), l.Addr); err != nil {
		return err
	}
	s.leased(q, l)
	return nil
}

// leased puts a board's new address on the timeline; for its boot ROM every one, since that opens a boot. Other
// clients of the switch are not bramble's business.
func (s *Server) leased(q Query, l lease) {
	st := s.state(q.MAC)
	if q.IsNetboot() == nil && q.Type == dhcpv4.MessageTypeDiscover || !st.MAC.IsZero() && st.Addr != l.Addr {
		s.Record(node.Event{
			Time: s.now(), Kind: node.Leased, Node: q.MAC, Boot: st.Boot, Serial: q.Serial, Model: q.Model, Addr: l.Addr,
		})
	}
}

// deliver sends an answer that carries an address. To a client without one goes a frame of its own, unless it asks
// for a broadcast: a 3B takes any OFFER that it hears, also another board's (FW#1067), so it must not hear it.
func deliver(w wire, q Query, b []byte, self, to netip.Addr) error {
	switch {
	case q.Client.IsValid():
		return w.send(b, self, netip.AddrPortFrom(q.Client, clientPort))
	case q.Flags&broadcastFlag != 0:
		return w.send(b, self, netip.AddrPortFrom(limitedBroadcast, clientPort))
	}
	return w.sendTo(q.MAC, b, self, to)
}

// grant is an OFFER or ACK with an address; a netboot client also learns where TFTP is.
func (a *Authority) grant(q Query, typ dhcpv4.MessageType, l lease, net netip.Prefix, now time.Time) *dhcpv4.DHCPv4 {
	m := message(q, typ, net.Addr())
	m.YourIPAddr, m.ClientIPAddr = ip(l.Addr), ip(q.Client)
	length := a.LeaseTime
	if typ == dhcpv4.MessageTypeAck {
		length = l.Until.Sub(now)
	}
	seconds := func(code dhcpv4.OptionCode, d time.Duration) {
		m.UpdateOption(dhcpv4.OptGeneric(code, binary.BigEndian.AppendUint32(nil, uint32(d.Round(time.Second)/time.Second))))
	}
	seconds(dhcpv4.OptionIPAddressLeaseTime, length)
	seconds(dhcpv4.OptionRenewTimeValue, length/2)
	seconds(dhcpv4.OptionRebindingTimeValue, length*7/8)
	a.network(m, net)
	if q.IsNetboot() == nil {
		pxe(m, q, net.Addr())
	}
	return m
}

// inform answers a client that has an address from elsewhere (RFC 2131 section 4.3.5).
func (a *Authority) inform(q Query, net netip.Prefix) []byte {
	m := message(q, dhcpv4.MessageTypeAck, net.Addr())
	m.ClientIPAddr = ip(q.Client)
	a.network(m, net)
	return m.ToBytes()
}

func (a *Authority) network(m *dhcpv4.DHCPv4, net netip.Prefix) {
	mask := ^uint32(0) << (32 - net.Bits())
	m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionSubnetMask, binary.BigEndian.AppendUint32(nil, mask)))
	if a.Router.Is4() {
		m.UpdateOption(dhcpv4.OptRouter(ip(a.Router)))
	}
	var dns []byte
	for _, d := range a.DNS {
		dns = append(dns, ip(d)...)
	}
	if len(dns) > 0 {
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionDomainNameServer, dns))
	}
}

package dhcp

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
)

// Finding is one thing that a probe says about a segment.
type Finding struct {
	Wrong bool   // boards will fail, or may
	Text  string // a sentence; if something is wrong, one with the remedy follows
}

// Segment is what is known of the place where a probe was made.
type Segment struct {
	Interface     string
	Self          netip.Prefix // invalid: the interface has no address
	Authoritative bool         // this appliance gives out the addresses itself
}

// Findings says what the OFFERs that a probe heard mean for boards on the segment. There is always at least one
// finding. (pi-netboot.md section 5, cases 5, 6 and 16.)
func (s Segment) Findings(offers []Heard) []Finding {
	var routers, found = []Heard{}, []Finding{}
	for _, h := range offers {
		if h.Address.IsValid() {
			routers = append(routers, h)
		}
		found = append(found, s.foreign(h)...)
	}
	found = append(s.addresses(routers), found...)
	if s.Self.IsValid() {
		return found
	}
	return append(found, wrong("%s has no IPv4 address, so nobody is answered there. Give it one, best a fixed one.", s.Interface))
}

func wrong(format string, args ...any) Finding { return Finding{true, fmt.Sprintf(format, args...)} }

// addresses looks at who gives out addresses: there has to be one server, and not two.
func (s Segment) addresses(routers []Heard) []Finding {
	switch {
	case s.Authoritative && len(routers) > 0:
		return []Finding{wrong("%s gives out addresses on %s already, and so does bramble: machines will get addresses of both. "+
			"Start bramble without --dhcp=authoritative, or switch off DHCP on %s.", list(routers), s.Interface, list(routers))}
	case s.Authoritative:
		return []Finding{{Text: fmt.Sprintf("Nobody else gives out addresses on %s: bramble does.", s.Interface)}}
	case len(routers) == 0:
		return []Finding{wrong("Nobody gives out addresses on %s, and without an address no Raspberry Pi boots. "+
			"Connect the router (or whatever is the DHCP server) to this switch, or let bramble give out addresses: --dhcp=authoritative --range FIRST-LAST.", s.Interface)}
	case len(routers) > 1:
		return []Finding{wrong("%d DHCP servers give out addresses on %s: %s. Boards take the address of one or the other, and two of them may get the same. "+
			"Switch off all but one.", len(routers), s.Interface, list(routers))}
	}
	r := routers[0]
	if s.Self.IsValid() && !s.Self.Contains(r.Address) {
		return []Finding{wrong("%s gives out addresses like %s, but %s has %s: a board is not in the same network as bramble, and a 3B cannot reach it at all. "+
			"Give %s an address in the router's network.", r.Server, r.Address, s.Interface, s.Self, s.Interface)}
	}
	return []Finding{{Text: fmt.Sprintf("%s gives out addresses on %s.", r.Server, s.Interface)}}
}

// foreign looks at what one server sends that could lead a board away from here.
func (s Segment) foreign(h Heard) []Finding {
	self := s.Self.Addr()
	text := bytes.Contains(h.Menu, []byte(strings.TrimSpace(piText)))
	switch tftp := strings.TrimRight(h.TFTP, "\x00"); {
	case text && !h.Address.IsValid():
		return []Finding{wrong("%s answers Raspberry Pis too, with a boot menu of its own (option 43): boards boot from there or from here, as chance has it. "+
			"Stop that server (piserver, LTSP, dnsmasq with pxe-service, another bramble), or keep it off this network.", h.Server)}
	case tftp != "" && tftp != self.String():
		return []Finding{wrong("%s sends boards to another TFTP server: %q in option 66. Of two servers that answer, a Raspberry Pi believes the last. "+
			"Remove option 66 there (routers call it network boot, PXE, TFTP server or next server), or set it to %s.", h.Server, tftp, self)}
	case text:
		return []Finding{wrong("%s sends Raspberry Pis a boot menu of its own (option 43) along with their address: boards boot from there or from here, as chance has it. "+
			"Remove option 43 from its settings.", h.Server)}
	case h.PXE && h.Next.IsValid() && h.Next != self:
		return []Finding{{Text: fmt.Sprintf("%s is a boot server for PCs. A Raspberry Pi looks like a PC to it, but does not take its answer; "+
			"if a Pi 4 or 5 goes there nevertheless, keep that server from answering clients whose option 97 begins with RPi.", h.Server)}}
	case h.PXE:
		return []Finding{{Text: fmt.Sprintf("%s is a boot server for PCs; Raspberry Pis do not take its answer.", h.Server)}}
	case h.Next.IsValid() && h.Next != h.Server && h.Next != self:
		return []Finding{wrong("%s names %s as next server (siaddr), where a Pi 4 or 5 may look for its files. "+
			"Remove the next server from its settings, or set it to %s.", h.Server, h.Next, self)}
	}
	return nil
}

func list(servers []Heard) string {
	var names []string
	for _, h := range servers {
		names = append(names, h.Server.String())
	}
	return strings.Join(names, " and ")
}

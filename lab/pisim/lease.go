package pisim

import "net/netip"

// menuText is what option 43 must contain. The documentation says that the 3B ROM wants three spaces behind it;
// measurements say a plain search without them (§1.4).
const (
	menuText       = "Raspberry Pi Boot"
	menuTextSpaces = menuText + "   "
)

// network is what a board has gathered from offers: addresses it will use, each from whoever gave it.
type network struct {
	addr   netip.Addr // own address
	lessor netip.Addr // server identifier of who gave the address
	mask   netip.Addr
	router netip.Addr
	server netip.Addr // TFTP server
}

func (n network) complete() bool { return n.addr.IsValid() && n.server.IsValid() }

// merge applies an offer by the rules of §1.4: address and TFTP server may come from different servers; options
// count in the order met, and the last one wins.
func (n network) merge(o Offer, k DHCP) network {
	given := !o.Address.IsUnspecified()
	if given {
		n.addr, n.mask, n.router = o.Address, o.Mask, o.Router
		n.lessor = o.From
		if o.Server.IsValid() {
			n.lessor = o.Server
		}
	}
	if k.Form == FormEEPROM {
		return n.mergeEEPROM(o)
	}
	for _, code := range o.order {
		switch code {
		case optVendor:
			if o.HasMenu(k.MenuText) {
				n.server = o.From
			}
		case optTFTPServer:
			if a, err := netip.ParseAddr(o.TFTP); err == nil && a.Is4() && (given || k.TFTPFromProxy) {
				n.server = a
			}
		}
	}
	return n
}

// mergeEEPROM: option 66, else siaddr, else the DHCP server; the last two only with class PXEClient and a menu item
// (§1.7).
func (n network) mergeEEPROM(o Offer) network {
	if a, err := netip.ParseAddr(o.TFTP); err == nil && a.Is4() {
		n.server = a
		return n
	}
	if o.Class != pxeClassShort || !o.hasMenuItem(menuText) {
		return n
	}
	switch {
	case !o.Next.IsUnspecified():
		n.server = o.Next
	case o.Server.IsValid():
		n.server = o.Server
	default:
		n.server = o.From
	}
	return n
}

// nextHop is whom to ask by ARP for the way to the TFTP server: itself, or the gateway if it is on another network
// and the stage knows gateways.
func (n network) nextHop(gateways bool) netip.Addr {
	if !gateways || !n.router.IsValid() || !n.mask.IsValid() {
		return n.server
	}
	addr, mask, server := n.addr.As4(), n.mask.As4(), n.server.As4()
	for i := range mask {
		if addr[i]&mask[i] != server[i]&mask[i] {
			return n.router
		}
	}
	return n.server
}

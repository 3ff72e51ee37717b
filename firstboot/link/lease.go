package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
)

// Lease is an address that a DHCP server gave, and what belongs to it.
type Lease struct {
	Addr   netip.Prefix
	Router netip.Addr // zero if there is none
	DNS    []netip.Addr
	Domain string // for unqualified names; may be empty
	Server netip.Addr
	Life   time.Duration // how long it lasts from the ACK
	Renew  time.Duration // T1: when to renew, from the ACK
	ACK    []byte        // the packet
}

// Acquire obtains a lease, DISCOVER to ACK, by one round of attempts that ends with ctx or after half a minute. The boot
// ROM's own conversation bound no address: its stages send no REQUEST. With wish set, that address is asked for again.
func Acquire(ctx context.Context, i Interface, hostname string, wish netip.Addr) (Lease, error) {
	return converse(i, func(c *nclient4.Client) (*nclient4.Lease, error) {
		options := modifiers(hostname)
		if wish.IsValid() {
			options = append(options, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(wish.AsSlice())))
		}
		offer, err := c.DiscoverOffer(ctx, options...)
		if err != nil {
			return nil, err
		}
		return c.RequestFromOffer(ctx, offer, modifiers(hostname)...)
	})
}

// Extend renews a lease with the server that gave it.
func Extend(ctx context.Context, i Interface, hostname string, l Lease) (Lease, error) {
	ack, err := dhcpv4.FromBytes(l.ACK)
	if err != nil {
		return Lease{}, fmt.Errorf("the lease of %s cannot be renewed: %w", l.Addr, err)
	}
	return converse(i, func(c *nclient4.Client) (*nclient4.Lease, error) {
		return c.Renew(ctx, &nclient4.Lease{Offer: ack, ACK: ack}, modifiers(hostname)...)
	})
}

func modifiers(hostname string) []dhcpv4.Modifier {
	m := []dhcpv4.Modifier{dhcpv4.WithRequestedOptions(
		dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName,
		dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionRenewTimeValue,
	)}
	if hostname != "" {
		m = append(m, dhcpv4.WithOption(dhcpv4.OptHostName(hostname)))
	}
	return m
}

func converse(i Interface, talk func(*nclient4.Client) (*nclient4.Lease, error)) (Lease, error) {
	c, err := nclient4.New(i.Name, nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(5), nclient4.WithHWAddr(i.MAC[:]))
	if err != nil {
		return Lease{}, fmt.Errorf("no DHCP conversation on %s: %w", i.Name, err)
	}
	got, err := talk(c)
	if closeErr := c.Close(); err == nil {
		err = closeErr
	}
	if errors.Is(err, nclient4.ErrNoResponse) || errors.Is(err, context.DeadlineExceeded) {
		return Lease{}, fmt.Errorf("no DHCP server answers on %s; is the router on, and does the switch forward?", i.Name)
	}
	if err != nil {
		return Lease{}, fmt.Errorf("the DHCP conversation on %s failed: %w", i.Name, err)
	}
	return read(got.ACK)
}

// defaultLife is for servers that name no lease time, which RFC 2131 makes them do.
const defaultLife = time.Hour

// read takes from an ACK what this package uses.
func read(ack *dhcpv4.DHCPv4) (Lease, error) {
	addr, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || addr.IsUnspecified() {
		return Lease{}, errors.New("the DHCP server acknowledged no address")
	}
	l := Lease{Addr: netip.PrefixFrom(addr, prefixLen(ack, addr)), Domain: ack.DomainName(), ACK: ack.ToBytes()}
	for _, ip := range ack.DNS() {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok {
			l.DNS = append(l.DNS, a)
		}
	}
	if routers := ack.Router(); len(routers) > 0 {
		l.Router, _ = netip.AddrFromSlice(routers[0].To4())
	}
	l.Server, _ = netip.AddrFromSlice(ack.ServerIdentifier().To4())
	l.Life = ack.IPAddressLeaseTime(defaultLife)
	l.Renew = ack.IPAddressRenewalTime(l.Life / 2)
	if l.Renew > l.Life {
		l.Renew = l.Life / 2
	}
	return l, nil
}

// prefixLen is the length of the subnet mask; a server that sends none, or nonsense, means the address's old class.
func prefixLen(ack *dhcpv4.DHCPv4, addr netip.Addr) int {
	if ones, bits := ack.SubnetMask().Size(); bits == 32 && ones > 0 {
		return ones
	}
	switch first := addr.As4()[0]; {
	case first < 128:
		return 8
	case first < 192:
		return 16
	}
	return 24
}

// ResolvConf is the text of /etc/resolv.conf that follows from the lease; empty if it names no server.
func (l Lease) ResolvConf() string {
	if len(l.DNS) == 0 {
		return ""
	}
	text := "# From the DHCP lease that stage 1 obtained.\n"
	if isDomain(l.Domain) {
		text += "search " + l.Domain + "\n"
	}
	for _, a := range l.DNS {
		text += "nameserver " + a.String() + "\n"
	}
	return text
}

// isDomain keeps a server's text from becoming another line of the file.
func isDomain(s string) bool {
	for _, r := range s {
		if r != '.' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	return s != ""
}

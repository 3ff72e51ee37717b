package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// BringUp sets an interface up.
func BringUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("no socket to bring %s up: %w", name, err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("%q is no name of an interface: %w", name, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("the flags of %s cannot be read: %w", name, err)
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("%s does not come up: %w", name, err)
	}
	return nil
}

// Configure gives the interface the lease's address and the default route over its router. The address stays valid for
// ever: a node whose root is on the network cannot do without one, so the lease is looked after by whoever renews it.
func Configure(index int, l Lease) error {
	return withRoute(func(c *netlink.Conn) error {
		if err := address(c, unix.RTM_NEWADDR, netlink.Create|netlink.Replace, index, l.Addr); err != nil {
			return fmt.Errorf("the address %s cannot be set: %w", l.Addr, err)
		}
		if !l.Router.IsValid() {
			return nil
		}
		if err := defaultRoute(c, index, l.Router); err != nil {
			return fmt.Errorf("the default route over %s cannot be set: %w", l.Router, err)
		}
		return nil
	})
}

// Remove takes an address away from the interface. One that is not there is no error.
func Remove(index int, addr netip.Prefix) error {
	return withRoute(func(c *netlink.Conn) error {
		if err := address(c, unix.RTM_DELADDR, 0, index, addr); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("the address %s cannot be removed: %w", addr, err)
		}
		return nil
	})
}

func withRoute(f func(*netlink.Conn) error) error {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("the kernel's routing socket does not open: %w", err)
	}
	return errors.Join(f(c), c.Close())
}

func address(c *netlink.Conn, command netlink.HeaderType, flags netlink.HeaderFlags, index int, addr netip.Prefix) error {
	data := []byte{unix.AF_INET, byte(addr.Bits()), 0, unix.RT_SCOPE_UNIVERSE}
	data = binary.NativeEndian.AppendUint32(data, uint32(index))
	return send(c, command, flags, data, func(a *netlink.AttributeEncoder) {
		a.Bytes(unix.IFA_LOCAL, addr.Addr().AsSlice())
		a.Bytes(unix.IFA_ADDRESS, addr.Addr().AsSlice())
		if last := broadcast(addr); last.IsValid() {
			a.Bytes(unix.IFA_BROADCAST, last.AsSlice())
		}
	})
}

// broadcast is the last address of a network; networks of one or two addresses have none (RFC 3021).
func broadcast(p netip.Prefix) netip.Addr {
	if p.Bits() >= 31 {
		return netip.Addr{}
	}
	a := p.Addr().As4()
	host := ^uint32(0) >> p.Bits()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])|host)
	return netip.AddrFrom4(a)
}

func defaultRoute(c *netlink.Conn, index int, router netip.Addr) error {
	data := []byte{unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_DHCP, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST}
	// A router outside of the network (leases of a /32) is reached over the interface all the same.
	data = binary.NativeEndian.AppendUint32(data, unix.RTNH_F_ONLINK)
	return send(c, unix.RTM_NEWROUTE, netlink.Create|netlink.Replace, data, func(a *netlink.AttributeEncoder) {
		a.Bytes(unix.RTA_GATEWAY, router.AsSlice())
		a.Uint32(unix.RTA_OIF, uint32(index))
	})
}

func send(c *netlink.Conn, command netlink.HeaderType, flags netlink.HeaderFlags, data []byte, fill func(*netlink.AttributeEncoder)) error {
	a := netlink.NewAttributeEncoder()
	fill(a)
	attributes, err := a.Encode()
	if err != nil {
		return err
	}
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{Type: command, Flags: netlink.Request | netlink.Acknowledge | flags},
		Data:   append(data, attributes...),
	})
	var op *netlink.OpError
	if errors.As(err, &op) {
		return os.NewSyscallError("netlink", op.Err)
	}
	return err
}

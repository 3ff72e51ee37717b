package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"bramble/node"
)

const (
	serverPort  = 67
	clientPort  = 68
	discardPort = 9 // RFC 863, and where Wake-on-LAN frames go
)

// port is UDP port 67 on one interface.
type port struct {
	name  string
	index int
	mac   node.MAC
	conn  *net.UDPConn
	raw   syscall.RawConn

	mu     sync.Mutex
	frames *packet.Conn // opened by the first sendTo; it receives nothing
	closed bool
}

// listen opens port 67 on one interface. It binds the interface and not its address, which would lose broadcasts;
// and it leaves out SO_REUSEADDR and SO_REUSEPORT, so that the kernel refuses a second DHCP server on the same
// interface instead of handing each packet to one of the two.
func listen(name string) (*port, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("there is no network interface %s; ip link shows what there is: %w", name, err)
	}
	if len(ifi.HardwareAddr) != 6 {
		return nil, fmt.Errorf("%s is no ethernet interface; Raspberry Pis boot over ethernet only", name)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var bound error
		err := c.Control(func(fd uintptr) { bound = unix.BindToDevice(int(fd), name) })
		return errors.Join(err, bound)
	}}
	conn, err := lc.ListenPacket(context.Background(), "udp4", fmt.Sprintf("0.0.0.0:%d", serverPort))
	if err != nil {
		return nil, refused(name, err)
	}
	udp := conn.(*net.UDPConn)
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := udp.SetReadDeadline(time.Now().Add(look)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &port{name: name, index: ifi.Index, mac: node.MAC(ifi.HardwareAddr), conn: udp, raw: raw}, nil
}

func refused(name string, err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%s serves DHCP on this machine already, and of two servers on %s each would get half of the packets; "+
			"stop it, or keep it off %s (dnsmasq: bind-interfaces and except-interface=%s): %w", holder(), name, name, name, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("no permission for DHCP's port 67 on %s; run as root, or with CAP_NET_BIND_SERVICE and CAP_NET_RAW: %w", name, err)
	}
	return fmt.Errorf("cannot listen for DHCP on %s: %w", name, err)
}

// address is the interface's first IPv4 address at this moment.
func (p *port) address() (netip.Prefix, error) {
	ip, err := p.inet4(unix.SIOCGIFADDR)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s has no IPv4 address to answer from; give it one: %w", p.name, err)
	}
	mask, err := p.inet4(unix.SIOCGIFNETMASK)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s has no network mask: %w", p.name, err)
	}
	ones, _ := net.IPMask(mask).Size()
	return netip.PrefixFrom(netip.AddrFrom4([4]byte(ip)), ones), nil
}

func (p *port) inet4(what uint) ([]byte, error) {
	ifr, err := unix.NewIfreq(p.name)
	if err != nil {
		return nil, err
	}
	var ioctl error
	if err := p.raw.Control(func(fd uintptr) { ioctl = unix.IoctlIfreq(int(fd), what, ifr) }); err != nil {
		return nil, err
	}
	if ioctl != nil {
		return nil, ioctl
	}
	return ifr.Inet4Addr()
}

// send sends from one of the interface's addresses.
func (p *port) send(b []byte, from netip.Addr, to netip.AddrPort) error {
	cm := ipv4.ControlMessage{Src: ip(from), IfIndex: p.index}
	if _, _, err := p.conn.WriteMsgUDPAddrPort(b, cm.Marshal(), to); err != nil {
		return fmt.Errorf("cannot send to %s from %s on %s: %w", to, from, p.name, err)
	}
	return nil
}

// sendTo sends to a client that has no address yet, past the neighbour table.
func (p *port) sendTo(mac node.MAC, b []byte, from, to netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	if p.frames == nil {
		c, _, err := tap(p.name, 0, nil)
		if err != nil {
			return err
		}
		p.frames = c
	}
	f := frame{src: p.mac, dst: mac, from: netip.AddrPortFrom(from, serverPort), to: netip.AddrPortFrom(to, clientPort)}
	return f.send(p.frames, b)
}

// look is how often a port checks that its interface is still the one that it was opened on.
const look = 5 * time.Second

// errGone says that the interface was taken away, or taken away and made again (a USB adapter, a driver).
var errGone = errors.New("the interface is gone")

// receive reads one packet. It returns errGone when there will be no more.
func (p *port) receive(b []byte) (int, error) {
	for {
		n, _, err := p.conn.ReadFromUDPAddrPort(b)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, net.ErrClosed):
			return 0, err
		}
		if ifi, err := net.InterfaceByName(p.name); err != nil || ifi.Index != p.index {
			return 0, errGone
		}
		if !isTimeout(err) {
			return 0, fmt.Errorf("cannot read DHCP packets on %s: %w", p.name, err)
		}
		if err := p.conn.SetReadDeadline(time.Now().Add(look)); err != nil {
			return 0, err
		}
	}
}

func (p *port) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	err := p.conn.Close()
	if p.frames != nil {
		err = errors.Join(err, p.frames.Close())
	}
	return err
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

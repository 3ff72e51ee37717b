package tftp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// listener reads requests together with the address that they were sent to (IP_PKTINFO): on a machine with several
// interfaces each client is answered from the one that it asked.
type listener struct {
	conn *net.UDPConn
	v4   bool
	buf  [maxRequest + 1]byte
	oob  [128]byte
}

func newListener(conn *net.UDPConn) (*listener, error) {
	l := &listener{conn: conn}
	at, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return nil, fmt.Errorf("the TFTP port %s is no UDP port", conn.LocalAddr())
	}
	l.v4 = at.IP.To4() != nil
	var err error
	if l.v4 {
		err = ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst, true)
	} else {
		err = ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst, true)
	}
	if err != nil {
		return nil, fmt.Errorf("the TFTP port %s does not tell which address was asked: %w", at, err)
	}
	conn.SetReadBuffer(1 << 20) // many boards at once; what the kernel grants will do
	return l, nil
}

// read returns the next datagram, valid until the next call.
func (l *listener) read() ([]byte, Peer, error) {
	for {
		n, oobn, _, from, err := l.conn.ReadMsgUDPAddrPort(l.buf[:], l.oob[:])
		if err != nil {
			var transient syscall.Errno
			if errors.As(err, &transient) && !errors.Is(err, net.ErrClosed) && transient != syscall.EBADF {
				continue // an ICMP error of an earlier answer
			}
			return nil, Peer{}, err
		}
		peer := Peer{
			Addr:  netip.AddrPortFrom(from.Addr().Unmap(), from.Port()),
			Local: l.asked(l.oob[:oobn]),
		}
		return l.buf[:n], peer, nil
	}
}

// asked is the destination of the datagram if one can answer from it: not after a broadcast.
func (l *listener) asked(oob []byte) netip.Addr {
	var dst net.IP
	if l.v4 {
		var cm ipv4.ControlMessage
		if cm.Parse(oob) == nil {
			dst = cm.Dst
		}
	} else {
		var cm ipv6.ControlMessage
		if cm.Parse(oob) == nil {
			dst = cm.Dst
		}
	}
	addr, ok := netip.AddrFromSlice(dst)
	if !ok {
		return netip.Addr{}
	}
	addr = addr.Unmap()
	if addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || addr.IsUnspecified() {
		return netip.Addr{}
	}
	return addr
}

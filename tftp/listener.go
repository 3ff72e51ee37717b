package tftp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// listener reads requests together with the address that they were sent to (IP_PKTINFO): on a machine with several
// interfaces each client is answered from the one that it asked.
type listener struct {
	conn *net.UDPConn
	buf  [maxRequest + 1]byte
	oob  [128]byte
}

func newListener(conn *net.UDPConn) (*listener, error) {
	l := &listener{conn: conn}
	at, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return nil, fmt.Errorf("the TFTP port %s is no UDP port", conn.LocalAddr())
	}
	var err error
	if at.IP.To4() != nil {
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
		if local, ok := l.asked(l.oob[:oobn]); ok {
			return l.buf[:n], Peer{Addr: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), Local: local}, nil
		}
	}
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// asked is the address of this machine that the datagram was sent to. ok is false for a broadcast or multicast, which
// a TFTP server ignores (RFC 1123 section 4.2.3.4).
func (l *listener) asked(oob []byte) (local netip.Addr, ok bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			// interface index, the local address that belongs to the datagram, its destination
			answer, destination := netip.AddrFrom4([4]byte(m.Data[4:8])), netip.AddrFrom4([4]byte(m.Data[8:12]))
			if answer.IsUnspecified() { // it came before the kernel was asked to take note
				answer = destination
			}
			return destination, answer == destination && !destination.IsMulticast() && destination != broadcast
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			local = netip.AddrFrom16([16]byte(m.Data[:16]))
			if local.IsLinkLocalUnicast() {
				index := binary.NativeEndian.Uint32(m.Data[16:20])
				return local.WithZone(strconv.FormatUint(uint64(index), 10)), true
			}
			return local.Unmap(), !local.IsMulticast()
		}
	}
	return netip.Addr{}, false
}

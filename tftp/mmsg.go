package tftp

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Many datagrams in one system call (recvmmsg and sendmmsg, Linux). net.UDPConn moves one datagram a call and a
// second call to learn that there is no more; with 128 boards that is most of the server's time.

const batchSize = 64

type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

// sockaddr is room for an IPv4 or IPv6 address as the kernel writes it.
type sockaddr struct {
	raw  unix.RawSockaddrInet6
	size uint32
}

func sockaddrOf(a netip.AddrPort) (s sockaddr) {
	port := (*[2]byte)(unsafe.Pointer(&s.raw.Port)) // the same place in both forms
	binary.BigEndian.PutUint16(port[:], a.Port())
	if a.Addr().Is4() {
		s.size = unix.SizeofSockaddrInet4
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw))
		v4.Family, v4.Addr = unix.AF_INET, a.Addr().As4()
		return s
	}
	s.size = unix.SizeofSockaddrInet6
	s.raw.Family, s.raw.Addr, s.raw.Scope_id = unix.AF_INET6, a.Addr().As16(), zoneIndex(a.Addr())
	return s
}

// addrPort is the address and port, with a number for the zone: no look-up for every datagram.
func (s *sockaddr) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&s.raw.Port))[:])
	if s.raw.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw)).Addr), port)
	}
	addr := netip.AddrFrom16(s.raw.Addr)
	if s.raw.Scope_id != 0 {
		addr = addr.WithZone(strconv.Itoa(int(s.raw.Scope_id)))
	}
	return netip.AddrPortFrom(addr, port)
}

// inbox receives ACKs and ERRORs; what is longer is cut.
type inbox struct {
	heads [batchSize]mmsghdr
	iovs  [batchSize]unix.Iovec
	names [batchSize]sockaddr
	bytes [batchSize][128]byte
}

func (in *inbox) prepare() {
	for i := range in.heads {
		in.iovs[i].Base = &in.bytes[i][0]
		in.iovs[i].SetLen(len(in.bytes[i]))
		h := &in.heads[i].header
		h.Name, h.Iov = (*byte)(unsafe.Pointer(&in.names[i].raw)), &in.iovs[i]
		h.SetIovlen(1)
	}
}

// read takes what is there; fd does not block. An error is that nothing is there, or an ICMP error of an earlier
// answer, about which nothing can be done.
func (in *inbox) read(fd int) int {
	for i := range in.heads {
		in.heads[i].header.Namelen = unix.SizeofSockaddrInet6
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&in.heads)), batchSize, 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func (in *inbox) datagram(i int) (from netip.AddrPort, b []byte) {
	return in.names[i].addrPort(), in.bytes[i][:in.heads[i].length]
}

// outbox collects datagrams that leave by the same port and sends them together.
type outbox struct {
	heads [batchSize]mmsghdr
	iovs  [batchSize]unix.Iovec
	fd, n int

	// heard says that what goes out answers an ACK. The client is then where the neighbour table says, and the kernel is
	// told so (MSG_CONFIRM), lest it asks by ARP in the middle of a file: a 3B's ROM does not answer, and anybody's lost
	// answer costs a second.
	heard bool
}

// add queues b, which must stay as it is until flush.
func (out *outbox) add(fd int, to *sockaddr, b []byte) {
	if out.n == batchSize || fd != out.fd {
		out.flush()
	}
	out.fd = fd
	out.iovs[out.n].Base = &b[0]
	out.iovs[out.n].SetLen(len(b))
	h := &out.heads[out.n].header
	h.Name, h.Namelen, h.Iov = (*byte)(unsafe.Pointer(&to.raw)), to.size, &out.iovs[out.n]
	h.SetIovlen(1)
	out.n++
}

// flush sends. What the kernel does not take counts as lost on the way: the timer sends it again.
func (out *outbox) flush() {
	flags := uintptr(0)
	if out.heard {
		flags = unix.MSG_CONFIRM
	}
	for i := 0; i < out.n; {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(out.fd), uintptr(unsafe.Pointer(&out.heads[i])), uintptr(out.n-i), flags, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			i++
		default:
			i += int(n)
		}
	}
	out.n = 0
}

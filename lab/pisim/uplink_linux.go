package pisim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Uplink connects a segment with a network interface.
type Uplink struct {
	socket *os.File
	port   *Port
	ended  chan struct{}
}

// Uplink connects the segment with an interface of the current network namespace; it needs CAP_NET_RAW. The boards
// have addresses of their own, so the interface becomes promiscuous while the uplink is open.
func (s *Segment) Uplink(name string) (*Uplink, error) {
	socket, err := packetSocket(name)
	if err != nil {
		return nil, fmt.Errorf("cannot send and receive frames on interface %s (run as root, and name an interface that is up): %w", name, err)
	}
	u := &Uplink{socket: socket, ended: make(chan struct{})}
	u.port = s.plugTrunk(func(frame []byte) {
		// An interface that is down or full loses frames without telling, like a cable.
		_, _ = socket.Write(frame)
	})
	go u.receive()
	return u, nil
}

func (u *Uplink) receive() {
	defer close(u.ended)
	buf := make([]byte, 65536)
	for {
		n, err := u.socket.Read(buf)
		switch {
		case err == nil:
			u.port.Send(buf[:n])
		case !errors.Is(err, unix.ENETDOWN):
			return
		}
	}
}

// Close takes the uplink out of the segment.
func (u *Uplink) Close() error {
	u.port.Unplug()
	err := u.socket.Close()
	<-u.ended
	return err
}

// packetSocket opens a socket for whole frames, without those that this machine sends.
func packetSocket(name string) (*os.File, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	// Protocol 0 receives nothing before bind has named the interface.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	socket := os.NewFile(uintptr(fd), "packet:"+name)
	const buffer = 16 << 20 // a burst of hundreds of boards
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_PROMISC}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: ifi.Index}),
	)
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	return socket, nil
}

func networkOrder(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}

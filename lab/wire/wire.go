package wire

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"bramble/lab/netns"
)

// End is where a cable is plugged in: an Ethernet interface that nobody else reads, and its namespace.
type End struct {
	NS        *netns.NS
	Interface string
}

// Wire carries Ethernet frames between two interfaces.
type Wire struct {
	plug   *plug
	ends   [2]*os.File
	lanes  [2]*lane
	copies sync.WaitGroup
}

// Join connects a and b by a cable with faults, plugged in now. Both interfaces must exist and be up, and what is behind
// them must send finished frames: see NoOffload.
func Join(a, b End, f Faults) (*Wire, error) {
	w := &Wire{plug: newPlug()}
	for i, end := range []End{a, b} {
		port, err := open(end)
		if err != nil {
			return nil, errors.Join(err, w.Close())
		}
		w.ends[i] = port
	}
	for i := range w.ends {
		from, to := w.ends[i], w.ends[1-i]
		w.lanes[i] = newLane(f, uint64(i), w.plug, func(p packet) {
			// An interface that is down or full loses frames without telling, like a cable.
			_, _ = to.Write(p.data)
		})
		w.copies.Go(func() { carry(from, w.lanes[i]) })
	}
	return w, nil
}

// carry reads frames until the port is closed. Other errors (an interface that goes down) pass.
func carry(from *os.File, to *lane) {
	frame := make([]byte, 65536)
	for {
		n, err := from.Read(frame)
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err == nil:
			to.send(frame[:n], nil)
		case !errors.Is(err, unix.ENETDOWN):
			return
		}
	}
}

// Cut pulls the cable, Plug puts it in again, which starts DropFirst anew.
func (w *Wire) Cut()  { w.plug.cut.Store(true) }
func (w *Wire) Plug() { w.plug.in() }

// Stats counts the frames from a to b and from b to a.
func (w *Wire) Stats() (ab, ba Stats) { return w.lanes[0].counted(), w.lanes[1].counted() }

// Close removes the cable; frames under way are lost.
func (w *Wire) Close() error {
	var errs []error
	for i, port := range w.ends {
		if w.lanes[i] != nil {
			w.lanes[i].close()
		}
		if port != nil {
			errs = append(errs, port.Close())
		}
	}
	w.copies.Wait()
	return errors.Join(errs...)
}

// open makes a packet socket that sees all that arrives at the interface, and nothing that is sent to it.
func open(end End) (*os.File, error) {
	var port *os.File
	err := end.NS.Do(func() error {
		ifi, err := net.InterfaceByName(end.Interface)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		port = os.NewFile(uintptr(fd), "wire:"+end.Interface)
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: big16(unix.ETH_P_ALL), Ifindex: ifi.Index})
	})
	if err != nil {
		if port != nil {
			err = errors.Join(err, port.Close())
		}
		return nil, fmt.Errorf("cannot plug a wire into interface %s: %w", end.Interface, err)
	}
	return port, nil
}

func big16(n uint16) uint16 { return n<<8 | n>>8 }

// NoOffload makes an interface finish each frame before it leaves: with its checksum, and of at most the MTU. Frames
// between virtual interfaces are otherwise left unfinished, which who copies them by hand would forward unfinished.
func NoOffload(end End) error {
	const ethtoolSetTxChecksum = 0x17 // ETHTOOL_STXCSUM; segmentation goes with it
	err := end.NS.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		off := struct{ cmd, data uint32 }{cmd: ethtoolSetTxChecksum}
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&off)}
		copy(request.name[:unix.IFNAMSIZ-1], end.Interface)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot switch off checksum offload of interface %s: %w", end.Interface, err)
	}
	return nil
}

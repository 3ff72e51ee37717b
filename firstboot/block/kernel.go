// Package block attaches a block export of the appliance as a kernel block device, over NBD, and keeps it attached.
//
// The kernel's NBD client reads and writes on a socket that user space has connected, and never connects one itself:
// when the connection is lost, readers wait (NBD_ATTR_DEAD_CONN_TIMEOUT) until somebody hands it a new socket. That is
// what Keep does, in a process that never touches the device (drivers/block/nbd.c).
package block

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"bramble/nbd"
)

// Commands and attributes of the kernel's generic netlink family "nbd" (include/uapi/linux/nbd-netlink.h).
const (
	cmdConnect     = 1
	cmdDisconnect  = 2
	cmdReconfigure = 3

	attrIndex           = 1
	attrSizeBytes       = 2
	attrBlockSizeBytes  = 3
	attrTimeout         = 4
	attrServerFlags     = 5
	attrSockets         = 7
	attrDeadConnTimeout = 8

	sockItem = 1
	sockFD   = 1
)

// device is the number of the device in /dev/nbd0. A node has one root.
const device = 0

// Path is the attached device.
const Path = "/dev/nbd0"

// requestTimeout is how long a request may take before the kernel gives its connection up and asks again on the next
// one. Without it, requests that were under way when a connection died would wait for ever.
const requestTimeout = 30 * time.Second

// ErrNoNBD is in the error of a kernel without its NBD client.
var ErrNoNBD = errors.New("the kernel has no NBD client; is nbd.ko among the initramfs's modules?")

// connect makes the kernel attach the export at the other end of conn.
func connect(conn *net.TCPConn, info nbd.Info, dead time.Duration) error {
	return command(cmdConnect, conn, func(a *netlink.AttributeEncoder) {
		a.Uint64(attrSizeBytes, info.Size)
		// The device's sector: the file system's own blocks may be as small as 1 KiB.
		a.Uint64(attrBlockSizeBytes, max(512, uint64(info.BlockMin)))
		a.Uint64(attrServerFlags, uint64(info.Flags))
		a.Uint64(attrTimeout, seconds(requestTimeout))
		a.Uint64(attrDeadConnTimeout, seconds(dead))
	})
}

// reconnect hands the kernel a new connection in place of a dead one.
func reconnect(conn *net.TCPConn) error {
	return command(cmdReconfigure, conn, func(*netlink.AttributeEncoder) {})
}

// Detach gives the device up: reads that wait fail.
func Detach() error {
	return command(cmdDisconnect, nil, func(*netlink.AttributeEncoder) {})
}

func seconds(d time.Duration) uint64 { return uint64(d / time.Second) }

func command(number uint8, conn *net.TCPConn, fill func(*netlink.AttributeEncoder)) error {
	c, err := genetlink.Dial(nil)
	if err != nil {
		return fmt.Errorf("the kernel's generic netlink does not open: %w", err)
	}
	defer c.Close()
	family, err := c.GetFamily("nbd")
	if errors.Is(err, os.ErrNotExist) {
		return ErrNoNBD
	}
	if err != nil {
		return fmt.Errorf("the kernel does not tell about its NBD client: %w", err)
	}
	call := func(attributes []byte) error {
		m := genetlink.Message{Header: genetlink.Header{Command: number, Version: family.Version}, Data: attributes}
		_, err := c.Execute(m, family.ID, netlink.Request|netlink.Acknowledge)
		return err
	}
	a := netlink.NewAttributeEncoder()
	a.Uint32(attrIndex, device)
	fill(a)
	if conn == nil {
		b, err := a.Encode()
		return errors.Join(err, call(b))
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		a.Nested(attrSockets, func(a *netlink.AttributeEncoder) error {
			a.Nested(sockItem, func(a *netlink.AttributeEncoder) error {
				a.Uint32(sockFD, uint32(fd))
				return nil
			})
			return nil
		})
		var b []byte
		if b, failed = a.Encode(); failed == nil {
			failed = call(b)
		}
	})
	return errors.Join(err, failed)
}

// vigilant makes the kernel notice within half a minute that a server has vanished without a word: a server that was
// unplugged sends no RST.
func vigilant(conn *net.TCPConn) error {
	err := conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3})
	if err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(25*time.Second/time.Millisecond))
	})
	return errors.Join(err, failed)
}

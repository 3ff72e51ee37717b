// Package lab is a network in a box: Ethernet segments, hosts on them, a real dnsmasq as the house router, cables with
// faults (lab/wire) and virtual boards (lab/qemu). Tests and the demo build their networks with it. It needs root.
//
// Everything lives in network namespaces without names, so nothing is left behind when a process is killed. To look
// inside from a shell: nsenter --net=PATH, where PATH is Host.Path or Segment.Path.
package lab

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"bramble/lab/netns"
	"bramble/lab/wire"
)

// Segment is an Ethernet segment: a bridge in a namespace of its own.
type Segment struct {
	*netns.NS

	mu      sync.Mutex
	ports   map[string]bool
	closers []func() error // run last to first
}

const bridge = "bridge"

// OpenSegment makes a segment. Close it when done.
func OpenSegment() (*Segment, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	s := &Segment{NS: ns, ports: map[string]bool{}, closers: []func() error{ns.Close}}
	err = errors.Join(
		s.Do(noIPv6),
		s.Run("ip", "link", "add", "name", bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0"),
		s.Run("ip", "link", "set", "dev", bridge, "up"),
	)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close removes the segment and all that was added to it: hosts, routers, wires.
func (s *Segment) Close() error {
	s.mu.Lock()
	closers := s.closers
	s.closers = nil
	s.mu.Unlock()
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i]())
	}
	return errors.Join(errs...)
}

func (s *Segment) onClose(f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closers = append(s.closers, f)
}

// claim reserves the name of a port. Interface names have at most 15 characters, of which this package needs two.
func (s *Segment) claim(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case name == "" || len(name) > 13:
		return fmt.Errorf("port name %q must have 1 to 13 characters", name)
	case name == bridge || s.ports[name]:
		return fmt.Errorf("the segment has a port %q already; choose another name", name)
	}
	s.ports[name] = true
	return nil
}

// attach makes an existing interface a port of the bridge.
func (s *Segment) attach(name string) error {
	return s.Run("ip", "link", "set", "dev", name, "master", bridge, "up")
}

// Host is a machine on a segment: a namespace with the interface eth0.
type Host struct {
	*netns.NS
	Name string
	Wire *wire.Wire // the cable to the segment, if it was asked for
}

// AddHost puts a host on the segment. Addresses are in CIDR form.
func (s *Segment) AddHost(name string, addrs ...string) (*Host, error) {
	if err := s.claim(name); err != nil {
		return nil, err
	}
	h, err := s.newHost(name, name, addrs)
	if err != nil {
		return nil, err
	}
	return h, s.attach(name)
}

// AddHostBehind is AddHost with a faulty cable, Host.Wire, between the host (its first end) and the segment.
func (s *Segment) AddHostBehind(faults wire.Faults, name string, addrs ...string) (*Host, error) {
	segment, err := s.AddPort(name)
	if err != nil {
		return nil, err
	}
	host := wire.End{NS: s.NS, Interface: name + ".h"}
	h, err := s.newHost(name, host.Interface, addrs)
	if err != nil {
		return nil, err
	}
	if err := wire.NoOffload(wire.End{NS: h.NS, Interface: "eth0"}); err != nil {
		return nil, err
	}
	h.Wire, err = s.join(host, segment, faults)
	return h, err
}

// Connect joins two segments by a faulty cable that is part of s; name is the port's on both.
func (s *Segment) Connect(other *Segment, name string, faults wire.Faults) (*wire.Wire, error) {
	a, err := s.AddPort(name)
	if err != nil {
		return nil, err
	}
	b, err := other.AddPort(name)
	if err != nil {
		return nil, err
	}
	return s.join(a, b, faults)
}

func (s *Segment) join(a, b wire.End, faults wire.Faults) (*wire.Wire, error) {
	w, err := wire.Join(a, b, faults)
	if err == nil {
		s.onClose(w.Close)
	}
	return w, err
}

// AddPort adds an open port and returns the end where a wire can be plugged in.
func (s *Segment) AddPort(name string) (wire.End, error) {
	end := wire.End{NS: s.NS, Interface: name + ".w"}
	if err := s.claim(name); err != nil {
		return end, err
	}
	if err := s.Run("ip", "link", "add", "name", name, "type", "veth", "peer", "name", end.Interface); err != nil {
		return end, err
	}
	return end, errors.Join(
		wire.NoOffload(wire.End{NS: s.NS, Interface: name}),
		s.Run("ip", "link", "set", "dev", end.Interface, "up"),
		s.attach(name),
	)
}

// AddTap adds a port for a virtual machine: a tap interface of that name in the segment's namespace.
func (s *Segment) AddTap(name string) error {
	if err := s.claim(name); err != nil {
		return err
	}
	if err := s.Run("ip", "tuntap", "add", "dev", name, "mode", "tap"); err != nil {
		return err
	}
	return s.attach(name)
}

// newHost makes a host whose eth0 is connected to the new interface port of the segment.
func (s *Segment) newHost(name, port string, addrs []string) (*Host, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	s.onClose(ns.Close)
	err = errors.Join(
		s.Run("ip", "link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", ns.Path()),
		s.Run("ip", "link", "set", "dev", port, "up"),
		ns.Run("ip", "link", "set", "dev", "eth0", "up"),
	)
	for _, addr := range addrs {
		err = errors.Join(err, ns.Run("ip", "addr", "add", addr, "dev", "eth0"))
	}
	return &Host{NS: ns, Name: name}, err
}

// noIPv6 keeps the kernel from adding packets of its own to a namespace that is only a switch.
func noIPv6() error {
	var errs []error
	for _, scope := range []string{"all", "default"} {
		file := "/proc/sys/net/ipv6/conf/" + scope + "/disable_ipv6"
		if err := os.WriteFile(file, []byte("1"), 0); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

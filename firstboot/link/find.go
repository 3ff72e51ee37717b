// Package link gets a node onto the network: it finds the wired interface, brings it up, obtains a DHCP lease and
// configures it by netlink.
package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"bramble/node"
)

// Interface is a wired network interface.
type Interface struct {
	Name    string
	Index   int
	MAC     node.MAC
	Carrier bool // a cable with a partner at its other end
}

// ErrNoInterface is in the error of a board on which no wired network interface appeared.
var ErrNoInterface = errors.New("no wired network interface has appeared")

// Candidates lists the wired interfaces; sys is /sys/class/net.
func Candidates(sys fs.FS) ([]Interface, error) {
	entries, err := fs.ReadDir(sys, ".")
	if err != nil {
		return nil, fmt.Errorf("the network interfaces cannot be listed: %w", err)
	}
	var found []Interface
	for _, e := range entries {
		if i, ok := wired(sys, e.Name()); ok {
			found = append(found, i)
		}
	}
	return found, nil
}

func wired(sys fs.FS, name string) (Interface, bool) {
	read := func(file string) string {
		// A file that cannot be read (carrier of an interface that is down) says nothing.
		text, _ := fs.ReadFile(sys, name+"/"+file)
		return strings.TrimSpace(string(text))
	}
	exists := func(file string) bool { _, err := fs.Stat(sys, name+"/"+file); return err == nil }
	const ethernet = "1" // ARPHRD_ETHER
	if read("type") != ethernet || exists("wireless") || exists("phy80211") {
		return Interface{}, false
	}
	mac, err := node.ParseMAC(read("address"))
	index, err2 := strconv.Atoi(read("ifindex"))
	if err != nil || err2 != nil {
		return Interface{}, false
	}
	return Interface{Name: name, Index: index, MAC: mac, Carrier: read("carrier") == "1"}, true
}

// Choose picks the interface to use among those there are: the one with the MAC address, if it has a carrier; any
// other with a carrier only if anyway is set or no MAC address is wanted.
func Choose(all []Interface, want node.MAC, anyway bool) (Interface, bool) {
	for _, i := range all {
		if i.Carrier && i.MAC == want {
			return i, true
		}
	}
	for _, i := range all {
		if i.Carrier && (anyway || want.IsZero()) {
			return i, true
		}
	}
	return Interface{}, false
}

// patience is how long the interface with the right MAC address may take before another one does as well: some
// drivers make an address up when nobody has told them the board's.
const patience = 20 * time.Second

// Wait waits for an interface that Choose would choose, and brings up all there are meanwhile. Up is BringUp.
func Wait(ctx context.Context, sys fs.FS, want node.MAC, up func(name string) error) (Interface, error) {
	tried := map[string]error{}
	for began := time.Now(); ; {
		all, err := Candidates(sys)
		if err != nil {
			return Interface{}, err
		}
		for _, i := range all {
			if upErr, done := tried[i.Name]; !done || upErr != nil {
				tried[i.Name] = up(i.Name)
			}
		}
		if i, ok := Choose(all, want, time.Since(began) > patience); ok {
			return i, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return Interface{}, excuse(all, tried)
		}
	}
}

// excuse says why there is no network.
func excuse(all []Interface, tried map[string]error) error {
	if len(all) == 0 {
		return fmt.Errorf("%w; is the driver among the initramfs's modules?", ErrNoInterface)
	}
	var names []string
	var errs []error
	for _, i := range all {
		names = append(names, fmt.Sprintf("%s (%s)", i.Name, i.MAC))
		errs = append(errs, tried[i.Name])
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("the wired network interface cannot be brought up: %w", err)
	}
	return fmt.Errorf("there is no link on %s; check the cable and the switch", strings.Join(names, " and "))
}

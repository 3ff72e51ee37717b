package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// segment is one interface to serve on.
type segment struct {
	Name   string
	Prefix netip.Prefix // the interface's first IPv4 address and its network
}

// segments finds the interfaces that were named or, when none was, the only one that can be meant.
func segments(names []string) ([]segment, error) {
	if len(names) == 0 {
		return onlySegment()
	}
	var all []segment
	for _, name := range names {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return nil, fmt.Errorf("there is no interface %q here; the interfaces are %s", name, interfaceNames())
		}
		prefix, ok := ipv4(*i)
		if !ok {
			return nil, fmt.Errorf("%s has no IPv4 address; plug the cable in and wait for the router's, or give it one: ip address add 10.0.0.1/24 dev %s", name, name)
		}
		all = append(all, segment{name, prefix})
	}
	return all, nil
}

func onlySegment() ([]segment, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("the interfaces of this machine can't be listed: %w", err)
	}
	var found []segment
	for _, i := range all {
		wired := i.Flags&net.FlagUp != 0 && i.Flags&net.FlagBroadcast != 0 && i.Flags&net.FlagLoopback == 0
		if prefix, ok := ipv4(i); wired && ok && !wireless(i.Name) {
			found = append(found, segment{i.Name, prefix})
		}
	}
	switch len(found) {
	case 1:
		return found, nil
	case 0:
		return nil, fmt.Errorf("no wired interface has an IPv4 address; name one with -i (there are %s)", interfaceNames())
	}
	var choices []string
	for _, s := range found {
		choices = append(choices, s.Name+" ("+s.Prefix.Addr().String()+")")
	}
	return nil, fmt.Errorf("several interfaces could be meant: %s; name the one that the boards are on with -i", strings.Join(choices, ", "))
}

func ipv4(i net.Interface) (netip.Prefix, bool) {
	addrs, _ := i.Addrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

func wireless(name string) bool {
	_, err := os.Stat(filepath.Join("/sys/class/net", name, "wireless"))
	return err == nil
}

func interfaceNames() string {
	all, _ := net.Interfaces()
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return strings.Join(names, ", ")
}

// authorizedKeys reads the public keys of the named files or, when none is named, those of whoever started bramble,
// looking through sudo. Each key stands for itself: options before it are kept, comments and blank lines are not.
func authorizedKeys(files []string) (keys, from []string, err error) {
	named := len(files) > 0
	if !named {
		files = ownKeyFiles()
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) && !named {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("the public keys in %s can't be read: %w", file, err)
		}
		found, err := parseKeys(text)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", file, err)
		}
		if len(found) > 0 {
			from = append(from, file)
		}
		for _, key := range found {
			if !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	return keys, from, nil
}

func parseKeys(text []byte) ([]string, error) {
	var keys []string
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line)); err != nil {
			return nil, fmt.Errorf("line %d is not a public SSH key; it should look like \"ssh-ed25519 AAAA… name\"", n)
		}
		keys = append(keys, line)
	}
	return keys, lines.Err()
}

func ownKeyFiles() []string {
	home, _ := os.UserHomeDir()
	if who := os.Getenv("SUDO_USER"); who != "" {
		if u, err := user.Lookup(who); err == nil {
			home = u.HomeDir
		}
	}
	files, _ := filepath.Glob(filepath.Join(home, ".ssh", "id_*.pub"))
	return append(files, filepath.Join(home, ".ssh", "authorized_keys"))
}

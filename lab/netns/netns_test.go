package netns_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bramble/lab"
	"bramble/lab/netns"
)

// interfaces lists the network interfaces in ns.
func interfaces(t *testing.T, ns *netns.NS) []string {
	t.Helper()
	var names []string
	err := ns.Do(func() error {
		list, err := net.Interfaces()
		for _, i := range list {
			names = append(names, i.Name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestNamespace(t *testing.T) {
	lab.Need(t, "ip", "nsenter")
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()

	if err := ns.Run("ip", "link", "add", "name", "bram0", "type", "bridge"); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(interfaces(t, ns), " "); !strings.Contains(got, "bram0") {
		t.Errorf("inside are %q, want bram0 among them", got)
	}
	if _, err := net.InterfaceByName("bram0"); err == nil {
		t.Error("bram0 is visible outside of its namespace")
	}

	again, err := netns.Open(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := strings.Join(interfaces(t, again), " "); !strings.Contains(got, "bram0") {
		t.Errorf("reopened by its path, inside are %q, want bram0 among them", got)
	}
}

func TestErrors(t *testing.T) {
	lab.Need(t, "ip", "nsenter")
	if _, err := netns.Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of a path that does not exist: %v", err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	want := errors.New("from inside")
	if err := ns.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("Do returned %v, want %v", err, want)
	}
	if err := ns.Run("ip", "link", "set", "nosuch", "up"); err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("a failed command's error is %v, want what it printed", err)
	}
}

package link

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"bramble/lab"
	"bramble/lab/netns"
	"bramble/node"
)

// inside runs f on a board that is on a segment with the router.
func inside(t *testing.T, ns *netns.NS, f func(i Interface)) {
	t.Helper()
	err := ns.Do(func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		f(Interface{Name: i.Name, Index: i.Index, MAC: node.MAC(i.HardwareAddr), Carrier: true})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestLease obtains, configures and renews a lease of a real dnsmasq.
func TestLease(t *testing.T) {
	lab.Need(t, "dnsmasq", "ip", "nsenter")
	bench := lab.NewSegment(t)
	router := bench.HouseRouter(lab.RouterConfig{Args: []string{"--dhcp-option=6,10.77.0.1,9.9.9.9"}})
	host := bench.Host("board")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	inside(t, host.NS, func(i Interface) {
		wish := netip.MustParseAddr("10.77.0.123")
		l, err := Acquire(ctx, i, "", wish)
		if err != nil {
			t.Fatal(err)
		}
		if l.Addr.Addr() != wish {
			t.Errorf("asked for %s, got %s", wish, l.Addr)
		}
		if l.Addr.Bits() != 24 || l.Router.String() != "10.77.0.1" || l.Server.String() != "10.77.0.1" || len(l.DNS) != 2 || l.Domain != "lan" || l.Life != time.Hour {
			t.Errorf("the lease is %+v", l)
		}
		if err := Configure(i.Index, l); err != nil {
			t.Fatal(err)
		}
		if err := Configure(i.Index, l); err != nil {
			t.Errorf("a second time: %v", err)
		}
		show, err := host.Output("ip", "-4", "addr", "show", "dev", "eth0")
		if err != nil || !strings.Contains(show, "inet "+l.Addr.String()+" brd 10.77.0.255 scope global") || !strings.Contains(show, "valid_lft forever") {
			t.Errorf("ip addr: %v\n%s", err, show)
		}
		if show, err := host.Output("ip", "-4", "route", "show", "default"); err != nil || !strings.HasPrefix(show, "default via 10.77.0.1 dev eth0 proto dhcp") {
			t.Errorf("ip route: %v\n%s", err, show)
		}
		if err := host.Run("ping", "-c", "1", "-W", "2", "10.77.0.1"); err != nil {
			t.Error(err)
		}

		renewed, err := Extend(ctx, i, "pi-51", l)
		if err != nil || renewed.Addr != l.Addr || renewed.Life != l.Life {
			t.Errorf("Extend() = %+v, %v", renewed, err)
		}
		if _, err := router.WaitLog(ctx, "DHCPACK(eth0) "+l.Addr.Addr().String()+" "+i.MAC.String()+" pi-51"); err != nil {
			t.Errorf("the router did not learn the name: %v", err)
		}
		if err := Remove(i.Index, l.Addr); err != nil {
			t.Error(err)
		}
		if err := Remove(i.Index, l.Addr); err != nil {
			t.Errorf("a second time: %v", err)
		}
		if show, err := host.Output("ip", "-4", "addr", "show", "dev", "eth0"); err != nil || strings.Contains(show, "inet ") {
			t.Errorf("after Remove: %v\n%s", err, show)
		}
	})
}

// TestUp waits for a link in the real /sys.
func TestUp(t *testing.T) {
	lab.Need(t, "ip", "nsenter")
	bench := lab.NewSegment(t)
	host := bench.Host("board")
	if err := host.Run("ip", "link", "set", "eth0", "down"); err != nil {
		t.Fatal(err)
	}
	inside(t, host.NS, func(i Interface) {
		if err := BringUp("eth0"); err != nil {
			t.Error(err)
		}
		if show, err := host.Output("ip", "link", "show", "eth0"); err != nil || !strings.Contains(show, "LOWER_UP") {
			t.Errorf("ip link: %v\n%s", err, show)
		}
		if err := BringUp("eth9"); err == nil || !strings.Contains(err.Error(), "eth9") {
			t.Errorf("BringUp of nothing: %v", err)
		}
		if n, err := Named(Interface{Name: "old", Index: i.Index}); err != nil || n.Name != "eth0" {
			t.Errorf("Named() = %+v, %v", n, err)
		}
		if _, err := Named(Interface{Name: "gone", Index: 4711}); err == nil {
			t.Error("an interface that is gone has a name")
		}
	})
	if _, err := Candidates(os.DirFS("/sys/class/net")); err != nil {
		t.Error(err)
	}
}

// TestNobody: without a DHCP server the sentence says so.
func TestNobody(t *testing.T) {
	lab.Need(t, "ip", "nsenter")
	bench := lab.NewSegment(t)
	host := bench.Host("board")
	inside(t, host.NS, func(i Interface) {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if _, err := Acquire(ctx, i, "", netip.Addr{}); err == nil || !strings.Contains(err.Error(), "no DHCP server answers on eth0") {
			t.Errorf("Acquire() = %v", err)
		}
	})
}

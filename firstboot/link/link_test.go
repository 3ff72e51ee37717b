package link

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"bramble/node"
)

var board = node.MAC{0xb8, 0x27, 0xeb, 1, 2, 3}

// sys is a folder like /sys/class/net: one line for each file.
func sys(files string) fstest.MapFS {
	m := fstest.MapFS{}
	for _, line := range strings.Fields(files) {
		name, text, _ := strings.Cut(line, "=")
		m[name] = &fstest.MapFile{Data: []byte(text + "\n"), Mode: 0o444}
	}
	return m
}

const (
	lo   = "lo/type=772 lo/address=00:00:00:00:00:00 lo/ifindex=1 lo/carrier=1 "
	eth0 = "eth0/type=1 eth0/address=b8:27:eb:01:02:03 eth0/ifindex=2 "
	usb  = "usb0/type=1 usb0/address=02:00:00:00:00:01 usb0/ifindex=3 "
	wlan = "wlan0/type=1 wlan0/address=b8:27:eb:54:57:56 wlan0/ifindex=4 wlan0/carrier=1 wlan0/phy80211/name=phy0 "
)

func TestCandidates(t *testing.T) {
	got, err := Candidates(sys(lo + eth0 + usb + wlan + "usb0/carrier=1 bonding_masters= odd0/type=1 odd0/address=?"))
	want := []Interface{{"eth0", 2, board, false}, {"usb0", 3, node.MAC{2, 0, 0, 0, 0, 1}, true}}
	if err != nil || !cmp.Equal(want, got) {
		t.Errorf("Candidates() = %+v, %v; want %+v", got, err, want)
	}
}

func TestChoose(t *testing.T) {
	var (
		other = node.MAC{2, 0, 0, 0, 0, 1}
		mine  = Interface{"eth0", 2, board, true}
		their = Interface{"usb0", 3, other, true}
		dark  = Interface{"eth0", 2, board, false}
	)
	for _, c := range []struct {
		name   string
		all    []Interface
		want   node.MAC
		anyway bool
		chosen string
	}{
		{"by MAC", []Interface{their, mine}, board, false, "eth0"},
		{"by MAC, even late", []Interface{their, mine}, board, true, "eth0"},
		{"no carrier", []Interface{dark}, board, true, ""},
		{"wait for the right one", []Interface{their, dark}, board, false, ""},
		{"another one at last", []Interface{their, dark}, board, true, "usb0"},
		{"nobody said which", []Interface{dark, their}, node.MAC{}, false, "usb0"},
		{"none", nil, board, true, ""},
	} {
		got, ok := Choose(c.all, c.want, c.anyway)
		if ok != (c.chosen != "") || got.Name != c.chosen {
			t.Errorf("%s: %q, %v; want %q", c.name, got.Name, ok, c.chosen)
		}
	}
}

// late is a folder that changes with the reading: the driver takes its time.
type late struct {
	stages []fs.FS
	reads  atomic.Int32
}

func (l *late) Open(name string) (fs.File, error) {
	if name == "." {
		l.reads.Add(1)
	}
	return l.stages[min(int(l.reads.Load()), len(l.stages))-1].Open(name)
}

func TestWait(t *testing.T) {
	l := &late{stages: []fs.FS{sys(lo), sys(lo + eth0), sys(lo + eth0 + "eth0/carrier=0"), sys(lo + eth0 + "eth0/carrier=1")}}
	ups := 0
	up := func(name string) error {
		if ups++; ups == 1 {
			return errors.New("not yet")
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if i, err := Wait(ctx, l, board, up); err != nil || i.Index != 2 || ups != 2 {
		t.Errorf("Wait() = %+v, %v after %d times up", i, err, ups)
	}
}

func TestWaitInVain(t *testing.T) {
	for _, c := range []struct {
		files, want string
		up          error
	}{
		{lo, "no wired network interface", nil},
		{lo + eth0, "no link on eth0 (b8:27:eb:01:02:03); check the cable", nil},
		{lo + eth0, "cannot be brought up: broken", errors.New("broken")},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 120*time.Millisecond)
		_, err := Wait(ctx, sys(c.files), board, func(string) error { return c.up })
		cancel()
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrNoInterface) != (c.files == lo) {
			t.Errorf("Wait() = %v; want %q", err, c.want)
		}
	}
}

func ack(t *testing.T, m ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	p, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithYourIP([]byte{10, 0, 0, 51}), dhcpv4.WithServerIP([]byte{10, 0, 0, 1}),
	}, m...)...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func option(code uint8, value ...byte) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), value))
}

func TestRead(t *testing.T) {
	all := []dhcpv4.Modifier{
		option(1, 255, 255, 252, 0), option(3, 10, 0, 0, 1, 10, 0, 0, 2), option(6, 10, 0, 0, 1, 9, 9, 9, 9), option(15, []byte("home.lan")...),
		option(51, 0, 0, 0x0e, 0x10), option(54, 10, 0, 0, 1),
	}
	full := Lease{
		Addr: netip.MustParsePrefix("10.0.0.51/22"), Router: netip.MustParseAddr("10.0.0.1"), Server: netip.MustParseAddr("10.0.0.1"), Domain: "home.lan",
		DNS: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("9.9.9.9")}, Life: time.Hour, Renew: 30 * time.Minute,
	}
	bare := Lease{Addr: netip.MustParsePrefix("10.0.0.51/8"), Life: time.Hour, Renew: 30 * time.Minute}
	early := full
	early.Renew = 5 * time.Minute
	for _, c := range []struct {
		name string
		ack  *dhcpv4.DHCPv4
		want Lease
	}{
		{"full", ack(t, all...), full},
		{"bare", ack(t), bare},
		{"T1", ack(t, append(all, option(58, 0, 0, 1, 0x2c))...), early},
		{"T1 after the end", ack(t, append(all, option(58, 1, 0, 0, 0))...), full},
		{"a mask with holes", ack(t, option(1, 255, 0, 255, 0)), bare},
		{"a mask of nothing", ack(t, option(1, 0, 0, 0, 0)), bare},
		{"short options", ack(t, option(1, 255), option(3, 1, 2), option(6, 1), option(51, 1), option(54, 1)), bare},
	} {
		got, err := read(c.ack)
		got.ACK = nil
		if d := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" || err != nil {
			t.Errorf("%s: %v, -want +got:\n%s", c.name, err, d)
		}
	}
	if _, err := read(ack(t, dhcpv4.WithYourIP([]byte{0, 0, 0, 0}))); err == nil {
		t.Error("an ACK without an address is a lease")
	}
}

func TestResolvConf(t *testing.T) {
	dns := []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	for _, c := range []struct {
		lease Lease
		want  string
	}{
		{Lease{Domain: "lan"}, ""},
		{Lease{DNS: dns}, "nameserver 10.0.0.1\n"},
		{Lease{DNS: dns, Domain: "home.lan"}, "search home.lan\nnameserver 10.0.0.1\n"},
		{Lease{DNS: dns, Domain: "lan\nnameserver 6.6.6.6"}, "nameserver 10.0.0.1\n"},
	} {
		_, got, _ := strings.Cut(c.lease.ResolvConf(), "\n")
		if got != c.want {
			t.Errorf("%+v: %q, want %q", c.lease, got, c.want)
		}
	}
}

func TestSchedule(t *testing.T) {
	l := Lease{Life: time.Hour, Renew: 30 * time.Minute}
	for age, want := range map[time.Duration]time.Duration{0: 30*time.Minute + time.Second, 10 * time.Minute: 20*time.Minute + time.Second, 2 * time.Hour: time.Second} {
		if got := Schedule(l, age); got != want {
			t.Errorf("Schedule(%v) = %v, want %v", age, got, want)
		}
	}
	for life, want := range map[time.Duration]time.Duration{time.Minute: 10 * time.Second, time.Hour: 225 * time.Second, 24 * time.Hour: 5 * time.Minute} {
		if got := Retry(Lease{Life: life}); got != want {
			t.Errorf("Retry(%v) = %v, want %v", life, got, want)
		}
	}
}

func TestBroadcast(t *testing.T) {
	for in, want := range map[string]string{"10.0.0.51/24": "10.0.0.255", "10.1.2.3/8": "10.255.255.255", "10.0.0.4/30": "10.0.0.7"} {
		if got := broadcast(netip.MustParsePrefix(in)); got.String() != want {
			t.Errorf("broadcast(%s) = %s, want %s", in, got, want)
		}
	}
	for _, in := range []string{"10.0.0.4/31", "10.0.0.4/32"} {
		if got := broadcast(netip.MustParsePrefix(in)); got.IsValid() {
			t.Errorf("broadcast(%s) = %s, want none", in, got)
		}
	}
}

// FuzzRead: whatever a DHCP server sends, the lease is usable or refused.
func FuzzRead(f *testing.F) {
	p, err := dhcpv4.New(dhcpv4.WithYourIP([]byte{10, 0, 0, 51}), option(1, 255, 255, 255, 0), option(6, 1, 2, 3, 4), option(15, 'a', '\n'))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		l, err := read(p)
		if err != nil {
			return
		}
		if !l.Addr.IsValid() || l.Addr.Bits() == 0 || l.Renew > l.Life || l.Life < 0 || strings.Count(l.ResolvConf(), "\n") > len(l.DNS)+2 {
			t.Errorf("%+v", l)
		}
		broadcast(l.Addr)
		if Schedule(l, 0) <= 0 || Retry(l) <= 0 {
			t.Errorf("a keeper that does not sleep: %+v", l)
		}
	})
}

package dhcp

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func ipOf(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestFindings(t *testing.T) {
	here := Segment{Interface: "eth0", Self: netip.MustParsePrefix("10.0.0.2/24")}
	ruling, bare := here, Segment{Interface: "eth0"}
	ruling.Authoritative = true
	router := Heard{Server: ipOf("10.0.0.1"), Address: ipOf("10.0.0.50")}
	with := func(h Heard, change func(*Heard)) Heard { change(&h); return h }
	proxy := Heard{Server: ipOf("10.0.0.3"), PXE: true, Next: ipOf("10.0.0.3")}
	for _, test := range []struct {
		name   string
		seg    Segment
		offers []Heard
		want   []string // a word of each finding; "!" before it when something is wrong
	}{
		{"all is well", here, []Heard{router}, []string{"10.0.0.1 gives out addresses on eth0."}},
		{"nobody", here, nil, []string{"!Nobody gives out addresses"}},
		{"only a proxy", here, []Heard{with(proxy, func(h *Heard) { h.Menu = option43 })}, []string{"!Nobody gives out addresses", "!10.0.0.3 answers Raspberry Pis too"}},
		{"two", here, []Heard{router, with(router, func(h *Heard) { h.Server = ipOf("10.0.0.9") })}, []string{"!2 DHCP servers give out addresses on eth0: 10.0.0.1 and 10.0.0.9"}},
		{"another network", here, []Heard{with(router, func(h *Heard) { h.Address = ipOf("192.168.1.9") })}, []string{"!192.168.1.9, but eth0 has 10.0.0.2/24"}},
		{"option 66", here, []Heard{with(router, func(h *Heard) { h.TFTP = "files.lan\x00" })}, []string{"10.0.0.1 gives out", `!"files.lan" in option 66`}},
		{"option 66 is ours", here, []Heard{with(router, func(h *Heard) { h.TFTP = "10.0.0.2\x00" })}, []string{"10.0.0.1 gives out"}},
		{"the router has a Pi menu", here, []Heard{with(router, func(h *Heard) { h.Menu = option43 })}, []string{"10.0.0.1 gives out", "!Remove option 43"}},
		{"the router has other vendor options", here, []Heard{with(router, func(h *Heard) { h.Menu = []byte("unifi") })}, []string{"10.0.0.1 gives out"}},
		{"siaddr elsewhere", here, []Heard{with(router, func(h *Heard) { h.Next = ipOf("10.0.0.8") })}, []string{"10.0.0.1 gives out", "!names 10.0.0.8 as next server"}},
		{"siaddr itself", here, []Heard{with(router, func(h *Heard) { h.Next = h.Server })}, []string{"10.0.0.1 gives out"}},
		{"siaddr is ours", here, []Heard{with(router, func(h *Heard) { h.Next = ipOf("10.0.0.2") })}, []string{"10.0.0.1 gives out"}},
		{"PXE for PCs", here, []Heard{router, proxy}, []string{"10.0.0.1 gives out", "10.0.0.3 is a boot server for PCs"}},
		{"PXE for PCs without next server", here, []Heard{router, with(proxy, func(h *Heard) { h.Next = netip.Addr{} })}, []string{"10.0.0.1 gives out", "10.0.0.3 is a boot server for PCs"}},
		{"we rule", ruling, nil, []string{"bramble does"}},
		{"we rule, and somebody else", ruling, []Heard{router}, []string{"!10.0.0.1 gives out addresses on eth0 already"}},
		{"no address here", bare, []Heard{router}, []string{"10.0.0.1 gives out", "!eth0 has no IPv4 address"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			found := test.seg.Findings(test.offers)
			if len(found) != len(test.want) {
				t.Fatalf("found %v; want %d findings", found, len(test.want))
			}
			for i, f := range found {
				word, wrong := strings.CutPrefix(test.want[i], "!")
				if !strings.Contains(f.Text, word) || f.Wrong != wrong {
					t.Errorf("finding %d is %+v; want %q", i, f, test.want[i])
				}
				if !strings.HasSuffix(f.Text, ".") || wrong && strings.Count(f.Text, ". ")+strings.Count(f.Text, ", ") == 0 {
					t.Errorf("%q is no sentence with a remedy", f.Text)
				}
			}
		})
	}
}

func TestParseOffer(t *testing.T) {
	q := Query{Type: 1, XID: [4]byte{1, 2, 3, 4}, MAC: mustMAC(pc)}
	f := frame{src: mustMAC("b8:27:eb:00:00:01"), dst: broadcastMAC, from: netip.MustParseAddrPort("10.0.0.2:67"), to: netip.MustParseAddrPort("255.255.255.255:68")}
	got, err := parseOffer(f.bytes(probed(q, self)), q.XID)
	want := Heard{Server: self, MAC: f.src, TFTP: "10.0.0.2", Next: self, PXE: true, Menu: option43}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("%v, difference (want, got):\n%s", err, diff)
	}
	if _, err := parseOffer(f.bytes(probed(q, self)), piXID); err == nil {
		t.Error("an OFFER to another transaction counts")
	}
	if _, err := parseOffer(f.bytes(probePacket(q.XID, q.MAC)), q.XID); err == nil {
		t.Error("a DISCOVER counts as an OFFER")
	}
}

// The probe is answered by whoever answers a board, and is never taken for one.
func TestProbePacket(t *testing.T) {
	q := query(t, probePacket([4]byte{1, 2, 3, 4}, mustMAC(pc)))
	if !q.Probe || q.Class != piClass || q.Arch != 0 || q.Flags != broadcastFlag || !errors.Is(q.IsNetboot(), errNotPi) {
		t.Errorf("the probe reads as %+v, %v", q, q.IsNetboot())
	}
}

// A configuration BPDU as a Linux bridge sends it: root and bridge priority 0x8000, maximum age 20 s, hello time 2 s.
const bpdu = "0180c2000000" + "021122334455" + "0026" + "424203" + "0000000000" + "8000021122334455" + "00000000" + "8000021122334455" + "8001" + "0000" + "1400" + "0200"

func TestBPDU(t *testing.T) {
	for _, test := range []struct {
		name    string
		frame   string
		forward time.Duration
		err     error
		warns   bool
	}{
		{"15 s", bpdu + "0f00", 15 * time.Second, nil, true},
		{"4 s", bpdu + "0400", 4 * time.Second, nil, false},
		{"RSTP", strings.Replace(bpdu, "4242030000000000", "4242030000020200", 1) + "0f00", 0, errNoBPDU, false},
		{"topology change", strings.Replace(bpdu, "4242030000000000", "4242030000008000", 1) + "0f00", 0, errNoBPDU, false},
		{"cut", bpdu, 0, errNoBPDU, false},
	} {
		forward, err := parseBPDU(unhex(test.frame))
		if forward != test.forward || !errors.Is(err, test.err) {
			t.Errorf("%s: %v, %v; want %v, %v", test.name, forward, err, test.forward, test.err)
		}
		if warned := stpFinding("eth0", forward); len(warned) > 0 != test.warns {
			t.Errorf("%s: said %v", test.name, warned)
		}
	}
}

package dhcp

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bramble/internal/golden"
	"bramble/node"
)

const pc = "00:1b:21:3c:4d:5e"

// option is an option with an address, in hex.
func option(code byte, a string) string {
	return hex.EncodeToString(append([]byte{code, 4}, ip(netip.MustParseAddr(a))...))
}

func laptop(mac, options string) []byte { return request(9, mac, cookie+options+end) }

func from(ciaddr string, packet []byte) []byte {
	copy(packet[12:], ip(netip.MustParseAddr(ciaddr)))
	return packet
}

func answer(s []sent) string {
	var words []string
	for _, a := range s {
		words = append(words, fmt.Sprintf("%s %s to %s", a.dhcp.MessageType(), a.dhcp.YourIPAddr, a.to))
	}
	return strings.Join(words, ", ")
}

// A client's life, step by step, at one server.
func TestAuthorityConversation(t *testing.T) {
	w := newWorld(t, "10.0.0.100", "10.0.0.101")
	us := option(54, "10.0.0.2")
	for _, step := range []struct {
		name   string
		later  time.Duration
		packet []byte
		want   string
	}{
		{"a wish is heard", 0, laptop(pc, discover+option(50, "10.0.0.101")), "OFFER 10.0.0.101 to 10.0.0.101:68"},
		{"the same client is offered the same", 0, laptop(pc, discover), "OFFER 10.0.0.101 to 10.0.0.101:68"},
		{"it takes another server's offer", 0, laptop(pc, asRouter+option(54, "10.0.0.9")+option(50, "10.0.0.101")), ""},
		{"it takes ours", 0, laptop(pc, asRouter+us+option(50, "10.0.0.101")), "ACK 10.0.0.101 to 10.0.0.101:68"},
		{"it renews", time.Hour / 2, from("10.0.0.101", laptop(pc, asRouter)), "ACK 10.0.0.101 to 10.0.0.101:68"},
		{"it wakes up in the same network", 0, laptop(pc, asRouter+option(50, "10.0.0.101")), "ACK 10.0.0.101 to 10.0.0.101:68"},
		{"it wakes up in ours with another's address", 0, laptop(pc, asRouter+option(50, "192.168.1.5")), "NAK 0.0.0.0 to 255.255.255.255:68"},
		{"a second client gets the other", 0, laptop("00:1b:21:00:00:02", discover+option(50, "10.0.0.101")), "OFFER 10.0.0.100 to 10.0.0.100:68"},
		{"nobody gets the first one's", 0, laptop("00:1b:21:00:00:03", asRouter+us+option(50, "10.0.0.101")), "NAK 0.0.0.0 to 255.255.255.255:68"},
		{"a third client gets nothing", 0, laptop("00:1b:21:00:00:03", discover), ""},
		{"an offer not taken runs out", 2 * time.Minute, laptop("00:1b:21:00:00:03", discover), "OFFER 10.0.0.100 to 10.0.0.100:68"},
		{"the third declines it", 0, laptop("00:1b:21:00:00:03", "350104"+us+option(50, "10.0.0.100")), ""},
		{"so it is nobody's", 0, laptop("00:1b:21:00:00:03", discover), ""},
		{"for a while", 11 * time.Minute, laptop("00:1b:21:00:00:03", discover), "OFFER 10.0.0.100 to 10.0.0.100:68"},
		{"a stranger cannot release the first one's", 0, from("10.0.0.101", laptop("00:1b:21:00:00:03", "350107"+us)), ""},
		{"so it still has it", 0, from("10.0.0.101", laptop(pc, asRouter)), "ACK 10.0.0.101 to 10.0.0.101:68"},
		{"it asks what else there is to know", 0, from("10.0.0.50", laptop(pc, "350108")), "ACK 0.0.0.0 to 10.0.0.50:68"},
		{"it releases", 0, from("10.0.0.101", laptop(pc, "350107"+us)), ""},
		{"a fourth client gets it", 0, laptop("00:1b:21:00:00:04", discover), "OFFER 10.0.0.101 to 10.0.0.101:68"},
		{"it wants a broadcast", 0, func() []byte { b := laptop("00:1b:21:00:00:04", discover); b[10] = 0x80; return b }(), "OFFER 10.0.0.101 to 255.255.255.255:68"},
		{"nothing through a relay", 0, func() []byte { b := laptop(pc, discover); b[24] = 10; return b }(), ""},
		{"no answer to an OFFER", 0, laptop(pc, "350102"), ""},
	} {
		w.time = w.time.Add(step.later)
		if got := answer(w.says(step.packet)); got != step.want {
			t.Errorf("%s: got %q; want %q", step.name, got, step.want)
		}
	}
}

// What a board is given in this mode, byte for byte.
func TestAuthorityGolden(t *testing.T) {
	w := newWorld(t, "10.0.0.100", "10.0.0.100")
	w.Authority.Router = netip.MustParseAddr("10.0.0.1")
	w.Authority.DNS = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.3")}
	for _, test := range []struct {
		name   string
		packet []byte
	}{
		{"grant-offer-3bplus", discover3BPlus()},
		{"grant-ack-linux", laptop("b8:27:eb:69:20:2e", asRouter+option(54, "10.0.0.2")+option(50, "10.0.0.100"))},
	} {
		got := w.says(test.packet)
		if len(got) != 1 {
			t.Fatalf("%s: %d answers; want 1", test.name, len(got))
		}
		golden.Compare(t, test.name+".hex", lines(got[0].dhcp.ToBytes()))
	}
}

// A Pi 4 goes through the whole exchange and is told about TFTP in OFFER and ACK.
func TestAuthorityPi4(t *testing.T) {
	w := newWorld(t, "10.0.0.100", "10.0.0.199")
	offer := w.says(discoverPi4())
	if len(offer) != 1 {
		t.Fatalf("%d answers; want an OFFER", len(offer))
	}
	its := offer[0].dhcp.YourIPAddr.String()
	ack := w.says(request(0x6b0b6d0f, "dc:a6:32:2e:f8:ed", cookie+asRouter+option(54, "10.0.0.2")+option(50, its)+guidPi4+end))
	if len(ack) != 1 || ack[0].dhcp.MessageType() != dhcpv4.MessageTypeAck || ack[0].dhcp.YourIPAddr.String() != its ||
		ack[0].dhcp.TFTPServerName() != "10.0.0.2" || ack[0].dhcp.ClassIdentifier() != "PXEClient" {
		t.Errorf("got %s; want an ACK for %s that names TFTP", answer(ack), its)
	}
	if st, _ := w.Nodes.Get(mustMAC("dc:a6:32:2e:f8:ed")); st.Addr.String() != its || st.Offers != 1 {
		t.Errorf("the registry has %+v", st)
	}
}

// Beside the range's interface the others stay with proxyDHCP.
func TestAuthorityOnItsNetworkOnly(t *testing.T) {
	w := newWorld(t, "10.0.0.100", "10.0.0.199")
	w.wire.net = netip.MustParsePrefix("10.9.9.2/24")
	if got := answer(w.says(laptop(pc, discover))); got != "" {
		t.Errorf("a laptop on another network got %q", got)
	}
	if got := answer(w.says(discover3BPlus())); got != "OFFER 0.0.0.0 to 255.255.255.255:68" {
		t.Errorf("a board on another network got %q; want a proxy's OFFER", got)
	}
}

func TestAuthorityLeavesConflictsAlone(t *testing.T) {
	w := newWorld(t, "10.0.0.100", "10.0.0.102")
	squatter := mustMAC("00:1b:21:00:00:09")
	w.Authority.used = func(_ string, a netip.Addr) (node.MAC, bool) {
		return squatter, a.String() != "10.0.0.101"
	}
	if got := answer(w.says(laptop(pc, discover))); got != "OFFER 10.0.0.101 to 10.0.0.101:68" {
		t.Errorf("a laptop got %q; want the only address that is nobody's", got)
	}
	// a machine that answers for its own address is no conflict
	if got := answer(w.says(laptop(squatter.String(), discover+option(50, "10.0.0.102")))); got != "OFFER 10.0.0.102 to 10.0.0.102:68" {
		t.Errorf("the squatter got %q; want the address that it uses", got)
	}
}

// However clients behave, no two hold one address, and the table never outgrows the range.
func TestAuthorityNeverGivesTwice(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t, "10.0.0.100", "10.0.0.109")
		r := rand.New(rand.NewPCG(seed, 1))
		holds := map[string]struct {
			mac   byte
			until time.Time
		}{}
		for range 2000 {
			mac := byte(r.IntN(30))
			name := fmt.Sprintf("00:1b:21:00:00:%02x", mac)
			wish := fmt.Sprintf("10.0.0.%d", 95+r.IntN(20))
			options := []string{discover, discover + option(50, wish), asRouter + option(50, wish), "350104" + option(50, wish), asRouter, "350107"}[r.IntN(6)]
			packet := laptop(name, options)
			if options == asRouter || options == "350107" {
				from(wish, packet)
			}
			for _, a := range w.says(packet) {
				if a.dhcp.MessageType() != dhcpv4.MessageTypeAck {
					continue
				}
				got := a.dhcp.YourIPAddr.String()
				if h := holds[got]; h.mac != mac && h.until.After(w.time) {
					t.Fatalf("seed %d: %s given to %x while %x has it", seed, got, mac, h.mac)
				}
				for other, h := range holds { // a client that takes another address gives up the one before
					if h.mac == mac {
						delete(holds, other)
					}
				}
				h := holds[got]
				h.mac, h.until = mac, w.time.Add(a.dhcp.IPAddressLeaseTime(0))
				holds[got] = h
			}
			if options == "350107" || strings.HasPrefix(options, "350104") {
				if h := holds[wish]; h.mac == mac {
					delete(holds, wish)
				}
			}
			w.time = w.time.Add(time.Duration(r.IntN(300)) * time.Second)
		}
		if n := len(w.Authority.table.byAddr); n > 10 {
			t.Errorf("seed %d: the table has %d leases for 10 addresses", seed, n)
		}
		if a, m := len(w.Authority.table.byAddr), len(w.Authority.table.byMAC); m > a {
			t.Errorf("seed %d: %d clients for %d addresses", seed, m, a)
		}
	}
}

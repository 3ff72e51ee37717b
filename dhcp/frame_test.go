package dhcp

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"

	"bramble/node"
)

// The 3B+ ROM's headers of pi-netboot.md section 6, but for what the ROM's are peculiar in: identification aside,
// its time to live is 128.
func TestFrame(t *testing.T) {
	f := frame{
		src: mustMAC("b8:27:eb:69:20:2e"), dst: broadcastMAC,
		from: netip.MustParseAddrPort("0.0.0.0:68"), to: netip.MustParseAddrPort("255.255.255.255:67"),
	}
	b := f.bytes(discover3BPlus())
	b[etherLen+8] = 128
	b[etherLen+10], b[etherLen+11] = 0, 0
	sum := checksum(b[etherLen : etherLen+ipLen])
	b[etherLen+10], b[etherLen+11] = byte(sum>>8), byte(sum)
	want := "ffffffffffff" + "b827eb69202e" + "0800" + "4500015e000000008011399000000000ffffffff" + "00440043014a0000"
	if got := hex.EncodeToString(b[:etherLen+ipLen+udpLen]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	back, payload, err := parseFrame(b)
	if err != nil || back != f || !bytes.Equal(payload, discover3BPlus()) {
		t.Errorf("parsed %+v, %v; want %+v", back, err, f)
	}
}

func FuzzParseFrame(f *testing.F) {
	fr := frame{src: mustMAC(pc), dst: broadcastMAC, from: netip.MustParseAddrPort("10.0.0.1:67"), to: netip.MustParseAddrPort("10.0.0.9:68")}
	offer, err := Reply(Query{Type: 1, Model: node.Pi3, MAC: mustMAC(pc)}, serve, self)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(fr.bytes(offer.Packet))
	f.Add(fr.bytes(nil))
	f.Add(arpProbe(mustMAC(pc), self))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, payload, err := parseFrame(b); err == nil {
			if _, again, err := parseFrame(got.bytes(payload)); err != nil || !bytes.Equal(again, payload) {
				t.Errorf("parsed %+v, %x; building and parsing that gave %x, %v", got, payload, again, err)
			}
		}
		_, _ = parseOffer(b, piXID)
		_, _ = arpSender(b, self)
		_, _ = parseBPDU(b)
	})
}

func TestARP(t *testing.T) {
	a := netip.MustParseAddr("10.0.0.77")
	probe := arpProbe(mustMAC(pc), a)
	want := "ffffffffffff" + "001b213c4d5e" + "0806" + "0001080006040001" + "001b213c4d5e" + "00000000" + "000000000000" + "0a00004d"
	if got := hex.EncodeToString(probe); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, ok := arpSender(probe, a); ok {
		t.Error("a probe counts as a claim")
	}
	reply := unhex("001b213c4d5e" + "b827eb69202e" + "0806" + "0001080006040002" + "b827eb69202e" + "0a00004d" + "001b213c4d5e" + "00000000")
	if mac, ok := arpSender(reply, a); !ok || mac != mustMAC("b8:27:eb:69:20:2e") {
		t.Errorf("a reply tells of %v, %v", mac, ok)
	}
	if _, ok := arpSender(reply, self); ok {
		t.Error("a reply for another address counts")
	}
}

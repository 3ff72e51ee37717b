package dhcp

import (
	"bytes"
	"errors"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bramble/node"
)

func TestParse(t *testing.T) {
	const mac, pcMAC = "b8:27:eb:69:20:2e", "00:1b:21:3c:4d:5e"
	pxe := func(xid uint32, mac, guid string) []byte {
		return request(xid, mac, cookie+discover+sorted55+arch0+undi+guid+class60+end)
	}
	for _, test := range []struct {
		name   string
		packet []byte
		serial node.Serial
		model  node.Model
		stage  string
		why    error
	}{
		{"3B mask ROM", discover3B(), 0, node.Pi3B, "rom", nil},
		{"3B+ ROM", discover3BPlus(), 0x4c69202e, node.Pi3, "", nil},
		{"3B+ of firmware#1265", pxe(0x26f30339, "b8:27:eb:2f:aa:eb", "611100ebaa2fb2ebaa2fb2ebaa2fb2ebaa2fb2"), 0xb22faaeb, node.Pi3, "", nil},
		{"3B of firmware#1362", pxe(0x26f30339, mac, "6111004456efa24456efa24456efa24456efa2"), 0xa2ef5644, node.Pi3, "", nil},
		{"3B+ with a MAC of its owner's", pxe(0x26f30339, "02:00:00:00:00:07", guidSerial), 0x4c69202e, node.Pi3, "", nil},
		{"constant xid without a GUID", pxe(0x26f30339, mac, ""), 0, node.Pi3, "", nil},
		{"Pi 4", discoverPi4(), 0x5b154510, node.Pi4, "eeprom", nil},
		{"Pi 4, words the other way round", pxe(7, "dc:a6:32:2e:f8:ed", guidPi4Other), 0x5b154510, node.Pi4, "eeprom", nil},
		{"Pi 4 before 2020-03", pxe(7, "dc:a6:32:2e:f8:ed", guidOld4), 0x5b154510, node.Pi4, "eeprom", nil},
		{"Pi 5", discoverPi5(), 0x12345678, node.Pi5, "eeprom", nil},
		{"Pi 4's REQUEST without option 60", request(7, "dc:a6:32:2e:f8:ed", cookie+asRouter+guidPi4+end), 0x5b154510, node.Pi4, "eeprom", nil},

		{"laptop", request(7, pcMAC, cookie+discover+"370401031c06"+end), 0, "", "", errNotPXE},
		{"Linux on a Pi", request(7, mac, cookie+discover+"3c0c756468637020312e33362e31"+end), 0, "", "", errNotPXE},
		{"x86 BIOS PXE", pxe(7, pcMAC, guidPC), 0, "", "", errNotPi},
		{"x86 BIOS PXE with a UUID of zeros", pxe(7, pcMAC, guidZero), 0, "", "", errNotPi},
		{"x86 BIOS PXE with a repeating UUID", pxe(7, pcMAC, guidOld4), 0, "", "", errNotPi},
		{"only the MAC is a Pi's", pxe(7, mac, guidPC), 0, "", "", errNotPi},
		{"x86 UEFI PXE", request(7, pcMAC, cookie+discover+"5d020007"+guidPC+"3c20505845436c69656e743a417263683a30303030373a554e44493a303033303136"+end), 0, "", "", errNotPXE},
		{"UEFI of a Pi", request(7, mac, cookie+discover+"5d02000b"+guidPC+"3c20505845436c69656e743a417263683a30303031313a554e44493a303033303030"+end), 0, "", "", errNotPXE},
		{"a DISCOVER without option 60 but with RPi4", request(7, mac, cookie+discover+guidPi4+end), 0, "", "", errNotPXE},
	} {
		t.Run(test.name, func(t *testing.T) {
			q, err := Parse(test.packet)
			if err != nil {
				t.Fatal(err)
			}
			if q.Serial != test.serial || q.Model != test.model || q.Stage != test.stage || !errors.Is(q.IsNetboot(), test.why) {
				t.Errorf("got serial %v, model %q, stage %q, %v; want %v, %q, %q, %v",
					q.Serial, q.Model, q.Stage, q.IsNetboot(), test.serial, test.model, test.stage, test.why)
			}
			if test.why == nil && Foreign(test.packet) != nil {
				t.Errorf("Foreign says %v of a netboot client", Foreign(test.packet))
			}
		})
	}
}

func TestParseFields(t *testing.T) {
	b := request(0x01020304, "b8:27:eb:69:20:2e", cookie+asRouter+"32040a000007"+"36040a000001"+"5d020029"+"3c03616263"+end)
	copy(b[10:], []byte{0x80, 0})
	copy(b[12:], []byte{10, 0, 0, 9})
	copy(b[24:], []byte{10, 0, 1, 1})
	q, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if q.Type != dhcpv4.MessageTypeRequest || q.XID != (dhcpv4.TransactionID{1, 2, 3, 4}) || q.Flags != broadcastFlag ||
		q.Requested.String() != "10.0.0.7" || q.ServerID.String() != "10.0.0.1" || q.Client.String() != "10.0.0.9" ||
		q.Relay.String() != "10.0.1.1" || q.Arch != 0x29 || q.Class != "abc" {
		t.Errorf("got %+v", q)
	}
	if q, _ := Parse(discover3B()); q.Arch != 0 || q.Client.IsValid() || q.Relay.IsValid() || q.Requested.IsValid() {
		t.Errorf("got %+v; want arch 0 and no addresses", q)
	}
}

func TestParseRefuses(t *testing.T) {
	with := func(i int, v byte) []byte { b := discover3BPlus(); b[i] = v; return b }
	noMAC := discover3BPlus()
	copy(noMAC[28:34], make([]byte, 6))
	for _, test := range []struct {
		name   string
		packet []byte
		want   error
	}{
		{"empty", nil, errShort},
		{"only a head", discover3B()[:headLen], errShort},
		{"a reply", with(0, 2), errNotBOOTP},
		{"token ring", with(1, 6), errNotBOOTP},
		{"short address", with(2, 0), errNotBOOTP},
		{"long address", with(2, 16), errNotBOOTP},
		{"BOOTP", with(headLen, 0), errNoCookie},
		{"no MAC", noMAC, errNoMAC},
		{"multicast MAC", with(28, 0xb9), errNoMAC},
		{"no type", request(7, "b8:27:eb:69:20:2e", cookie+class60+end), errNoType},
		{"no end", request(7, "b8:27:eb:69:20:2e", cookie+discover), nil},
		{"option longer than the packet", request(7, "b8:27:eb:69:20:2e", cookie+discover+"3cff50"), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse(test.packet)
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("Parse says %v; want %v", err, test.want)
			}
		})
	}
}

func TestForeignAllocatesNothing(t *testing.T) {
	laptop := request(7, "00:1b:21:3c:4d:5e", cookie+discover+"370401031c06"+end)
	var err error
	if n := testing.AllocsPerRun(1000, func() { err = Foreign(laptop) }); n != 0 {
		t.Errorf("a laptop's DISCOVER costs %v allocations; want 0", n)
	}
	if !errors.Is(err, errNotPXE) {
		t.Errorf("Foreign says %v; want %v", err, errNotPXE)
	}
}

// A fingerprint is only worth its place if some client is recognised by it and by none before it.
func TestFingerprintsAreAllNeeded(t *testing.T) {
	clients := map[string][]byte{
		"3B mask ROM": discover3B(), "EEPROM": discoverPi4(), "serial GUID": discover3BPlus(),
		"constant xid": request(0x26f30339, "b8:27:eb:69:20:2e", cookie+discover+class60+end),
	}
	for _, f := range fingerprints {
		packet, ok := clients[f.name]
		if !ok || f.source == "" {
			t.Errorf("fingerprint %q has no client in this test, or no source", f.name)
			continue
		}
		q, err := Parse(packet)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range fingerprints {
			if _, ok := g.match(&q); ok {
				if g.name != f.name {
					t.Errorf("the client for %q is taken by %q", f.name, g.name)
				}
				break
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, b := range [][]byte{discover3B(), discover3BPlus(), discoverPi4(), discoverPi5()} {
		f.Add(b)
		f.Add(b[:len(b)-1])
		f.Add(append(bytes.Clone(b), make([]byte, 200)...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := Parse(b)
		foreign := Foreign(b)
		if err != nil {
			return
		}
		if q.MAC.IsZero() {
			t.Error("a query without a MAC")
		}
		if q.IsNetboot() == nil {
			if foreign != nil {
				t.Errorf("Foreign says %v of a netboot client", foreign)
			}
			if q.Model == node.ModelUnknown {
				t.Error("a netboot client without a model")
			}
		}
		a, err := Reply(q, serve, self)
		if err == nil {
			checkAnswer(t, q, a)
		}
	})
}

package pisim

import (
	"encoding/hex"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

// The simulator must not share the server's mistakes: it shares none of its code.
func TestImportsNothingOfTheServer(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "bramble/lab/pisim").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(dep, "bramble/") && dep != "bramble/lab/pisim" {
			t.Errorf("pisim depends on %s: build its packets here instead", dep)
		}
	}
	if !strings.Contains(string(out), "encoding/binary") {
		t.Errorf("go list -deps printed nothing of use: %s", out)
	}
}

var (
	macBLOG = MAC{0xb8, 0x27, 0xeb, 0x69, 0x20, 0x2e}
	idBLOG  = identity{mac: macBLOG, serial: 0x4c69202e}
)

// The vectors of §6.
func TestGoldenDiscover(t *testing.T) {
	head := "01010600" + "26f30339" + "00000000" + strings.Repeat("00", 16) + "b827eb69202e" + strings.Repeat("00", 10+192)
	for name, tc := range map[string]struct {
		form        Form
		ip, options string
		length      int
	}{
		"3B": {Form3B, "4500015c000000008011399200000000ffffffff" + "0044004301480000",
			"63825363350101370c2b3c438081828384858687425d0200005e03010201611100444444444444444444444444444444443c20505845436c69656e743a417263683a30303030303a554e44493a303032303031ff", 320},
		"3B+": {Form3BPlus, "4500015e000000008011399000000000ffffffff" + "00440043014a0000",
			"63825363350101370e2b3c4380818283848586874201035d0200005e030102016111002e20694c2e20694c2e20694c2e20694c3c20505845436c69656e743a417263683a30303030303a554e44493a303032303031ff", 322},
	} {
		t.Run(name, func(t *testing.T) {
			payload := idBLOG.discover(tc.form, romXID)
			if len(payload) != tc.length {
				t.Errorf("payload has %d bytes; want %d", len(payload), tc.length)
			}
			frame := udpFrame(broadcast, macBLOG, netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), payload)
			want := "ffffffffffff" + "b827eb69202e" + "0800" + tc.ip + head + tc.options
			if got := hex.EncodeToString(frame); got != want {
				t.Errorf("frame\n got %s\nwant %s", got, want)
			}
		})
	}
}

func TestGoldenGUID(t *testing.T) {
	for _, tc := range []struct {
		id   identity
		form Form
		want string
	}{
		{identity{serial: 0xb22faaeb}, Form3BPlus, "00ebaa2fb2ebaa2fb2ebaa2fb2ebaa2fb2"},
		{identity{serial: 0xa2ef5644}, Form3BPlus, "004456efa24456efa24456efa24456efa2"},
		{identity{serial: 0xb22faaeb}, Form3B, "00" + strings.Repeat("44", 16)},
		{identity{serial: 0x12345678, revision: 0xc03112, tag: "RPi4", mac: MAC{0xdc, 0xa6, 0x32, 1, 0x36, 0xc2}}, FormEEPROM,
			"00" + "52506934" + "1231c000" + "320136c2" + "78563412"},
	} {
		if got := hex.EncodeToString(tc.id.guid(tc.form)); got != tc.want {
			t.Errorf("guid of %08x = %s; want %s", tc.id.serial, got, tc.want)
		}
	}
	if n := len((identity{tag: "RPi5"}).discover(FormEEPROM, 1)); n != 322 {
		t.Errorf("the EEPROM's DISCOVER has %d bytes; want 322", n)
	}
}

func TestGoldenTFTP(t *testing.T) {
	rom, bootcode, start := TFTP{}, TFTP{TSize: true}, TFTP{TSize: true, BlockSize: 1468}
	for _, tc := range []struct {
		knobs TFTP
		name  string
		want  string
	}{
		{rom, "bootcode.bin", "0001626f6f74636f64652e62696e006f6374657400"},
		{rom, "bootsig.bin", "0001626f6f747369672e62696e006f6374657400"},
		{bootcode, "e1ffda08/start.elf", "000165316666646130382f73746172742e656c66006f63746574007473697a65003000"},
		{bootcode, "89eb9bb9/config.txt", "000138396562396262392f636f6e6669672e747874006f63746574007473697a65003000"},
		{bootcode, "fixup.dat", "000166697875702e646174006f63746574007473697a65003000"},
		{start, "8b07bcc6/kernel8.img", "000138623037626363362f6b65726e656c382e696d67006f63746574007473697a65003000626c6b73697a65003134363800"},
	} {
		if got := hex.EncodeToString((&transfer{knobs: tc.knobs, name: tc.name}).request()); got != tc.want {
			t.Errorf("RRQ %s\n got %s\nwant %s", tc.name, got, tc.want)
		}
	}
	if got := hex.EncodeToString(ackPacket(0)); got != "00040000" {
		t.Errorf("ACK 0 = %s", got)
	}
	if got := hex.EncodeToString(errorPacket(0, earlyTerminate)); got != "000500004561726c79207465726d696e61746500" {
		t.Errorf("ERROR = %s", got)
	}
}

func FuzzParseFrame(f *testing.F) {
	f.Add(udpFrame(broadcast, macBLOG, netip.MustParseAddrPort("10.0.0.1:69"), netip.MustParseAddrPort("10.0.0.2:49153"), []byte{0, 4, 0, 0}))
	f.Add(arpFrame(broadcast, arp{op: arpRequest, sender: macBLOG, senderIP: netip.MustParseAddr("10.0.0.1"), targetIP: netip.MustParseAddr("10.0.0.2")}))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := parseFrame(b)
		if !ok {
			return
		}
		switch got.kind {
		case etherIPv4:
			again, ok := parseFrame(udpFrame(got.dst, got.src, got.from, got.to, got.payload))
			if !ok || string(again.payload) != string(got.payload) || again.from != got.from || again.to != got.to {
				t.Fatalf("built again it reads %+v; want %+v", again, got)
			}
		case etherARP:
			if again, ok := parseFrame(arpFrame(got.dst, got.arp)); !ok || again.arp != got.arp {
				t.Fatalf("built again it reads %+v; want %+v", again, got)
			}
		default:
			t.Fatalf("a frame of kind %04x was accepted", got.kind)
		}
	})
}

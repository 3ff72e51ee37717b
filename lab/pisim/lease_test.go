package pisim

import (
	"encoding/hex"
	"net/netip"
	"testing"
)

// offer builds an OFFER from options in hex.
func offer(t *testing.T, from, yiaddr, siaddr, options string) Offer {
	t.Helper()
	opts, err := hex.DecodeString(options)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, bootpLen)
	b[0], b[1], b[2] = bootReply, 1, 6
	y, s := netip.MustParseAddr(yiaddr).As4(), netip.MustParseAddr(siaddr).As4()
	copy(b[16:], y[:])
	copy(b[20:], s[:])
	b = append(append(b, cookie...), opts...)
	o, err := parseOffer(netip.MustParseAddr(from), b)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

const (
	opt43Dnsmasq = "2b200601030a0400505845091400001152617370626572727920506920426f6f74ff"
	opt43Two     = "2b220601030a0400505845091600001152617370626572727920506920426f6f742020ff"
	opt43Three   = "2b230601030a0400505845091700001452617370626572727920506920426f6f74202020ff"
	opt43Bare    = "2b1452617370626572727920506920426f6f74202020"
	opt43Smee    = "2b1f060108091400001152617370626572727920506920426f6f740a0400505845"
	opt43Other   = "2b06" + "0901" + "41" + "ffffff"
	opt66        = "4208" + "31302e302e302e39" // 10.0.0.9
	opt66NUL     = "4209" + "31302e302e302e39" + "00"
	opt66Name    = "4204" + "6e616d65" // "name": there is no resolver
	opt60        = "3c09" + "505845436c69656e74"
	opt54        = "3604" + "0a000003"
)

// §1.4 and §1.7: who is the TFTP server.
func TestMerge(t *testing.T) {
	rom := DHCP{Form: Form3BPlus, MenuText: menuText, TFTPFromProxy: true}
	strict := DHCP{Form: Form3B, MenuText: menuTextSpaces, TFTPFromProxy: true}
	no66 := DHCP{Form: Form3BPlus, MenuText: menuText}
	eeprom := DHCP{Form: FormEEPROM, MenuText: menuText}
	for name, tc := range map[string]struct {
		knobs                   DHCP
		yiaddr, siaddr, options string
		server                  string // "" if none
	}{
		"dnsmasq's text":          {rom, "0.0.0.0", "0.0.0.0", opt43Dnsmasq, "10.0.0.3"},
		"two spaces":              {rom, "0.0.0.0", "0.0.0.0", opt43Two, "10.0.0.3"},
		"bare text":               {rom, "10.0.0.7", "0.0.0.0", opt43Bare, "10.0.0.3"},
		"smee's text":             {rom, "0.0.0.0", "0.0.0.0", opt43Smee, "10.0.0.3"},
		"another menu":            {rom, "0.0.0.0", "0.0.0.0", opt43Other, ""},
		"siaddr is ignored":       {rom, "10.0.0.7", "10.0.0.9", "", ""},
		"option 66":               {rom, "10.0.0.7", "0.0.0.0", opt66, "10.0.0.9"},
		"option 66 with NUL":      {rom, "10.0.0.7", "0.0.0.0", opt66NUL, "10.0.0.9"},
		"option 66 with a name":   {rom, "10.0.0.7", "0.0.0.0", opt66Name, ""},
		"43 then 66: the last":    {rom, "0.0.0.0", "0.0.0.0", opt43Three + opt66, "10.0.0.9"},
		"66 then 43: the last":    {rom, "0.0.0.0", "0.0.0.0", opt66 + opt43Three, "10.0.0.3"},
		"66 of a proxy not used":  {no66, "0.0.0.0", "0.0.0.0", opt66, ""},
		"strict 3B, no spaces":    {strict, "0.0.0.0", "0.0.0.0", opt43Dnsmasq, ""},
		"strict 3B, two spaces":   {strict, "0.0.0.0", "0.0.0.0", opt43Two, ""},
		"strict 3B, three spaces": {strict, "0.0.0.0", "0.0.0.0", opt43Three, "10.0.0.3"},
		"options after END":       {rom, "10.0.0.7", "0.0.0.0", "ff" + opt66, ""},
		"pad options":             {rom, "10.0.0.7", "0.0.0.0", "0000" + opt66, "10.0.0.9"},
		"truncated option":        {rom, "10.0.0.7", "0.0.0.0", opt66 + "2b20aabb", "10.0.0.9"},
		"EEPROM: 66 first":        {eeprom, "10.0.0.7", "10.0.0.8", opt60 + opt43Three + opt66, "10.0.0.9"},
		"EEPROM: siaddr":          {eeprom, "0.0.0.0", "10.0.0.8", opt54 + opt60 + opt43Three, "10.0.0.8"},
		"EEPROM: DHCP server":     {eeprom, "0.0.0.0", "0.0.0.0", opt54 + opt60 + opt43Three, "10.0.0.3"},
		"EEPROM: no class":        {eeprom, "0.0.0.0", "10.0.0.8", opt54 + opt43Three, ""},
		"EEPROM: bare text":       {eeprom, "0.0.0.0", "10.0.0.8", opt60 + opt43Bare, ""},
		"EEPROM: router's siaddr": {eeprom, "10.0.0.7", "10.0.0.8", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			n := network{}.merge(offer(t, "10.0.0.3", tc.yiaddr, tc.siaddr, tc.options), tc.knobs)
			got := ""
			if n.server.IsValid() {
				got = n.server.String()
			}
			if got != tc.server {
				t.Errorf("TFTP server %q; want %q", got, tc.server)
			}
			if n.addr.IsValid() != (tc.yiaddr != "0.0.0.0") {
				t.Errorf("own address %v from yiaddr %s", n.addr, tc.yiaddr)
			}
		})
	}
}

func TestNextHop(t *testing.T) {
	a := netip.MustParseAddr
	n := network{addr: a("10.0.0.7"), mask: a("255.255.255.0"), router: a("10.0.0.1"), server: a("10.0.1.9")}
	if got := n.nextHop(true); got != n.router {
		t.Errorf("off its network it asks for %s; want the gateway", got)
	}
	if got := n.nextHop(false); got != n.server {
		t.Errorf("a 3B asks for %s; want the server, it knows no gateway", got)
	}
	n.server = a("10.0.0.9")
	if got := n.nextHop(true); got != n.server {
		t.Errorf("on its network it asks for %s; want the server", got)
	}
}

func FuzzParseOffer(f *testing.F) {
	b := make([]byte, bootpLen)
	b[0], b[2] = bootReply, 6
	b = append(b, cookie...)
	three, _ := hex.DecodeString(opt43Three + opt60 + "ff")
	f.Add(append(b, three...))
	f.Add(idBLOG.discover(Form3B, romXID))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := parseOffer(netip.MustParseAddr("10.0.0.3"), b)
		if err != nil {
			return
		}
		for _, form := range []Form{Form3B, Form3BPlus, FormEEPROM} {
			n := network{}.merge(o, DHCP{Form: form, MenuText: menuText, TFTPFromProxy: true})
			if n.server.IsValid() && !n.server.Is4() {
				t.Fatalf("TFTP server %s", n.server)
			}
		}
	})
}

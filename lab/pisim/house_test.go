package pisim

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// house is a router and a boot server on a segment, in this process: small, obedient, and written from the RFCs.
type house struct {
	Segment
	files map[string]string

	noRouter   bool          // nobody offers addresses
	noMenu     bool          // the boot server's OFFER lacks option 43
	router66   string        // option 66 in the router's OFFER
	wake       bool          // frames after the OFFERs, for the 3B
	proxyDelay time.Duration // before the boot server's OFFER
	noOACK     bool
	twice      byte                  // an opcode that is sent twice
	wrongHost  bool                  // TFTP answers come from the router's address
	sends      int                   // of a packet, at most
	later      func()                // called after a second
	asker      func(MAC, netip.Addr) // called when bootcode.bin is asked for, before it is sent
	timeout    time.Duration

	mu      sync.Mutex
	asked   []string
	leases  map[MAC]netip.Addr
	router  *Host
	server  *Host
	sending map[netip.AddrPort]sending
}

var (
	routerIP = netip.MustParseAddr("10.0.0.1")
	serverIP = netip.MustParseAddr("10.0.0.2")

	everybody = netip.MustParseAddrPort("255.255.255.255:68")
)

// bootFiles is what a server needs to boot a 3B+, with serial prefix ones first.
func bootFiles(kernel int) map[string]string {
	return map[string]string{
		"bootcode.bin": strings.Repeat("b", 52476), "start.elf": strings.Repeat("s", 30000), "fixup.dat": strings.Repeat("f", 7300),
		"config.txt": bookwormConfig, "cmdline.txt": "console=serial0,115200 ip=dhcp\n",
		"bcm2710-rpi-3-b-plus.dtb": strings.Repeat("d", 32000), "bcm2710-rpi-3-b.dtb": "d3", "overlays/overlay_map.dtb": "map", "overlays/vc4-kms-v3d.dtbo": "vc4",
		"kernel8.img": strings.Repeat("k", kernel), "initramfs8": strings.Repeat("i", 14680),
	}
}

func newHouse(t *testing.T, change func(*house)) *house {
	t.Helper()
	h := &house{files: bootFiles(50000), sends: 8, timeout: 30 * time.Millisecond, leases: map[MAC]netip.Addr{}, sending: map[netip.AddrPort]sending{}}
	if change != nil {
		change(h)
	}
	h.router = h.Host(routerIP, MAC{2, 0, 0, 0, 0, 1})
	h.server = h.Host(serverIP, MAC{2, 0, 0, 0, 0, 2})
	t.Cleanup(func() { h.router.Close(); h.server.Close() })
	h.serve(t, h.router, serverPort, h.lease)
	h.serve(t, h.server, serverPort, h.proxy)
	h.serve(t, h.server, tftpPort, h.tftp)
	if h.later != nil {
		time.AfterFunc(time.Second, h.later)
	}
	return h
}

func (h *house) serve(t *testing.T, host *Host, port uint16, handle func(from netip.AddrPort, b []byte)) {
	t.Helper()
	conn, err := host.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			handle(from.(*net.UDPAddr).AddrPort(), append([]byte(nil), b[:n]...))
		}
	}()
}

// reply is an OFFER, or an ACK to a REQUEST.
func reply(b []byte, yiaddr, self netip.Addr, options string) []byte {
	r := append([]byte(nil), b[:bootpLen+4]...)
	y := yiaddr.As4()
	r[0] = bootReply
	copy(r[16:], y[:])
	kind := byte(msgOffer)
	if strings.Contains(string(b[bootpLen:]), "\x35\x01\x03") {
		kind = msgAck
	}
	s := self.As4()
	r = append(r, optType, 1, kind, optServer, 4, s[0], s[1], s[2], s[3], optMask, 4, 255, 255, 255, 0)
	return append(append(r, options...), optEnd)
}

func (h *house) lease(_ netip.AddrPort, b []byte) {
	if h.noRouter {
		return
	}
	mac := MAC(b[28:34])
	h.mu.Lock()
	addr, ok := h.leases[mac]
	if !ok {
		addr = netip.AddrFrom4([4]byte{10, 0, 0, byte(100 + len(h.leases))})
		h.leases[mac] = addr
	}
	h.mu.Unlock()
	options := ""
	if h.router66 != "" {
		options = string([]byte{optTFTPServer, byte(len(h.router66))}) + h.router66
	}
	h.router.SendTo(mac, serverPort, netip.AddrPortFrom(addr, clientPort), reply(b, addr, routerIP, options))
}

func (h *house) proxy(_ netip.AddrPort, b []byte) {
	options := "\x3c\x09PXEClient"
	if !h.noMenu {
		options += "\x2b\x23\x06\x01\x03\x0a\x04\x00PXE\x09\x17\x00\x00\x14Raspberry Pi Boot   \xff"
	}
	answer := func() {
		h.server.SendTo(broadcast, serverPort, everybody, reply(b, netip.IPv4Unspecified(), serverIP, options))
	}
	time.AfterFunc(h.proxyDelay, answer)
	if h.wake {
		for _, after := range []time.Duration{600 * time.Millisecond, 1200 * time.Millisecond} {
			time.AfterFunc(after, func() {
				h.server.SendTo(MAC(b[28:34]), 9, netip.AddrPortFrom(netip.MustParseAddr("255.255.255.255"), 9), []byte("wake up"))
			})
		}
	}
}

// tftp answers a request on a port of its own.
func (h *house) tftp(from netip.AddrPort, b []byte) {
	fields := strings.Split(string(b[2:]), "\x00")
	h.mu.Lock()
	h.asked = append(h.asked, fields[0])
	text, ok := h.files[fields[0]]
	if !ok {
		_, name, _ := strings.Cut(fields[0], "/")
		text, ok = h.files[name]
	}
	h.mu.Unlock()
	if h.asker != nil && fields[0] == "bootcode.bin" {
		h.asker(h.server.way(from.Addr()), from.Addr())
	}
	host := h.server
	if h.wrongHost {
		host = h.router
	}
	conn, err := host.Listen(0)
	if err != nil {
		return
	}
	if !h.admit(from, fields[0], conn) {
		_ = conn.Close()
		return
	}
	go func() {
		defer h.finished(from, conn)
		if !ok {
			_, _ = conn.WriteTo(errorPacket(errNotFound, "File not found"), net.UDPAddrFromAddrPort(from))
			return
		}
		s := sender{conn, from, h}
		s.file(text, fields[2:])
	}()
}

// admit declines a request that was doubled on the way. Each stage begins with the same port, so any other request
// ends what was under way to that port (§2.1).
func (h *house) admit(from netip.AddrPort, name string, conn net.PacketConn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.sending[from]
	if old.name == name && time.Since(old.began) < second {
		return false
	}
	if old.conn != nil {
		_ = old.conn.Close()
	}
	h.sending[from] = sending{conn, name, time.Now()}
	return true
}

func (h *house) finished(to netip.AddrPort, conn net.PacketConn) {
	_ = conn.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sending[to].conn == conn {
		delete(h.sending, to)
	}
}

// sending is a transfer under way to a client port.
type sending struct {
	conn  net.PacketConn
	name  string
	began time.Time
}

// sender is one transfer of the house's server.
type sender struct {
	conn net.PacketConn
	to   netip.AddrPort
	h    *house
}

func (s sender) file(text string, options []string) {
	chunk := defaultBlock
	oack := []byte{0, opOACK}
	for i := 0; i+1 < len(options); i += 2 {
		switch options[i] {
		case "tsize":
			oack = append(oack, "tsize\x00"+strconv.Itoa(len(text))+"\x00"...)
		case "blksize":
			chunk, _ = strconv.Atoi(options[i+1])
			oack = append(oack, "blksize\x00"+options[i+1]+"\x00"...)
		}
	}
	if len(oack) > 2 && !s.h.noOACK {
		if !s.send(oack, 0) {
			return
		}
	} else {
		chunk = defaultBlock
	}
	for n := 1; ; n++ {
		part := text[:min(len(text), chunk)]
		text = text[len(part):]
		p := binary.BigEndian.AppendUint16([]byte{0, opDATA}, uint16(n))
		if !s.send(append(p, part...), uint16(n)) || len(part) < chunk {
			return
		}
	}
}

// send sends a packet until it is acknowledged.
func (s sender) send(p []byte, n uint16) bool {
	b := make([]byte, 600)
	for range s.h.sends {
		copies := 1
		if p[1] == s.h.twice {
			copies = 2
		}
		for range copies {
			_, _ = s.conn.WriteTo(p, net.UDPAddrFromAddrPort(s.to))
		}
		_ = s.conn.SetReadDeadline(time.Now().Add(s.h.timeout))
		for {
			size, _, err := s.conn.ReadFrom(b)
			if err != nil {
				break
			}
			if size >= 4 && b[1] == opERROR {
				return false
			}
			if size >= 4 && b[1] == opACK && binary.BigEndian.Uint16(b[2:]) == n {
				return true
			}
		}
	}
	return false
}

func (h *house) requests() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.asked...)
}

// without is bootFiles without some names.
func without(names ...string) map[string]string {
	files := maps.Clone(bootFiles(50000))
	for _, n := range names {
		delete(files, n)
	}
	return files
}

func printTimeline(t *testing.T, r Report) {
	t.Helper()
	for _, e := range r.Timeline {
		t.Log(e)
	}
	t.Log(fmt.Sprint(r))
}

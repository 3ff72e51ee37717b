package house

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"bramble/lab"
	"bramble/lab/pisim"
)

// datagram is a UDP datagram on the board's cable.
type datagram struct {
	from, to netip.AddrPort
	payload  []byte
}

// ears hears what passes over a host's eth0, in both directions.
type ears struct {
	mu    sync.Mutex
	heard []datagram
}

func listen(t *testing.T, host *lab.Host) *ears {
	t.Helper()
	var conn *packet.Conn
	err := host.Do(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err == nil {
			conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	e := &ears{}
	go func() {
		for b := make([]byte, 2048); ; {
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if d, ok := parse(bytes.Clone(b[:n])); ok {
				e.mu.Lock()
				e.heard = append(e.heard, d)
				e.mu.Unlock()
			}
		}
	}()
	return e
}

// parse takes an Ethernet frame with a UDP datagram over IPv4 apart.
func parse(b []byte) (d datagram, ok bool) {
	const ether, ip, udp = 14, 20, 8
	be := binary.BigEndian
	if len(b) < ether+ip+udp || be.Uint16(b[12:]) != unix.ETH_P_IP || b[ether] != 0x45 || b[ether+9] != unix.IPPROTO_UDP {
		return d, false
	}
	h, u := b[ether:], b[ether+ip:]
	size := int(be.Uint16(u[4:]))
	if size < udp || size > len(u) {
		return d, false
	}
	addr := func(at int) netip.Addr { return netip.AddrFrom4([4]byte(h[at:])) }
	return datagram{netip.AddrPortFrom(addr(12), be.Uint16(u)), netip.AddrPortFrom(addr(16), be.Uint16(u[2:])), u[udp:size]}, true
}

// request is what a board asks, and what becomes of it.
type request struct {
	asks    string
	port    uint16 // the board's, of a transfer
	answers []string
	blocks  map[uint16]bool
	bytes   int
	acks    map[uint16]bool
}

// conversation is a board's boot, one request after the other with its answers below it. Blocks of files and their
// acknowledgements are counted; what was sent again is left out, and so are ARP and what other machines say.
func (e *ears) conversation(r pisim.Report) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	names := strings.NewReplacer(r.Address, "BOARD", r.Server, "BRAMBLE", "10.77.0.1", "ROUTER")
	var all []*request
	for _, d := range e.heard {
		switch {
		case d.to.Port() == 67 || d.to.Port() == 68:
			all = discovered(all, d, r.MAC)
		case d.to.Port() == 69 && d.from.Addr().String() == r.Address:
			all = asked(all, d)
		case d.from.Addr().String() == r.Address:
			follow(all, d.from.Port(), d.payload)
		case d.to.Addr().String() == r.Address:
			follow(all, d.to.Port(), d.payload)
		}
	}
	var text strings.Builder
	for _, q := range all {
		fmt.Fprintln(&text, names.Replace(q.asks))
		for _, answer := range q.said() {
			fmt.Fprintln(&text, "   ", names.Replace(answer))
		}
	}
	return text.String()
}

// discovered adds a DISCOVER, or an OFFER to the one before. OFFERs are sorted: who is first is chance.
func discovered(all []*request, d datagram, mac pisim.MAC) []*request {
	m, err := dhcpv4.FromBytes(d.payload)
	if err != nil || !bytes.Equal(m.ClientHWAddr, mac[:]) {
		return all
	}
	line := fmt.Sprintf("%s > %s  %s xid %s", d.from.Addr(), d.to.Addr(), m.MessageType(), m.TransactionID)
	if !m.YourIPAddr.IsUnspecified() {
		line += " yiaddr " + m.YourIPAddr.String()
	}
	if !m.ServerIPAddr.IsUnspecified() {
		line += " siaddr " + m.ServerIPAddr.String()
	}
	for _, code := range []uint8{54, 60, 66, 93, 94, 97, 55, 43} {
		if v := m.Options.Get(dhcpv4.GenericOptionCode(code)); v != nil {
			line += fmt.Sprintf(" %d=%s", code, option(code, v))
		}
	}
	if m.OpCode == dhcpv4.OpcodeBootRequest {
		return append(all, &request{asks: line})
	}
	if len(all) > 0 {
		q := all[len(all)-1]
		q.answers = append(q.answers, line)
		slices.Sort(q.answers)
	}
	return all
}

func option(code uint8, v []byte) string {
	switch code {
	case 54:
		return net.IP(v).String()
	case 60, 66:
		return string(v)
	case 55:
		return strings.ReplaceAll(strings.Trim(fmt.Sprint(v), "[]"), " ", ",")
	}
	return hex.EncodeToString(v)
}

// asked adds an RRQ.
func asked(all []*request, d datagram) []*request {
	line := fmt.Sprintf("%s:%d > %s  RRQ %s", d.from.Addr(), d.from.Port(), d.to.Addr(), words(d.payload[2:]))
	if i := of(all, d.from.Port()); i >= 0 && all[i].asks == line && len(all[i].said()) == 0 {
		return all // asked again
	}
	return append(all, &request{asks: line, port: d.from.Port(), blocks: map[uint16]bool{}, acks: map[uint16]bool{}})
}

func words(b []byte) string {
	return strings.Join(strings.Split(strings.TrimRight(string(b), "\x00"), "\x00"), " ")
}

// of is the last request from a port.
func of(all []*request, port uint16) int {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].port == port {
			return i
		}
	}
	return -1
}

// follow adds a packet of a transfer.
func follow(all []*request, port uint16, p []byte) {
	const data, ack, fault, oack = 3, 4, 5, 6
	i := of(all, port)
	if i < 0 || len(p) < 4 {
		return
	}
	q, n := all[i], binary.BigEndian.Uint16(p[2:])
	switch p[1] {
	case data:
		if !q.blocks[n] {
			q.blocks[n] = true
			q.bytes += len(p) - 4
		}
	case ack:
		q.acks[n] = true
	case fault:
		q.say(fmt.Sprintf("ERROR %d %q", n, words(p[4:])))
	case oack:
		q.say("OACK " + words(p[2:]))
	}
}

func (q *request) say(line string) {
	if !slices.Contains(q.answers, line) {
		q.answers = append(q.answers, line)
	}
}

// said are the answers. What a file's blocks come to is of interest only if the board wanted them.
func (q *request) said() []string {
	if q.port == 0 || len(q.answers) == 0 && len(q.blocks) == 0 {
		return q.answers
	}
	says := slices.Clone(q.answers)
	if q.acks[0] {
		says = slices.Insert(says, 1, "ACK 0")
	}
	if len(says) < 3 && len(q.blocks) > 0 {
		says = append(says, fmt.Sprintf("%d blocks DATA, %d bytes, %d ACKs", len(q.blocks), q.bytes, len(q.blocks)-q.unacknowledged()))
	}
	return []string{strings.Join(says, "; ")}
}

func (q *request) unacknowledged() (n int) {
	for block := range q.blocks {
		if !q.acks[block] {
			n++
		}
	}
	return n
}

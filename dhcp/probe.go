package dhcp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"bramble/node"
)

// probeWait is how long a probe listens. dnsmasq pings an address for three seconds before it offers it.
const probeWait = 5 * time.Second

// probeClass is option 77 of a probe, so that one appliance finds another one.
const probeClass = "bramble probe"

// Heard is one server's OFFER to a probe.
type Heard struct {
	Server  netip.Addr // option 54, or the packet's source without one
	MAC     node.MAC   // the packet's source
	Address netip.Addr // yiaddr; invalid: this server gives out no addresses
	TFTP    string     // option 66
	Next    netip.Addr // siaddr
	PXE     bool       // option 60 is PXEClient
	Menu    []byte     // option 43
}

// Probe asks, as a Raspberry Pi would, who serves DHCP on an interface's segment, and returns the OFFERs of all who
// answer within wait (zero: 5 s). It has to ask: a router's OFFER to a board is unicast, and a switch hides it. It
// uses a packet socket and so gets along with a DHCP client on this machine. No lease is taken: it sends no REQUEST.
func Probe(ctx context.Context, ifname string, wait time.Duration) ([]Heard, error) {
	if wait == 0 {
		wait = probeWait
	}
	filter, err := bpf.Assemble(toClientPort)
	if err != nil {
		return nil, err
	}
	c, ifi, err := tap(ifname, unix.ETH_P_IP, &packet.Config{Filter: filter})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if len(ifi.HardwareAddr) != len(node.MAC{}) {
		return nil, fmt.Errorf("%s is no ethernet interface", ifname)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	self := node.MAC(ifi.HardwareAddr)
	var xid dhcpv4.TransactionID
	if _, err := rand.Read(xid[:]); err != nil {
		return nil, err
	}
	f := frame{
		src: self, dst: broadcastMAC,
		from: netip.AddrPortFrom(netip.IPv4Unspecified(), clientPort), to: netip.AddrPortFrom(limitedBroadcast, serverPort),
	}
	ears := ears{xid: xid, self: self, found: map[netip.Addr]Heard{}}
	const tries = 2 // a lost packet must not look like a missing router
	for i := range tries {
		if err := f.send(c, probePacket(xid, self)); err != nil {
			return nil, err
		}
		if err := ears.listen(ctx, c, wait*time.Duration(i+1)/tries-wait*time.Duration(i)/tries); err != nil {
			return nil, err
		}
	}
	return ears.offers, ctx.Err()
}

// probePacket is the 3B+ ROM's DISCOVER except for transaction id, option 97 and the broadcast flag.
func probePacket(xid dhcpv4.TransactionID, self node.MAC) []byte {
	m := message(Query{XID: xid, MAC: self, Flags: broadcastFlag}, dhcpv4.MessageTypeDiscover, netip.Addr{})
	m.OpCode = 1
	m.Options.Del(dhcpv4.OptionServerIdentifier)
	for code, value := range map[uint8][]byte{
		55: {43, 60, 67, 128, 129, 130, 131, 132, 133, 134, 135, 66, 1, 3},
		60: []byte(piClass),
		77: []byte(probeClass),
		93: {0, 0},
		94: {1, 2, 1},
	} {
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), value))
	}
	return m.ToBytes()
}

// toClientPort lets UDP datagrams to port 68 pass: an appliance that serves roots has better things to copy.
var toClientPort = []bpf.Instruction{
	bpf.LoadAbsolute{Off: etherLen + 9, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 4},
	bpf.LoadMemShift{Off: etherLen},
	bpf.LoadIndirect{Off: etherLen + 2, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: clientPort, SkipTrue: 1},
	bpf.RetConstant{Val: 4096},
	bpf.RetConstant{Val: 0},
}

// ears collects OFFERs, one of each server.
type ears struct {
	xid    dhcpv4.TransactionID
	self   node.MAC
	offers []Heard
	found  map[netip.Addr]Heard
}

const maxServers = 16 // a probe's answer is bounded, whoever floods it

func (e *ears) listen(ctx context.Context, c *packet.Conn, wait time.Duration) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	b := make([]byte, 4096)
	for {
		n, _, err := c.ReadFrom(b)
		if isTimeout(err) {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("cannot listen for OFFERs: %w", err)
		}
		h, err := parseOffer(b[:n], e.xid)
		if err != nil || h.MAC == e.self || len(e.found) >= maxServers {
			continue
		}
		if _, again := e.found[h.Server]; !again {
			e.offers = append(e.offers, h)
			e.found[h.Server] = h
		}
	}
}

// parseOffer reads a frame as an OFFER to the probe with this transaction id.
func parseOffer(b []byte, xid dhcpv4.TransactionID) (Heard, error) {
	f, payload, err := parseFrame(b)
	if err != nil {
		return Heard{}, err
	}
	m, err := dhcpv4.FromBytes(payload)
	if err != nil {
		return Heard{}, err
	}
	if m.MessageType() != dhcpv4.MessageTypeOffer || m.TransactionID != xid {
		return Heard{}, errors.New("no OFFER to this probe")
	}
	server := addr(net.IP(m.Options.Get(dhcpv4.OptionServerIdentifier)))
	if !server.IsValid() {
		server = f.from.Addr()
	}
	return Heard{
		Server: server, MAC: f.src, Address: addr(m.YourIPAddr), TFTP: m.TFTPServerName(), Next: addr(m.ServerIPAddr),
		PXE: m.ClassIdentifier() == "PXEClient", Menu: m.Options.Get(dhcpv4.OptionVendorSpecificInformation),
	}, nil
}

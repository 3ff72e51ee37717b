package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// A switch that speaks the old spanning tree protocol drops a port's first frames for two forward delays after power
// came on. A boot ROM has given up by then (pi-netboot.md section 5, case 2).

// stpGroup is where switches send their BPDUs (IEEE 802.1D).
var stpGroup = net.HardwareAddr{0x01, 0x80, 0xc2, 0, 0, 0}

var errNoBPDU = errors.New("not a BPDU of the old spanning tree protocol")

// parseBPDU reads the forward delay out of a configuration BPDU. RSTP's, of version 2 and above, are refused: such
// switches let a port with one machine through at once, if the port is set to be an edge port.
func parseBPDU(b []byte) (forward time.Duration, err error) {
	const llc, fields = 3, 35 // logical link header 42 42 03, then the BPDU
	if len(b) < etherLen+llc+fields || [3]byte(b[etherLen:]) != [3]byte{0x42, 0x42, 3} {
		return 0, errNoBPDU
	}
	p := b[etherLen+llc:]
	if binary.BigEndian.Uint16(p) != 0 || p[2] != 0 || p[3] != 0 { // protocol, version, type
		return 0, errNoBPDU
	}
	return time.Duration(binary.BigEndian.Uint16(p[33:])) * time.Second / 256, nil
}

// slow is the forward delay, twice which a boot ROM cannot wait.
const slow = 12 * time.Second

// spanningTree listens for a switch's BPDUs (one every two seconds) and says what they mean for boards.
func spanningTree(ctx context.Context, ifname string, wait time.Duration) []Finding {
	c, _, err := tap(ifname, unix.ETH_P_802_2, &packet.Config{})
	if err != nil {
		return nil // Probe has said why
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if c.JoinGroup(stpGroup) != nil || c.SetReadDeadline(time.Now().Add(wait)) != nil {
		return nil
	}
	b := make([]byte, 128)
	for {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return nil
		}
		if forward, err := parseBPDU(b[:n]); err == nil {
			return stpFinding(ifname, forward)
		}
	}
}

func stpFinding(ifname string, forward time.Duration) []Finding {
	if forward < slow {
		return nil
	}
	return []Finding{wrong("The switch on %s speaks the old spanning tree protocol and keeps a port shut for %d s after a board's power comes on; "+
		"a boot ROM gives up after 25 s. Set the boards' ports to PortFast (edge port), or the switch to RSTP.", ifname, int((2 * forward).Seconds()))}
}

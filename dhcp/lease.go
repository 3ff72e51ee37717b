package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"time"

	"bramble/node"
)

// lease is what a table knows of one address.
type lease struct {
	Addr  netip.Addr `json:"addr"`
	MAC   node.MAC   `json:"mac"`   // the zero MAC: somebody without a lease uses the address
	Until time.Time  `json:"until"` // before that it is MAC's alone; later it is MAC's if nobody needs it more
}

// table is the leases of a range: at most one for each of its addresses and one for each client, so its size is
// bounded by the range whatever strangers send. Clients are told apart by MAC alone, so that boot ROM, stage 1 and
// Linux of a board, with three ideas of a client identifier, get one address. Not safe for concurrent use.
type table struct {
	first, last uint32
	byAddr      map[netip.Addr]lease
	byMAC       map[node.MAC]netip.Addr
}

// maxRange bounds a range and with it the work for one packet.
const maxRange = 4096

func newTable(first, last netip.Addr) (*table, error) {
	if !first.Is4() || !last.Is4() {
		return nil, fmt.Errorf("the range %s-%s is not two IPv4 addresses; write it like 10.0.0.100-10.0.0.200", first, last)
	}
	t := &table{first: number(first), last: number(last), byAddr: map[netip.Addr]lease{}, byMAC: map[node.MAC]netip.Addr{}}
	if t.last < t.first {
		return nil, fmt.Errorf("the range %s-%s ends before it begins", first, last)
	}
	if t.last-t.first >= maxRange {
		return nil, fmt.Errorf("the range %s-%s is too large; it can have %d addresses at the most", first, last, maxRange)
	}
	return t, nil
}

func number(a netip.Addr) uint32 { b := a.As4(); return binary.BigEndian.Uint32(b[:]) }

func numbered(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

func (t *table) contains(a netip.Addr) bool {
	return a.Is4() && t.first <= number(a) && number(a) <= t.last
}

// of returns a client's lease, also one that has run out.
func (t *table) of(mac node.MAC) (lease, bool) {
	a, ok := t.byMAC[mac]
	return t.byAddr[a], ok
}

// put sets what is known of an address. A client's other address becomes free.
func (t *table) put(l lease) {
	t.drop(t.byAddr[l.Addr])
	if old, ok := t.of(l.MAC); ok {
		t.drop(old)
	}
	t.byAddr[l.Addr] = l
	if !l.MAC.IsZero() {
		t.byMAC[l.MAC] = l.Addr
	}
}

func (t *table) drop(l lease) {
	delete(t.byAddr, l.Addr)
	delete(t.byMAC, l.MAC)
}

// free reports whether mac may have an address now.
func (t *table) free(a netip.Addr, mac node.MAC, net netip.Prefix, now time.Time) bool {
	if !t.contains(a) || !usable(a, net) {
		return false
	}
	l, taken := t.byAddr[a]
	return !taken || l.MAC == mac || !l.Until.After(now)
}

// usable keeps the network's own addresses and the server's out of a range.
func usable(a netip.Addr, net netip.Prefix) bool {
	host := ^uint32(0) >> net.Bits()
	return net.Contains(a) && a != net.Addr() && (net.Bits() > 30 || number(a)&host != 0 && number(a)&host != host)
}

var errExhausted = errors.New("all addresses of the range are taken")

// choose finds an address for a client: the one it has or had, the one it wishes, the one that its MAC leads to
// (so that boards keep theirs even if the lease file is lost), or the one unused for the longest time.
func (t *table) choose(mac node.MAC, wish netip.Addr, net netip.Prefix, now time.Time) (netip.Addr, error) {
	if l, ok := t.of(mac); ok && t.free(l.Addr, mac, net, now) {
		return l.Addr, nil
	}
	if t.free(wish, mac, net, now) {
		return wish, nil
	}
	h := fnv.New32a()
	h.Write(mac[:])
	size := t.last - t.first + 1
	start := h.Sum32() % size
	var oldest lease
	for i := range size {
		a := numbered(t.first + (start+i)%size)
		if !t.free(a, mac, net, now) {
			continue
		}
		l, had := t.byAddr[a]
		if !had {
			return a, nil
		}
		if !oldest.Addr.IsValid() || l.Until.Before(oldest.Until) {
			oldest = l
		}
	}
	if !oldest.Addr.IsValid() {
		return netip.Addr{}, fmt.Errorf("%w: %s gets none of the %d from %s to %s; give --range more addresses",
			errExhausted, mac, size, numbered(t.first), numbered(t.last))
	}
	return oldest.Addr, nil
}

package dhcp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"bramble/node"
)

// stranger makes packets that are not for us: laptops, PXE PCs, boards that run Linux, and damaged packets.
func stranger(r *rand.Rand) []byte {
	mac := node.MAC{0x00, 0x1b, byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))}.String()
	if r.IntN(4) == 0 {
		mac = "b8:27:eb" + mac[8:]
	}
	options := []string{
		discover + "370401031c06",
		asRouter + option(54, "10.0.0.1") + option(50, "10.0.0.77"),
		"350107", "350104", "350108", "350102", "350105",
		discover + sorted55 + arch0 + undi + guidPC + class60,
		discover + arch0 + guidZero + class60,
		discover + "5d020007" + guidPC + "3c20505845436c69656e743a417263683a30303030373a554e44493a303033303136",
		discover + "3c0c756468637020312e33362e31" + "0c03666f6f",
		discover + guidPi4, // no option 60 in a DISCOVER
		asRouter + option(54, "10.0.0.1") + guidSerial + class60,             // takes the router's offer
		"3c20505845436c69656e743a417263683a30303030303a554e44493a3030323030", // cut off
	}[r.IntN(14)]
	xid := r.Uint32()
	b := request(xid, mac, cookie+options+end)
	switch r.IntN(6) {
	case 0: // damaged anywhere but where a boot ROM's signs are made
		board := discover3BPlus()
		binary.BigEndian.PutUint32(board[4:], xid|1)
		binary.BigEndian.PutUint32(board[bytes.LastIndex(board, []byte{60, 32})+20:], r.Uint32()|0x80000000)
		b = board
	case 1:
		b = b[:r.IntN(len(b))]
	case 2:
		b[r.IntN(4)] ^= byte(1 + r.IntN(255))
	case 3:
		b = append(b, make([]byte, r.IntN(300))...)
	}
	return b
}

// A million packets that are not for us: no answer, no growth of memory. BRAMBLE_STRANGERS has more of them, and
// another seed samples others.
func TestStrangersCostNothing(t *testing.T) {
	count, seed := 1_000_000, uint64(1)
	if s := os.Getenv("BRAMBLE_STRANGERS"); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("%d packets, seed %d", count, seed)
	r := rand.New(rand.NewPCG(seed, 2))
	s, w := newServer(t.Output()), &fakeWire{net: netip.MustParsePrefix("10.0.0.2/24")}
	packets := make([][]byte, 20_000)
	for i := range packets {
		packets[i] = stranger(r)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range count {
		p := packets[i%len(packets)]
		if i%len(packets) == 0 && i > 0 { // every round differs
			for _, p := range packets {
				if len(p) > 8 {
					binary.BigEndian.PutUint32(p[4:], r.Uint32()|1)
				}
			}
		}
		s.handle(w, p)
		if sent := w.take(); sent != nil {
			t.Fatalf("packet %d of seed %d was answered: %x", i, seed, p)
		}
	}
	if after := heap(); after > before+1<<20 {
		t.Errorf("memory grew from %d to %d bytes", before, after)
	}
	runtime.KeepAlive(packets)
}

// In authoritative mode strangers get addresses, but only as many as the range has.
func TestStrangersAreBoundedByTheRange(t *testing.T) {
	w := newWorld(t, "10.0.0.100", "10.0.0.149")
	for i := range 5000 {
		mac := node.MAC{0, 0x1b, 0x21, 0, byte(i >> 8), byte(i)}
		w.says(laptop(mac.String(), discover))
	}
	if n, m := len(w.Authority.table.byAddr), len(w.Authority.table.byMAC); n != 50 || m != 50 {
		t.Errorf("the table has %d addresses and %d clients; want 50 and 50", n, m)
	}
}

func TestServerIgnoresItself(t *testing.T) {
	s, w := newServer(t.Output()), &fakeWire{net: netip.MustParsePrefix("10.0.0.2/24")}
	s.own = []node.MAC{mustMAC("b8:27:eb:69:20:2e")}
	s.handle(w, discover3BPlus())
	if sent := w.take(); sent != nil {
		t.Errorf("the server answered its own interface: %+v", sent)
	}
	s.own = nil
	s.handle(w, discover3BPlus())
	if sent := w.take(); len(sent) != 1 {
		t.Errorf("%d answers; want 1", len(sent))
	}
}

func TestServerWithoutAnAddress(t *testing.T) {
	s, w := newServer(t.Output()), &fakeWire{err: errors.New("eth0 has no IPv4 address")}
	s.handle(w, discover3BPlus())
	if sent := w.take(); sent != nil {
		t.Errorf("the server answered without an address: %+v", sent)
	}
}

func TestRelayedBoard(t *testing.T) {
	s, w := newServer(t.Output()), &fakeWire{net: netip.MustParsePrefix("10.0.0.2/24")}
	b := discover3BPlus()
	copy(b[24:], []byte{10, 0, 7, 1})
	s.handle(w, b)
	if sent := w.take(); len(sent) != 1 || sent[0].to.String() != "10.0.7.1:67" {
		t.Errorf("got %+v; want one answer to the relay", sent)
	}
}

// A flood of 3B DISCOVERs holds no more than so many answers back.
func TestPendingIsBounded(t *testing.T) {
	s, w := newServer(t.Output()), &fakeWire{net: netip.MustParsePrefix("10.0.0.2/24")}
	for i := range 1000 {
		mac := node.MAC{0xb8, 0x27, 0xeb, 0, byte(i >> 8), byte(i)}
		s.handle(w, request(0x26f30339, mac.String(), options3B))
	}
	if n := s.pending.Load(); n > maxPending {
		t.Errorf("%d frames wait; want %d at the most", n, maxPending)
	}
	for end := time.Now().Add(3 * time.Second); s.pending.Load() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d frames still wait", s.pending.Load())
		}
	}
	if n := len(w.take()); n == 0 || n > maxPending {
		t.Errorf("%d frames were sent; want some, and %d at the most", n, maxPending)
	}
}

func TestListenRefuses(t *testing.T) {
	for want, names := range map[string][]string{
		"name one":      nil,
		"ip link shows": {"nosuch0"},
		"no ethernet":   {"lo"},
	} {
		s := newServer(t.Output())
		s.Interfaces = names
		if err := s.Listen(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Listen on %v says %v; want %q", names, err, want)
		}
	}
}

package pisim

import (
	"bytes"
	"crypto/sha256"
	"net/netip"
	"strings"
	"testing"
)

func newTestTransfer(k TFTP, probe bool) *transfer {
	return &transfer{knobs: k, name: "f", probe: probe, size: -1, chunk: defaultBlock, sum: sha256.New(), data: &bytes.Buffer{}}
}

func dataPacket(n int, size int) string {
	return string([]byte{0, opDATA, byte(n >> 8), byte(n)}) + strings.Repeat("x", size)
}

func TestTransfer(t *testing.T) {
	const (
		oack  = "\x00\x06tsize\x00600\x00"
		oackB = "\x00\x06tsize\x00600\x00blksize\x001024\x00"
		gone  = "\x00\x05\x00\x01File not found\x00"
		early = "\x00\x05\x00\x00Early terminate\x00"
		ack0  = "\x00\x04\x00\x00"
		ack1  = "\x00\x04\x00\x01"
		ack2  = "\x00\x04\x00\x02"
	)
	rom := TFTP{}
	bootcode := TFTP{TSize: true, DupOACKBreaks: true}
	start := TFTP{TSize: true, BlockSize: 1468, NeedsOACK: true, DupDataBreaks: true}
	rfc := TFTP{TSize: true, RFC1350: true}
	d := dataPacket
	for name, tc := range map[string]struct {
		knobs   TFTP
		probe   bool
		packets []string // alternately received and expected in answer
		result  Result
		bytes   int64
		dups    int
	}{
		"ROM reads":                  {rom, false, []string{d(1, 512), ack1, d(2, 88), ack2}, Read, 600, 0},
		"multiple of the block size": {rom, false, []string{d(1, 512), ack1, d(2, 0), ack2}, Read, 512, 0},
		"not there":                  {rom, false, []string{gone, ""}, Absent, 0, 0},
		"ROM ignores an OACK":        {rom, false, []string{oack, "", d(1, 10), ack1}, Read, 10, 0},
		"block out of order":         {rom, false, []string{d(2, 512), "", d(1, 512), ack1}, Pending, 512, 0},
		"bootcode reads":             {bootcode, false, []string{oack, ack0, d(1, 512), ack1, d(2, 88), ack2}, Read, 600, 0},
		"bootcode, no OACK":          {bootcode, false, []string{d(1, 512), ack1, d(2, 88), ack2}, Read, 600, 0},
		"bootcode probes":            {bootcode, true, []string{oack, ack0}, Exists, 0, 0},
		"bootcode probes, no OACK":   {bootcode, true, []string{d(1, 512), early}, Exists, 0, 0},
		"bootcode, OACK twice":       {bootcode, false, []string{oack, ack0, oack, ""}, Confused, 0, 1},
		"bootcode, DATA twice":       {bootcode, false, []string{oack, ack0, d(1, 512), ack1, d(1, 512), "", d(2, 88), ack2}, Read, 600, 1},
		"start.elf reads":            {start, false, []string{oackB, ack0, d(1, 600), ack1}, Read, 600, 0},
		"start.elf, no OACK":         {start, false, []string{d(1, 512), early}, NoOACK, 0, 0},
		"start.elf, no tsize":        {start, false, []string{"\x00\x06blksize\x001024\x00", early}, NoOACK, 0, 0},
		"start.elf, blksize refused": {start, false, []string{oack, ack0, d(1, 512), ack1, d(2, 88), ack2}, Read, 600, 0},
		"start.elf, blksize raised":  {start, false, []string{"\x00\x06tsize\x005\x00blksize\x004096\x00", ack0, d(1, 5), ack1}, Read, 5, 0},
		"start.elf, DATA twice":      {start, false, []string{oack, ack0, d(1, 512), ack1, d(1, 512), ""}, Confused, 512, 1},
		"RFC 1350, OACK twice":       {rfc, false, []string{oack, ack0, oack, ack0}, Pending, 0, 1},
		"RFC 1350, DATA twice":       {rfc, false, []string{oack, ack0, d(1, 512), ack1, d(1, 512), ack1, d(2, 88), ack2, d(2, 88), ack2}, Read, 600, 2},
		"block larger than agreed":   {rom, false, []string{d(1, 513), ""}, Pending, 0, 0},
		"cut short":                  {rom, false, []string{"\x00\x03", "", "", "", "\x00", ""}, Pending, 0, 0},
		"error in the middle":        {rom, false, []string{d(1, 512), ack1, gone, ""}, Absent, 512, 0},
		"an unknown opcode":          {rom, false, []string{"\x00\x09\x00\x00", ""}, Pending, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTestTransfer(tc.knobs, tc.probe)
			for i := 0; i < len(tc.packets); i += 2 {
				reply, _ := tr.receive(netip.MustParseAddrPort("10.0.0.1:4000"), []byte(tc.packets[i]))
				if string(reply) != tc.packets[i+1] {
					t.Fatalf("packet %d %.20q is answered with %q; want %q", i/2+1, tc.packets[i], reply, tc.packets[i+1])
				}
			}
			if tr.result != tc.result || tr.bytes != tc.bytes || tr.dups != tc.dups {
				t.Errorf("result %q, %d bytes, %d duplicates; want %q, %d, %d", tr.result, tr.bytes, tr.dups, tc.result, tc.bytes, tc.dups)
			}
		})
	}
}

func TestTransferKeepsToOneServerPort(t *testing.T) {
	one, two := netip.MustParseAddrPort("10.0.0.1:4000"), netip.MustParseAddrPort("10.0.0.1:4001")
	for _, rfc := range []bool{false, true} {
		tr := newTestTransfer(TFTP{RFC1350: rfc}, false)
		tr.receive(one, []byte(dataPacket(1, 512)))
		reply, progress := tr.receive(two, []byte(dataPacket(2, 10)))
		if progress || tr.result != Pending {
			t.Errorf("RFC1350 %v: a block from another port was taken", rfc)
		}
		if (reply != nil) != rfc {
			t.Errorf("RFC1350 %v: another port is answered with %q", rfc, reply)
		}
	}
}

func TestTransferBeyond65535(t *testing.T) {
	for _, wraps := range []bool{false, true} {
		tr := newTestTransfer(TFTP{Wraps: wraps}, false)
		from := netip.MustParseAddrPort("10.0.0.1:4000")
		block := []byte(dataPacket(0, 512))
		for n := 1; n <= 65536 && tr.result == Pending; n++ {
			block[2], block[3] = byte(n>>8), byte(n)
			tr.receive(from, block)
		}
		want := map[bool]Result{false: TooBig, true: Pending}[wraps]
		if tr.result != want {
			t.Errorf("wraps %v: after 65536 blocks the result is %q; want %q", wraps, tr.result, want)
		}
	}
}

func FuzzTransfer(f *testing.F) {
	f.Add([]byte("\x00\x06tsize\x00600\x00blksize\x001024\x00"), []byte(dataPacket(1, 8)), true, false)
	f.Add([]byte("\x00\x05\x00\x01gone"), []byte("\x00\x05\x00\x00"), false, true)
	f.Fuzz(func(t *testing.T, one, two []byte, needsOACK, probe bool) {
		tr := newTestTransfer(TFTP{TSize: true, BlockSize: 1468, NeedsOACK: needsOACK, RFC1350: !needsOACK}, probe)
		from := netip.MustParseAddrPort("10.0.0.1:4000")
		for _, p := range [][]byte{one, two, one} {
			reply, progress := tr.receive(from, p)
			if len(reply) > 0 && len(reply) < 4 {
				t.Fatalf("a reply of %d bytes", len(reply))
			}
			if progress && reply == nil && tr.result == Pending {
				t.Fatalf("%q brought something new but was not answered", p)
			}
		}
		if tr.chunk > 1468 || tr.chunk < 8 {
			t.Fatalf("block size %d in force", tr.chunk)
		}
	})
}

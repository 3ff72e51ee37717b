package pisim

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash"
	"net/netip"
	"strconv"
)

const (
	opRRQ, opDATA, opACK, opERROR, opOACK = 1, 3, 4, 5, 6

	errNotDefined, errNotFound, errUnknownTID = 0, 1, 5

	defaultBlock   = 512
	earlyTerminate = "Early terminate"
	maxBlock       = 65535
)

// Result is how a request ended.
type Result string

// Results of a request. All but Read and Exists mean "not there" to the firmware.
const (
	Pending  Result = ""
	Read     Result = "read"
	Exists   Result = "exists"   // a probe learned that the file is there
	Absent   Result = "absent"   // the server said so
	GaveUp   Result = "gave up"  // nothing new arrived in time
	NoOACK   Result = "no OACK"  // the server ignored the options, so the firmware ignores the file
	Confused Result = "confused" // a duplicate packet broke the transfer
	TooBig   Result = "too big"  // more blocks than the firmware can count
)

// transfer is one request from RRQ to its end: packets in, packets out, no socket and no clock.
type transfer struct {
	knobs TFTP
	name  string
	probe bool // only ask whether it is there

	server netip.AddrPort // the server's transfer id, once known
	block  int            // last block received
	size   int64          // tsize from the OACK; -1 unknown
	chunk  int            // block size in force
	oack   bool
	bytes  int64
	dups   int // duplicates of OACK or DATA seen
	sum    hash.Hash
	data   *bytes.Buffer // nil: do not keep
	result Result
	said   string // text of the server's ERROR
}

// request is the RRQ.
func (t *transfer) request() []byte {
	b := append([]byte{0, opRRQ}, t.name...)
	b = append(b, "\x00octet\x00"...)
	if t.knobs.TSize {
		b = append(b, "tsize\x000\x00"...)
	}
	if t.knobs.BlockSize != 0 {
		b = append(append(append(b, "blksize\x00"...), strconv.Itoa(t.knobs.BlockSize)...), 0)
	}
	return b
}

// receive takes a packet for this transfer's port. reply, if not nil, goes back to where the packet came from.
// progress tells whether the packet brought anything new.
func (t *transfer) receive(from netip.AddrPort, p []byte) (reply []byte, progress bool) {
	if len(p) < 4 {
		return nil, false
	}
	if t.server.IsValid() && from != t.server {
		if t.knobs.RFC1350 && p[1] != opERROR {
			return errorPacket(errUnknownTID, "Unknown transfer ID"), false
		}
		return nil, false
	}
	switch binary.BigEndian.Uint16(p) {
	case opERROR:
		return t.receiveError(p)
	case opOACK:
		return t.receiveOACK(from, p)
	case opDATA:
		return t.receiveData(from, int(binary.BigEndian.Uint16(p[2:])), p[4:])
	}
	return nil, false
}

func (t *transfer) receiveError(p []byte) ([]byte, bool) {
	if t.result != Pending {
		return nil, false
	}
	text, _, _ := bytes.Cut(p[4:], []byte{0})
	t.result, t.said = Absent, string(text)
	return nil, true
}

func (t *transfer) receiveOACK(from netip.AddrPort, p []byte) ([]byte, bool) {
	if t.oack {
		t.dups++
		return t.duplicate(0, t.knobs.DupOACKBreaks), false
	}
	if t.result != Pending || t.block > 0 || !(t.knobs.TSize || t.knobs.BlockSize != 0) {
		return nil, false
	}
	t.server, t.oack = from, true
	t.readOptions(p[2:])
	if t.knobs.NeedsOACK && t.knobs.TSize && t.size < 0 {
		t.result = NoOACK
		return errorPacket(errNotDefined, earlyTerminate), true
	}
	if t.probe {
		t.result = Exists
	}
	return ackPacket(0), true
}

// readOptions reads name and value pairs; what is broken or was not asked for is ignored.
func (t *transfer) readOptions(p []byte) {
	fields := bytes.Split(p, []byte{0})
	for i := 0; i+1 < len(fields); i += 2 {
		n, err := strconv.ParseInt(string(fields[i+1]), 10, 64)
		switch name := string(fields[i]); {
		case err != nil || n < 0:
		case name == "tsize" && t.knobs.TSize:
			t.size = n
			if t.data != nil && !t.probe && n > 0 && n <= mostKept {
				t.data.Grow(int(n)) // growing it later stalls the board for longer than the server waits
			}
		case name == "blksize" && n >= 8 && n <= int64(t.knobs.BlockSize):
			t.chunk = int(n)
		}
	}
}

func (t *transfer) receiveData(from netip.AddrPort, n int, data []byte) ([]byte, bool) {
	if t.result == Exists || t.result == NoOACK || t.result == Absent {
		return nil, false
	}
	if !t.oack && t.knobs.NeedsOACK {
		if n != 1 {
			return nil, false // of an older transfer that had this port; a server without options begins with block 1
		}
		t.result = NoOACK
		return errorPacket(errNotDefined, earlyTerminate), true
	}
	if t.result == Read || t.block > 0 && (n == t.block&maxBlock || n == (t.block-1)&maxBlock) {
		t.dups++
		return t.duplicate(n, t.knobs.DupDataBreaks), false
	}
	if n != (t.block+1)&maxBlock || len(data) > t.chunk {
		return nil, false
	}
	t.server = from
	if t.block == maxBlock && !t.knobs.Wraps {
		t.result = TooBig
		return errorPacket(errNotDefined, earlyTerminate), true
	}
	if !t.oack && t.probe {
		t.result = Exists // an old server: there is a first block, so there is a file
		return errorPacket(errNotDefined, earlyTerminate), true
	}
	t.block++
	t.bytes += int64(len(data))
	t.sum.Write(data)
	if t.data != nil {
		t.data.Write(data)
	}
	if len(data) < t.chunk {
		t.result = Read
	}
	return ackPacket(n), true
}

// mostKept bounds the memory that a server's tsize can claim, in bytes.
const mostKept = 64 << 20

// duplicate answers a packet that was received before.
func (t *transfer) duplicate(n int, breaks bool) []byte {
	switch {
	case t.knobs.RFC1350:
		return ackPacket(n)
	case breaks && t.result == Pending:
		t.result = Confused
	}
	return nil
}

func (t *transfer) giveUp() { t.result = cmp.Or(t.result, GaveUp) }

// progressLine tells how far it came.
func (t *transfer) progressLine() string {
	if t.size > 0 {
		return fmt.Sprintf("%d of %d bytes", t.bytes, t.size)
	}
	return fmt.Sprintf("%d bytes", t.bytes)
}

func ackPacket(n int) []byte { return []byte{0, opACK, byte(n >> 8), byte(n)} }

func errorPacket(code byte, text string) []byte {
	return append(append([]byte{0, opERROR, 0, code}, text...), 0)
}

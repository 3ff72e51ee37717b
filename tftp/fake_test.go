package tftp

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// stage is how a program of the boot reads files (pi-netboot.md section 2).
type stage struct {
	options    string
	patience   time.Duration
	oackBreaks bool // a second OACK ends the file (firmware#1041)
	dataBreaks bool // a second DATA does (firmware#1631)
}

func (s stage) negotiate(size int64) ([]option, int) {
	return request{octet: true, options: pairs(s.options)}.negotiate(size, maxBlock4)
}

// network is a board, a cable and the server's side of a conversation in fake time: the next thing that happens is the
// earliest arrival, the server's timer, or the end of the board's patience. The board takes a moment for each answer,
// and now and then up to 25 ms. An ACK in a hundred arrives twice.
type network struct {
	dice    *rand.Rand
	loss    float64 // share that is lost, in each direction
	acks    bool    // the board acknowledges duplicates, and no request is lost: it would be repeated
	now     time.Time
	rooms   *sync.Pool
	flights []flight
	figures

	// of the file under way
	server   *conversation
	sent     flight // last
	copies   int    // of it
	hurt     bool   // one of them, or the answer, was lost
	board    stage
	block    int // size
	got      int // last block received
	oack     bool
	probe    bool
	complete bool
	broken   bool
	heard    time.Time
}

// flight is a datagram on its way.
type flight struct {
	at     time.Time
	up     bool // from the board
	op     uint16
	number int
	size   int // of the payload
}

// figures are what no boot may spoil.
type figures struct {
	tries   int // least number of copies within a second that a board waited for in vain; 0: none did
	early   int // datagrams sent again although neither they nor their answers were lost
	unasked int // datagrams sent again without the timer
	resent  int
}

func (f figures) String() string {
	return fmt.Sprintf("%d datagrams sent again, %d too early, %d unasked; at least %d tries before a board gave up", f.resent, f.early, f.unasked, f.tries)
}

func newNetwork(loss float64, acks bool) *network {
	return &network{dice: rand.New(rand.NewPCG(2026, 1)), loss: loss, acks: acks, now: zero, rooms: newRooms()}
}

func (n *network) check(t *testing.T) {
	t.Helper()
	if n.early != 0 || n.unasked != 0 || n.tries != 0 && n.tries < 8 {
		t.Errorf("%v; want none too early, none unasked, and at least 8 tries", n.figures)
	}
}

// boot reports whether the board gets every file.
func (n *network) boot(files []errand) bool {
	for _, f := range files {
		for range f.probes {
			if !n.fetch(f.stage, f.size, true) {
				return false
			}
		}
		if !n.fetch(f.stage, f.size, false) {
			return false
		}
	}
	return true
}

const trip = 150 * time.Microsecond // one way

func (n *network) lost() bool { return n.loss > 0 && n.dice.Float64() < n.loss }

// fetch holds one conversation, and reports whether the board has what it wanted.
func (n *network) fetch(s stage, size int64, probe bool) bool {
	if !n.acks && n.lost() {
		return false // the request
	}
	options, block := s.negotiate(size)
	n.server = &conversation{data: newBlocks(io.LimitReader(nothing{}, size), block, size, n.rooms), options: options, patience: 10 * time.Second}
	defer n.server.data.release()
	n.board, n.block, n.probe = s, block, probe
	n.flights, n.copies = n.flights[:0], 0
	n.got, n.oack, n.complete, n.broken, n.heard = 0, false, false, false, n.now
	n.now = n.now.Add(trip)
	n.serve(n.server.begin(n.now), false)
	for !n.complete && !n.broken {
		n.next()
	}
	return n.complete
}

// next lets the next thing happen.
func (n *network) next() {
	const (
		patience = -1
		timer    = -2
	)
	at, what := n.heard.Add(n.board.patience), patience
	if n.server.end == talking && n.server.due.Before(at) {
		at, what = n.server.due, timer
	}
	for i := range n.flights {
		if n.flights[i].at.Before(at) {
			at, what = n.flights[i].at, i
		}
	}
	n.now = at
	switch what {
	case patience:
		n.broken = true
		if n.tries == 0 || n.copies < n.tries {
			n.tries = n.copies
		}
	case timer:
		n.serve(n.server.expire(at), true)
	default:
		f := n.flights[what]
		n.flights[what] = n.flights[len(n.flights)-1]
		n.flights = n.flights[:len(n.flights)-1]
		if f.up {
			n.hear(f)
		} else {
			n.receive(f)
		}
	}
}

// hear gives the server an ACK, and its file the next bytes.
func (n *network) hear(f flight) {
	if n.server.end != talking {
		return
	}
	n.serve(n.server.receive(n.now, []byte{0, opACK, byte(f.number >> 8), byte(f.number)}), false)
	if n.server.waits() {
		n.server.data.fill(<-n.server.data.empty)
		n.serve(n.server.resume(n.now), false)
	}
}

// serve puts what the server sends on the cable.
func (n *network) serve(b []byte, again bool) {
	if b == nil {
		return
	}
	f := flight{at: n.now.Add(trip), op: binary.BigEndian.Uint16(b), number: int(binary.BigEndian.Uint16(b[2:])), size: len(b) - headerSize}
	if f.op == opOACK {
		f.number = 0
	}
	same := n.copies > 0 && f.op == n.sent.op && f.number == n.sent.number
	switch {
	case again && !n.hurt:
		n.early++
	case !again && same:
		n.unasked++
	case !again:
		n.copies, n.hurt = 0, false
	}
	if again {
		n.resent++
	}
	n.sent = f
	n.copies++
	n.carry(f)
}

func (n *network) carry(f flight) {
	if n.lost() {
		n.hurt = true
		return
	}
	n.flights = append(n.flights, f)
}

// receive is the board's side.
func (n *network) receive(f flight) {
	switch {
	case f.op == opOACK && !n.oack && n.got == 0:
		n.oack, n.heard, n.complete = true, n.now, n.probe
		n.answer(0)
	case f.op == opOACK:
		n.again(f.number, n.board.oackBreaks)
	case f.op == opDATA && f.number == (n.got+1)&0xffff:
		n.got++
		n.heard, n.complete = n.now, f.size < n.block
		n.answer(f.number)
	case f.op == opDATA:
		n.again(f.number, n.board.dataBreaks)
	}
}

// again is what the board does about something that it has received before.
func (n *network) again(number int, breaks bool) {
	if n.acks {
		n.answer(number)
	} else if breaks {
		n.broken = true
	}
}

func (n *network) answer(number int) {
	thinks := time.Duration(n.dice.IntN(200)) * time.Microsecond
	if n.dice.IntN(500) == 0 {
		thinks = time.Duration(n.dice.IntN(25_000)) * time.Microsecond
	}
	f := flight{at: n.now.Add(thinks + trip), up: true, op: opACK, number: number}
	n.carry(f)
	if n.dice.IntN(100) == 0 {
		f.at = f.at.Add(trip)
		n.flights = append(n.flights, f)
	}
}

// nothing is a file of any content.
type nothing struct{}

func (nothing) Read(b []byte) (int, error) { return len(b), nil }

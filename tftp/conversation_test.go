package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// talkTo makes a conversation about size bytes in blocks of 512.
func talkTo(size int, options string) *conversation {
	content := bytes.Repeat([]byte("bramble "), size/8+1)[:size]
	return &conversation{data: newBlocks(bytes.NewReader(content), 512, int64(size), newRooms()), options: pairs(options), patience: 10 * time.Second}
}

func ack(block int) []byte { return binary.BigEndian.AppendUint16([]byte{0, opACK}, uint16(block)) }

var zero = time.Unix(1_700_000_000, 0)

// A lost block is sent again so often that bootcode.bin, which waits about a second, has at least eight chances; and
// never before a whole round trip is over.
func TestTriesInASecond(t *testing.T) {
	for _, rtt := range []time.Duration{0, 200 * time.Microsecond, 420 * time.Microsecond, 2 * time.Millisecond, 10 * time.Millisecond, 40 * time.Millisecond, 90 * time.Millisecond} {
		c := talkTo(100*512, "tsize 0")
		now := zero
		c.begin(now)
		for block := range 20 {
			now = now.Add(rtt)
			c.receive(now, ack(block))
		}
		tries, lost := 1, now
		for ; now.Before(lost.Add(time.Second)); now = now.Add(100 * time.Microsecond) {
			if c.expire(now) != nil {
				if tries++; tries == 2 && now.Sub(lost) < rtt+margin {
					t.Errorf("round trip %v: sent again after %v", rtt, now.Sub(lost))
				}
			}
		}
		if tries < 8 || tries > 25 {
			t.Errorf("round trip %v: %d tries within a second; want 8 to 25", rtt, tries)
		}
	}
}

func TestFirstAnswerTriesInASecond(t *testing.T) {
	c := talkTo(1024, "tsize 0")
	c.begin(zero)
	tries := 1
	for at := zero; at.Before(zero.Add(time.Second)); at = at.Add(time.Millisecond) {
		if c.expire(at) != nil {
			tries++
		}
	}
	if tries < 8 || tries > 20 {
		t.Errorf("%d tries within the first second; want 8 to 20", tries)
	}
}

// A client that turns out slower than it was gets one copy too many, then the timer has learned it.
func TestTimerFollows(t *testing.T) {
	c := talkTo(1000*512, "")
	now := zero
	c.begin(now)
	step := func(rtt time.Duration, block int) (copies int) {
		for end := now.Add(rtt); now.Before(end); now = now.Add(100 * time.Microsecond) {
			if c.expire(now) != nil {
				copies++
			}
		}
		c.receive(now, ack(block))
		if c.waits() {
			c.data.fill(<-c.data.empty)
			c.resume(now)
		}
		return copies
	}
	for block := 1; block <= 100; block++ {
		if n := step(400*time.Microsecond, block); n != 0 {
			t.Fatalf("block %d went out %d times too often at a steady round trip", block, n)
		}
	}
	sum := 0
	for block := 101; block <= 200; block++ {
		sum += step(30*time.Millisecond, block)
	}
	if sum == 0 || sum > 12 {
		t.Errorf("%d copies too many when the round trip grew from 0.4 to 30 ms; want 1 to 12", sum)
	}
	last := 0
	for block := 201; block <= 300; block++ {
		last += step(30*time.Millisecond, block)
	}
	if last != 0 {
		t.Errorf("%d copies too many although the round trip has been 30 ms for long", last)
	}
}

// Sorcerer's Apprentice: whatever a client repeats, only time makes the server repeat (RFC 1123 section 4.2.3.1).
func TestDuplicatesSendNothing(t *testing.T) {
	c := talkTo(5*512, "tsize 0")
	c.begin(zero)
	for block := range 5 {
		if got := c.receive(zero, ack(block)); got == nil || c.number != uint16(block+1) {
			t.Fatalf("ACK %d did not bring block %d", block, block+1)
		}
		for _, again := range [][]byte{ack(block), ack(block - 1), ack(block + 2), ack(40000), {0, 4}, {0, 3, 0, 1}, nil} {
			if got := c.receive(zero, again); got != nil {
				t.Fatalf("after ACK %d, %x made the server send %x", block, again, got[:4])
			}
		}
	}
}

func TestBlockNumbersWrap(t *testing.T) {
	const size = 70000 * 8
	c := &conversation{data: newBlocks(bytes.NewReader(make([]byte, size)), 8, size, newRooms()), patience: time.Second}
	c.begin(zero)
	var total int64
	for i := 1; c.end == talking; i++ {
		total += int64(len(c.datagram) - headerSize)
		c.receive(zero, ack(i))
		if c.waits() {
			c.data.fill(<-c.data.empty)
			c.resume(zero)
		}
	}
	if c.end != finished || total != size {
		t.Errorf("ended %v after %d of %d bytes", c.end, total, size)
	}
}

func TestOutcomes(t *testing.T) {
	early := appendERROR(nil, 0, "Early terminate")
	for name, c := range map[string]struct {
		size    int
		options string
		hears   [][]byte
		idle    bool // then silence
		end     ending
		want    Outcome
	}{
		"read":                     {600, "tsize 0", [][]byte{ack(0), ack(1), ack(2)}, false, talking, Sent},
		"whole blocks":             {1024, "", [][]byte{ack(1), ack(2), ack(3)}, false, talking, Sent},
		"probe":                    {600, "tsize 0", [][]byte{ack(0), early}, false, talking, Probed},
		"probe without ACK":        {600, "tsize 0", [][]byte{early}, false, talking, Probed},
		"probe, ERROR lost":        {600, "tsize 0", [][]byte{ack(0)}, true, talking, Probed},
		"probe, ERROR lost, small": {100, "tsize 0", [][]byte{ack(0)}, true, talking, Probed},
		"last ACK lost":            {600, "tsize 0", [][]byte{ack(0), ack(1)}, true, talking, Sent},
		"vanished":                 {6000, "tsize 0", [][]byte{ack(0), ack(1)}, true, talking, Lost},
		"never there":              {600, "tsize 0", nil, true, talking, Lost},
		"broke off":                {6000, "tsize 0", [][]byte{ack(0), ack(1), ack(2), early}, false, talking, Lost},
		"asked anew":               {6000, "tsize 0", [][]byte{ack(0), ack(1), ack(2)}, false, replaced, Lost},
		"probe, asked anew":        {6000, "tsize 0", [][]byte{ack(0)}, false, replaced, Probed},
		"server stops":             {6000, "tsize 0", [][]byte{ack(0), ack(1)}, false, stopped, Lost},
	} {
		talk := talkTo(c.size, c.options)
		talk.begin(zero)
		for _, b := range c.hears {
			talk.receive(zero, b)
		}
		for at := zero; c.idle && talk.end == talking && at.Before(zero.Add(time.Minute)); at = at.Add(10 * time.Millisecond) {
			talk.expire(at)
		}
		if c.end != talking {
			talk.end = c.end
		}
		if got := talk.outcome(); got != c.want || talk.end == talking {
			t.Errorf("%s: %s (ending %d); want %s", name, got, talk.end, c.want)
		}
		if got := talk.outcome(); got == Lost && (Report{}).sentence(talk) == "" {
			t.Errorf("%s: lost without a sentence", name)
		}
	}
}

// A client that vanished in the middle is let go after its patience, without a word, and is not flooded before.
func TestSilenceExpires(t *testing.T) {
	c := talkTo(100*512, "")
	c.begin(zero)
	c.receive(zero, ack(1))
	sent := 0
	now := zero
	for ; c.end == talking; now = now.Add(time.Millisecond) {
		if c.expire(now) != nil {
			sent++
		}
	}
	if c.end != silent || now.Sub(zero) < 9*time.Second || now.Sub(zero) > 11*time.Second || sent > 30 {
		t.Errorf("ended %d after %v and %d copies; want silence after 10 s and at most 30", c.end, now.Sub(zero), sent)
	}
}

// A board that has asked for its next file is through with the one before, though its "Early terminate" was lost: what
// is still sent to that port meets the next stage of the boot, which takes block 1 before its OACK for a server without
// options and does without the file.
func TestOvertaken(t *testing.T) {
	for name, c := range map[string]struct {
		size  int
		hears []int // ACKs
		later []int // ACKs that come after the next request
		sends bool  // again
		want  Outcome
	}{
		"probe":           {6000, []int{0}, nil, false, Probed},
		"small probe":     {100, []int{0}, nil, false, Probed},
		"ACK 0 lost":      {6000, nil, nil, false, Probed},
		"ACK 0 overtaken": {6000, nil, []int{0}, false, Probed}, // two sockets, two goroutines
		"last ACK lost":   {600, []int{0, 1}, nil, false, Sent},
		"still reading":   {6000, []int{0, 1}, nil, true, Lost},
	} {
		talk := talkTo(c.size, "tsize 0")
		talk.begin(zero)
		for _, n := range c.hears {
			talk.receive(zero, ack(n))
		}
		talk.overtaken()
		for _, n := range c.later {
			talk.receive(zero, ack(n))
		}
		sent := 0
		now := zero
		for ; talk.end == talking; now = now.Add(time.Millisecond) {
			if talk.expire(now) != nil {
				sent++
			}
		}
		if (sent > 0) != c.sends || talk.outcome() != c.want || !c.sends && now.Sub(zero) > maxTimeout {
			t.Errorf("%s: %s after %v and %d copies; want %s", name, talk.outcome(), now.Sub(zero), sent, c.want)
		}
	}
}

// Two clients behind one address may have neighbouring ports by chance: the one that was there first goes on.
func TestOvertakenByAnother(t *testing.T) {
	c := talkTo(6000, "tsize 0")
	c.begin(zero)
	c.receive(zero, ack(0))
	c.overtaken()
	if c.receive(zero, ack(1)) == nil {
		t.Fatal("ACK 1 did not bring block 2")
	}
	if c.expire(c.due) == nil || c.end != talking {
		t.Error("block 2 is not sent again")
	}
}

func TestReadError(t *testing.T) {
	secret := errors.New("read /srv/secret/image: input/output error")
	c := &conversation{data: newBlocks(io.MultiReader(strings.NewReader(strings.Repeat("x", readAhead)), broken{secret}), 512, 1<<20, newRooms()), patience: time.Second}
	var last []byte
	last = c.begin(zero)
	for i := 1; c.end == talking; i++ {
		last = c.receive(zero, ack(i))
		if c.waits() {
			c.data.fill(<-c.data.empty)
			last = c.resume(zero)
		}
	}
	if c.outcome() != Failed || !errors.Is(c.err, secret) || !bytes.Equal(last, appendERROR(nil, 0, textUnreadable)) {
		t.Errorf("outcome %s, error %v, on the wire %q", c.outcome(), c.err, last)
	}
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

func TestBlocks(t *testing.T) {
	for _, block := range []int{8, 512, 1468} {
		chunk := readAhead / block * block
		for _, size := range []int{1, block - 1, block, block + 1, chunk - 1, chunk, chunk + 1, 2*chunk + 5, 3 * chunk} {
			want := make([]byte, size)
			for i := range want {
				want[i] = byte(i * 7 >> 3)
			}
			b := newBlocks(bytes.NewReader(want), block, int64(size), newRooms())
			var got []byte
			for number, ended := uint16(1), false; !ended; {
				datagram, last, late, err := b.next(number)
				if err != nil {
					t.Fatal(err)
				}
				if late {
					b.fill(<-b.empty)
					continue
				}
				if datagram[1] != opDATA || binary.BigEndian.Uint16(datagram[2:]) != number {
					t.Fatalf("header %x for block %d", datagram[:4], number)
				}
				got = append(got, datagram[headerSize:]...)
				number, ended = number+1, last
			}
			if !bytes.Equal(got, want) {
				t.Errorf("block %d, %d bytes: %d came out, or other ones", block, size, len(got))
			}
		}
	}
}

// Whatever a client sends and whenever, a conversation neither panics nor sends more than one datagram for it.
func FuzzConversation(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 0, 1}, true)
	f.Fuzz(func(t *testing.T, script []byte, oack bool) {
		options := ""
		if oack {
			options = "tsize 0"
		}
		c := talkTo(4000, options)
		now := zero
		c.begin(now)
		for _, b := range script {
			now = now.Add(time.Duration(b>>4) * 7 * time.Millisecond)
			if c.end != talking {
				return
			}
			switch kind := b & 15; {
			case kind < 12:
				c.receive(now, ack(int(kind)))
			case kind == 12:
				c.receive(now, appendERROR(nil, 0, "Early terminate"))
			default:
				c.expire(now)
			}
			if c.acked > 8 {
				t.Fatalf("%d blocks of a file with 8 were acknowledged", c.acked)
			}
		}
	})
}

package tftp

import (
	"errors"
	"time"
)

var errSlow = errors.New("the file's next blocks did not come off the disk in time")

// conversation is one transfer as a state machine, without socket or clock: what comes in goes to receive, time goes
// to expire, and both return the datagram to be sent, if any. Only time makes a datagram go out twice; a duplicate
// ACK never does (RFC 1123 section 4.2.3.1), and nothing is sent ahead.
type conversation struct {
	data     *blocks
	options  []option
	patience time.Duration

	round    roundTrip
	datagram []byte // under way; nil while the file is late
	number   uint16 // of the ACK that answers it
	oack     bool   // it is the OACK
	last     bool   // it is the last block
	first    time.Time
	sent     time.Time
	due      time.Time // when it goes out again

	end    ending
	met    bool  // the client acknowledged anything
	passed bool  // the client has asked for its next file; see overtaken
	acked  int64 // blocks
	resent int
	said   string // the client's ERROR
	err    error  // why the file could not be read
}

// ending says how a conversation ended.
type ending int

const (
	talking  ending = iota
	finished        // the last block was acknowledged
	silent          // nothing was heard for the whole patience
	aborted         // the client sent an ERROR
	replaced        // the client asked anew
	stopped         // the server ends
	failed          // the file could not be read
)

// begin returns the answer to the RRQ: an OACK if any option was accepted, else the first block.
func (c *conversation) begin(now time.Time) []byte {
	if len(c.options) == 0 {
		return c.advance(now)
	}
	c.oack = true
	return c.send(now, appendOACK(nil, c.options))
}

// advance sends the next block.
func (c *conversation) advance(now time.Time) []byte {
	datagram, last, late, err := c.data.next(c.number + 1) // wraps to 0 as everybody does
	if err != nil {
		c.end, c.err = failed, err
		return appendERROR(nil, codeUndefined, textUnreadable)
	}
	if late {
		c.datagram, c.due = nil, now.Add(c.patience)
		return nil
	}
	c.number++
	c.last = last
	return c.send(now, datagram)
}

// waits reports whether the file is late.
func (c *conversation) waits() bool { return c.datagram == nil && c.end == talking }

// resume goes on after the file was late.
func (c *conversation) resume(now time.Time) []byte {
	if !c.waits() {
		return nil
	}
	return c.advance(now)
}

func (c *conversation) send(now time.Time, datagram []byte) []byte {
	c.datagram, c.first = datagram, now
	return c.copy(now)
}

func (c *conversation) copy(now time.Time) []byte {
	c.sent, c.due = now, now.Add(c.round.timeout(now.Sub(c.first)))
	return c.datagram
}

// receive takes what the client sent.
func (c *conversation) receive(now time.Time, b []byte) []byte {
	r := parseReply(b)
	switch {
	case r.op == opERROR:
		c.end, c.said = aborted, r.text
		return nil
	case r.op != opACK || r.value != c.number || c.datagram == nil:
		return nil
	}
	if c.sent.Equal(c.first) { // Karn: an ACK after a second copy may belong to either
		c.round.sample(now.Sub(c.sent))
	}
	c.met = true
	switch {
	case c.last:
		c.end = finished
		return nil
	case c.oack:
		c.oack = false
	default:
		c.acked++
		c.passed = false
	}
	return c.advance(now)
}

// overtaken is called when the client asks for its next file. A probe is over then, and so is a file of which only the
// last ACK is missing, even if the client's word for it was lost or went astray (firmware#1025): nothing is sent again,
// since the next stage of the boot uses the same ports and would take it for an answer. Whoever does go on reading
// goes on.
func (c *conversation) overtaken() { c.passed = c.acked == 0 || c.last }

// expire is called when due may have passed.
func (c *conversation) expire(now time.Time) []byte {
	if now.Before(c.due) || c.end != talking {
		return nil
	}
	switch {
	case c.datagram == nil:
		c.end, c.err = failed, errSlow
		return appendERROR(nil, codeUndefined, textUnreadable)
	case c.passed:
		c.end = replaced
		return nil
	case now.Sub(c.first) >= c.bearable():
		c.end = silent
		return nil
	}
	c.round.expired()
	c.resent++
	return c.copy(now)
}

// bearable is how long the client may be silent. Whoever never acknowledged anything, or has all but the last ACK
// behind it, is soon let go.
func (c *conversation) bearable() time.Duration {
	if !c.met || c.last {
		return min(c.patience, shortPatience)
	}
	return c.patience
}

// outcome is what the ending means.
func (c *conversation) outcome() Outcome {
	switch {
	case c.end == finished:
		return Sent
	case c.end == failed:
		return Failed
	case c.last && c.acked > 0 && (c.end == silent || c.end == replaced):
		return Sent // only the very last ACK is missing; clients do not wait to see it arrive
	case c.end == aborted && c.acked <= 1, c.acked == 0 && (c.met || c.end == replaced):
		return Probed // the ERROR that ends a probe may be lost or go to another port (firmware#1025)
	}
	return Lost
}

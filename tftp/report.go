package tftp

import (
	"fmt"
	"net/netip"
	"time"
)

// Outcome says what became of a request.
type Outcome string

// The outcomes. Every request that is answered has a Started (unless it is missed or refused) and one of the rest.
const (
	Started Outcome = "started" // the file exists, the transfer begins
	Sent    Outcome = "sent"    // read to its end
	Missed  Outcome = "missed"  // no such file; normal for half of what the firmware asks for
	Probed  Outcome = "probed"  // the client wanted to know the size and broke off ("Early terminate"); normal
	Lost    Outcome = "lost"    // the client vanished, asked anew or broke off within the file; Text says which
	Failed  Outcome = "failed"  // the file could not be read; Err says why
	Refused Outcome = "refused" // a write request
)

// Report is what an Observer gets.
type Report struct {
	Outcome Outcome
	Peer    Peer
	Name    string        // as asked, without leading slashes
	Size    int64         // of the file, bytes
	Bytes   int64         // acknowledged by the client
	Block   int           // negotiated block size, bytes
	Took    time.Duration // from the request to the end
	Resent  int           // datagrams sent again
	Text    string        // one sentence for people; set for Lost, Failed and Refused
	Err     error         // for Failed
}

// Peer is the two ends of a transfer.
type Peer struct {
	Addr  netip.AddrPort // the client
	Local netip.Addr     // the address that the client asked, and that answers; never invalid
}

// sentence tells people what went wrong.
func (r Report) sentence(c *conversation) string {
	client := r.Peer.Addr.Addr()
	within := fmt.Sprintf("after %d of %d bytes of %s", r.Bytes, r.Size, r.Name)
	switch {
	case c.end == silent && !c.met:
		return fmt.Sprintf("%s asked for %s and acknowledged nothing of what was sent; check that packets find their way back to it.", client, r.Name)
	case c.end == silent:
		return fmt.Sprintf("%s stopped answering %s.", client, within)
	case c.end == aborted:
		return fmt.Sprintf("%s broke off %s: %q.", client, within, c.said)
	case c.end == replaced:
		return fmt.Sprintf("%s started over %s.", client, within)
	case c.end == stopped:
		return fmt.Sprintf("The TFTP server stopped while it sent to %s, %s.", client, within)
	case c.err != nil:
		return fmt.Sprintf("%s could not be read %s: %s.", r.Name, within, c.err)
	}
	return ""
}

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
	Lost    Outcome = "lost"    // the client vanished, asked anew or gave up within the file; Text says which
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
	Local netip.Addr     // the address that the client asked, and that answers; invalid if unknown
}

// how a conversation ended
type ending int

const (
	finished ending = iota
	silent          // nothing was heard for the whole patience
	gone            // the client's machine says that nobody listens (ICMP)
	aborted         // the client sent an ERROR
	replaced        // the client asked anew from the same port
	stopped         // the server ends
	failed          // the file could not be read
)

// judge turns the end of a conversation into an outcome. acked counts acknowledged DATA; met tells whether anything
// was acknowledged at all; last whether the last block was on its way.
func judge(end ending, acked int64, met, last bool) Outcome {
	switch {
	case end == finished:
		return Sent
	case end == failed:
		return Failed
	case acked > 0 && last && (end == silent || end == gone || end == replaced):
		return Sent // only the very last ACK is missing: clients do not wait to see it arrive
	case acked == 0 && (met || end == aborted || end == replaced || end == gone):
		return Probed // the ERROR that ends a probe may be lost or go to another port (firmware#1025)
	}
	return Lost
}

func (r Report) sentence(end ending, saidByClient string) string {
	client := r.Peer.Addr.Addr()
	at := fmt.Sprintf("after %d of %d bytes of %s", r.Bytes, r.Size, r.Name)
	switch end {
	case silent:
		if r.Bytes == 0 {
			return fmt.Sprintf("%s asked for %s and answered nothing that was sent; check that packets find their way back to it.", client, r.Name)
		}
		return fmt.Sprintf("%s stopped answering %s.", client, at)
	case gone:
		return fmt.Sprintf("%s closed its port %s.", client, at)
	case aborted:
		return fmt.Sprintf("%s broke off %s: %q.", client, at, saidByClient)
	case replaced:
		return fmt.Sprintf("%s started over %s.", client, at)
	case stopped:
		return fmt.Sprintf("The server stopped while %s read %s, %s.", client, r.Name, at)
	}
	return ""
}

package tftp

import "time"

// The retransmission timer (RFC 6298, with the bounds that the boot ROM's patience asks for).
const (
	firstTimeout = 60 * time.Millisecond  // before the round trip is known
	margin       = 25 * time.Millisecond  // least distance from the measured round trip: a board that pauses gets no duplicate (firmware#1631)
	maxTimeout   = 100 * time.Millisecond // nine tries in the second after which bootcode.bin gives up (firmware#991, #1025)
	slowTimeout  = time.Second            // after that second: start.elf and the EEPROM wait longer (firmware#1292)
	hurry        = time.Second            // the second itself
)

// roundTrip estimates a client's round trip and says when a datagram without answer is to be sent again.
// The zero value knows nothing yet.
type roundTrip struct {
	smoothed, variation time.Duration
	known               bool
	backoff             int // doublings since the last sample: Karn's rule
}

// sample takes a round trip measured on a datagram that was sent once.
func (r *roundTrip) sample(d time.Duration) {
	r.backoff = 0
	if !r.known {
		r.smoothed, r.variation, r.known = d, d/2, true
		return
	}
	r.variation += ((d - r.smoothed).Abs() - r.variation) / 4
	r.smoothed += (d - r.smoothed) / 8
}

// expired doubles the timeout until the next sample.
func (r *roundTrip) expired() { r.backoff++ }

// timeout is how long to wait for the answer to a datagram whose first copy left waited ago.
func (r *roundTrip) timeout(waited time.Duration) time.Duration {
	base := firstTimeout
	if r.known {
		base = r.smoothed + max(margin, 4*r.variation)
	}
	ceiling := maxTimeout
	if waited >= hurry {
		ceiling = slowTimeout
	}
	// a round trip that is longer than the ceiling is respected: a copy per round trip, no more
	return min(base<<min(r.backoff, 10), max(ceiling, base))
}

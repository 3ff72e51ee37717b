package pisim

import "math"

// Odds is the probability, between 0 and 1, that a board which neither asks again for a lost request nor acknowledges
// a duplicate receives all that reference received, when each frame is lost with probability loss in either
// direction, and a server sends each packet up to sends times within the board's patience. Report.Missing is then
// empty. reference is a boot of the same model from the same server without loss.
//
// A lost request is not repeated, and a lost acknowledgement makes the server send a duplicate, at which such a
// client stays silent: either ends that file. Only what the server sends can be sent again. A lost probe of no
// consequence and a request for a file that is not there cost time, not success. DISCOVERs are repeated five times
// and so are ARP requests, which makes their failure too rare to count at a loss of a few per cent.
func Odds(reference Report, loss float64, sends int) float64 {
	odds := 1.0
	for _, e := range reference.Exchanges {
		if e.Counts && (e.Result == Read || e.Result == Exists) {
			odds *= e.odds(loss, sends)
		}
	}
	return odds
}

// odds is the probability that this exchange succeeds.
func (e Exchange) odds(loss float64, sends int) float64 {
	up := 1 - loss                             // a packet of the client arrives
	down := 1 - math.Pow(loss, float64(sends)) // one of the server arrives sooner or later
	odds := up                                 // the request
	if e.Options {
		odds *= down // its OACK
	}
	if e.Probe {
		return odds
	}
	acks := e.Blocks - 1 // the last one may be lost
	if e.Options {
		acks++ // of the OACK
	}
	return odds * math.Pow(down, float64(e.Blocks)) * math.Pow(up, float64(acks))
}

package pisim

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"time"
)

// Impair is what a cable does to the frames of one direction: it calls pass once, twice, later or not at all.
// A nil Impair is a good cable.
type Impair func(frame []byte, pass func(frame []byte))

func (i Impair) pass(frame []byte, pass func([]byte)) {
	if i == nil {
		pass(frame)
		return
	}
	i(frame, pass)
}

// Faults are the shares, between 0 and 1, of the frames of each direction that are lost, doubled, or held back for
// 5 ms so that those behind overtake.
type Faults struct{ Loss, Dup, Reorder float64 }

// holdBack is how long a reordered frame is late.
const holdBack = 5 * time.Millisecond

// Impair draws each frame's fate from the seed, in the order in which frames come.
func (f Faults) Impair(seed, direction uint64) Impair {
	if f == (Faults{}) {
		return nil
	}
	var mu sync.Mutex
	dice := rand.New(rand.NewPCG(seed, direction))
	return func(frame []byte, pass func([]byte)) {
		mu.Lock()
		lost, dup, late := dice.Float64() < f.Loss, dice.Float64() < f.Dup, dice.Float64() < f.Reorder
		mu.Unlock()
		if lost {
			return
		}
		if late {
			kept := bytes.Clone(frame)
			time.AfterFunc(holdBack, func() { pass(kept) })
		} else {
			pass(frame)
		}
		if dup {
			pass(frame)
		}
	}
}

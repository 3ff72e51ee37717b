// Package wire is a network cable with faults, in user space: for kernels without netem, and repeatable, since every
// fault comes from a seed. Join connects two network interfaces, Wrap a socket inside one process.
package wire

import (
	"math/rand/v2"
	"time"
)

// Faults says what a cable does to the packets in each direction. The zero value does nothing.
// Loss, Dup and Reorder are shares between 0 and 1, drawn for each packet in the order of its arrival.
type Faults struct {
	Loss    float64
	Dup     float64
	Reorder float64 // the packet is held back by Hold, so that those behind it overtake

	Delay time.Duration // of every packet
	Hold  time.Duration // of a reordered packet, on top of Delay; 0 means 5 ms

	// DropFirst is how long after plugging in nothing gets through: a switch port with spanning tree listens and
	// learns for 30 s before it forwards.
	DropFirst time.Duration

	Seed uint64 // equal seeds give equal fates to the n-th packet of a direction
}

const defaultHold = 5 * time.Millisecond

// fate is what becomes of one packet.
type fate struct {
	copies int // 0: lost, 2: duplicated
	hold   bool
}

// dice draws fates. It always draws the same number of times for a packet, so that changing one share of Faults
// leaves the other faults where they were.
type dice struct {
	faults Faults
	rand   *rand.Rand
}

func newDice(f Faults, direction uint64) *dice {
	return &dice{f, rand.New(rand.NewPCG(f.Seed, direction))}
}

func (d *dice) roll() fate {
	lost, dup, hold := d.rand.Float64() < d.faults.Loss, d.rand.Float64() < d.faults.Dup, d.rand.Float64() < d.faults.Reorder
	switch {
	case lost:
		return fate{}
	case dup:
		return fate{copies: 2, hold: hold}
	default:
		return fate{copies: 1, hold: hold}
	}
}

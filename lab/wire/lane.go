package wire

import (
	"cmp"
	"container/heap"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Stats counts what a direction did with the packets it was given.
type Stats struct {
	Sent, Lost, Duplicated, Reordered uint64
	Blocked                           uint64 // while cut, or during DropFirst
}

// plug is the state both directions share: is the cable in, and since when.
type plug struct {
	cut   atomic.Bool
	since atomic.Pointer[time.Time]
}

func newPlug() *plug {
	p := &plug{}
	p.in()
	return p
}

func (p *plug) in() {
	now := time.Now()
	p.since.Store(&now)
	p.cut.Store(false)
}

func (p *plug) passes(dropFirst time.Duration) bool {
	return !p.cut.Load() && time.Since(*p.since.Load()) >= dropFirst
}

// lane is one direction of a cable. Packets of equal delay leave in the order in which they came.
type lane struct {
	plug *plug
	emit func(packet)

	mu    sync.Mutex
	dice  *dice
	stats Stats
	queue queue // packets under way
	count uint64
	timer *time.Timer
	done  bool
}

// packet is data with where it goes to or came from, which only the socket form needs.
type packet struct {
	data []byte
	addr any

	due   time.Time
	order uint64
}

func newLane(f Faults, direction uint64, p *plug, emit func(packet)) *lane {
	l := &lane{plug: p, emit: emit, dice: newDice(f, direction)}
	l.timer = time.AfterFunc(time.Hour, l.deliver)
	l.timer.Stop()
	return l
}

// send puts a packet on its way; data may be reused when send returns.
func (l *lane) send(data []byte, addr any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return
	}
	f := l.dice.faults
	if !l.plug.passes(f.DropFirst) {
		l.stats.Blocked++
		return
	}
	fate := l.dice.roll()
	delay := f.Delay
	switch {
	case fate.copies == 0:
		l.stats.Lost++
		return
	case fate.copies == 2:
		l.stats.Duplicated++
	}
	if fate.hold {
		l.stats.Reordered++
		delay += cmp.Or(f.Hold, defaultHold)
	}
	l.stats.Sent++
	p := packet{data: data, addr: addr}
	if delay == 0 {
		for range fate.copies {
			l.emit(p)
		}
		return
	}
	p.data = slices.Clone(data)
	p.due = time.Now().Add(delay)
	for range fate.copies {
		p.order = l.count
		l.count++
		heap.Push(&l.queue, p)
	}
	l.timer.Reset(time.Until(l.queue[0].due))
}

// deliver emits what is due.
func (l *lane) deliver() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) > 0 && !l.done {
		if wait := time.Until(l.queue[0].due); wait > 0 {
			l.timer.Reset(wait)
			return
		}
		p := heap.Pop(&l.queue).(packet)
		if !l.plug.cut.Load() {
			l.emit(p)
		}
	}
}

func (l *lane) counted() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = true
	l.queue = nil
	l.timer.Stop()
}

// queue orders packets by when they are due, then by arrival.
type queue []packet

func (q queue) Len() int      { return len(q) }
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q queue) Less(i, j int) bool {
	if q[i].due.Equal(q[j].due) {
		return q[i].order < q[j].order
	}
	return q[i].due.Before(q[j].due)
}
func (q *queue) Push(p any) { *q = append(*q, p.(packet)) }
func (q *queue) Pop() any {
	old := *q
	p := old[len(old)-1]
	old[len(old)-1] = packet{}
	*q = old[:len(old)-1]
	return p
}

package nbd

import "sync"

// Sizes of the two kinds of buffers. Both begin with room for a reply header.
const (
	smallBuffer = replySize + copyMax
	largeBuffer = replySize + 256<<10
)

// store lends buffers. A small one is always to be had, and each connection
// takes one at a time; the large ones are counted.
type store struct {
	small, large sync.Pool
	free         chan struct{} // one token for each large buffer not lent
}

// newStore returns a store whose large buffers take up to memory bytes.
func newStore(memory int64) *store {
	s := &store{free: make(chan struct{}, max(0, memory/largeBuffer))}
	s.small.New = func() any { return new([smallBuffer]byte) }
	s.large.New = func() any { return new([largeBuffer]byte) }
	for range cap(s.free) {
		s.free <- struct{}{}
	}
	return s
}

// tryLarge returns nil if all large buffers are lent.
func (s *store) tryLarge() *[largeBuffer]byte {
	select {
	case <-s.free:
		return s.large.Get().(*[largeBuffer]byte)
	default:
		return nil
	}
}

func (s *store) putLarge(b *[largeBuffer]byte) {
	s.large.Put(b)
	s.free <- struct{}{}
}

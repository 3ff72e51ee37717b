package tftp

import (
	"io"
	"sync"
)

// blocks cuts a stream into DATA datagrams. Whoever sends them never waits for a disk: fill reads ahead, in another
// goroutine, into one of two chunks while the other is being sent.
type blocks struct {
	size  int // of a block
	r     io.Reader
	now   chunk
	at    int // in now.buf: where the next block's header goes
	empty chan []byte
	full  chan chunk

	rooms  *sync.Pool // of *room
	rented []*room
}

const readAhead = 32 << 10

// room is a chunk's memory. Rooms go from transfer to transfer: a boot has thirty of them, a rack of boards thousands.
type room [headerSize + readAhead]byte

func newRooms() *sync.Pool { return &sync.Pool{New: func() any { return new(room) }} }

// chunk is room for a header, then as many whole blocks as were read.
type chunk struct {
	buf []byte
	end bool // the stream ends with this chunk
	err error
}

// newBlocks reads the first chunk. total is the length of the stream in bytes; a guess will do.
func newBlocks(r io.Reader, size int, total int64, rooms *sync.Pool) *blocks {
	b := &blocks{size: size, r: r, empty: make(chan []byte, 1), full: make(chan chunk, 1), rooms: rooms}
	if small := (total/int64(size) + 1) * int64(size); small < readAhead/4 { // the file and its end
		b.now = b.read(make([]byte, headerSize+small))
	} else {
		b.now = b.read(b.rent())
	}
	if !b.now.end {
		b.empty <- b.rent()
	}
	return b
}

func (b *blocks) rent() []byte {
	r := b.rooms.Get().(*room)
	b.rented = append(b.rented, r)
	return r[:headerSize+readAhead/b.size*b.size]
}

// release gives the memory back: no datagram is valid any more.
func (b *blocks) release() {
	for _, r := range b.rented {
		b.rooms.Put(r)
	}
	b.rented = nil
}

func (b *blocks) read(buf []byte) chunk {
	n, err := io.ReadFull(b.r, buf[headerSize:])
	c := chunk{buf: buf[:headerSize+n], err: err}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		c.end, c.err = true, nil
	}
	return c
}

// fill reads one chunk ahead; it is called for every buffer that comes out of empty.
func (b *blocks) fill(buf []byte) {
	b.full <- b.read(buf[:headerSize+cap(buf[headerSize:])/b.size*b.size])
}

// next returns the next datagram, valid until the call after it, and whether it is the last; late says that the
// chunk is not there yet. The header lies over the end of the block before, which was acknowledged.
func (b *blocks) next(number uint16) (datagram []byte, last, late bool, err error) {
	if b.now.err == nil && !b.now.end && b.at == len(b.now.buf)-headerSize {
		select {
		case c := <-b.full:
			old := b.now
			b.now, b.at = c, 0
			if !c.end && c.err == nil {
				b.empty <- old.buf
			}
		default:
			return nil, false, true, nil
		}
	}
	if b.now.err != nil {
		return nil, false, false, b.now.err
	}
	n := min(len(b.now.buf)-b.at-headerSize, b.size)
	datagram = b.now.buf[b.at : b.at+headerSize+n]
	putDATA(datagram, number)
	b.at += n
	return datagram, n < b.size, false, nil
}

package tftp

import "io"

// blocks cuts a stream into DATA datagrams. Whoever sends them never waits for a disk: fill reads ahead, in another
// goroutine, into one of two chunks while the other is being sent.
type blocks struct {
	size  int // of a block
	r     io.Reader
	now   chunk
	at    int // in now.buf: where the next block's header goes
	empty chan []byte
	full  chan chunk
}

// chunk is room for a header, then as many whole blocks as were read.
type chunk struct {
	buf []byte
	end bool // the stream ends with this chunk
	err error
}

const readAhead = 64 << 10

// newBlocks reads the first chunk. total is the length of the stream in bytes; a guess will do.
func newBlocks(r io.Reader, size int, total int64) *blocks {
	b := &blocks{size: size, r: r, empty: make(chan []byte, 1), full: make(chan chunk, 1)}
	room := int64(max(readAhead/size, 1) * size)
	small := (total/int64(size) + 1) * int64(size) // the file and its end
	b.now = b.read(make([]byte, headerSize+min(room, small)))
	if !b.now.end {
		b.empty <- make([]byte, headerSize+room)
	}
	return b
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
func (b *blocks) fill(buf []byte) { b.full <- b.read(buf[:cap(buf)]) }

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

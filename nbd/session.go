package nbd

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// parallel is how many requests of one connection are worked on at a time,
	// beside those answered from the page cache.
	parallel = 16

	// copyMax is the longest reply that is copied out of the page cache. Up to
	// there a copy is faster than sendfile, measured with BenchmarkPeers.
	copyMax = 128 << 10
)

// Session is one client in the transmission phase.
type Session struct {
	peer   net.Addr
	name   string
	export Export
	file   *file // nil: not a FileSection
	in     *bufio.Reader
	out    *sender
	store  *store
	slots  chan struct{}
	work   sync.WaitGroup

	// Only the goroutine that reads requests touches these: replies that have
	// not been sent.
	pending *[smallBuffer]byte
	filled  int

	failure                 atomic.Pointer[error] // the first one
	requests, bytes, errors atomic.Uint64
}

// Stats are a session's counters: requests answered, bytes of data sent, and
// requests answered with an error.
type Stats struct{ Requests, Bytes, Errors uint64 }

// Peer is the client's address.
func (s *Session) Peer() net.Addr { return s.peer }

// Export is the name by which the client asked.
func (s *Session) Export() string { return s.name }

// Stats returns the counters as they are now.
func (s *Session) Stats() Stats {
	return Stats{s.requests.Load(), s.bytes.Load(), s.errors.Load()}
}

func newSession(r *run, conn net.Conn, in *bufio.Reader, name string, export Export) *Session {
	return &Session{
		peer:   conn.RemoteAddr(),
		name:   name,
		export: export,
		file:   fileOf(export),
		in:     in,
		out:    newSender(conn, cmp.Or(r.WriteTimeout, 30*time.Second)),
		store:  r.store,
		slots:  make(chan struct{}, parallel),
	}
}

// serve answers requests until the client says goodbye (nil) or the connection
// is of no more use.
func (s *Session) serve() error {
	if err := s.loop(); err != nil {
		s.fail(err)
	}
	s.work.Wait()
	if err := s.failure.Load(); err != nil {
		return fmt.Errorf("nbd: serving %q to %s: %w", brief([]byte(s.name)), s.peer, *err)
	}
	return nil
}

// fail ends the session: loop and workers wake up with errors of their own, of
// which the first one counts.
func (s *Session) fail(err error) {
	s.failure.CompareAndSwap(nil, &err)
	s.out.conn.Close()
}

func (s *Session) loop() error {
	for {
		// Replies leave when no complete request is left that could join them.
		if s.in.Buffered() < requestSize {
			if err := s.flush(); err != nil {
				return err
			}
		}
		head, err := s.in.Peek(requestSize)
		if err != nil {
			return fmt.Errorf("the client left without saying goodbye: %w", err)
		}
		req, err := parseRequest(head)
		if err != nil {
			return errors.Join(err, s.flush())
		}
		_, _ = s.in.Discard(requestSize) // it is there
		if req.kind == cmdDisc {
			return s.flush()
		}
		if err := s.answer(req); err != nil {
			return err
		}
	}
}

// answer sees to it that req is answered, now or soon.
func (s *Session) answer(req request) error {
	s.requests.Add(1)
	if req.kind == cmdWrite {
		if err := s.skip(req.length); err != nil {
			return err
		}
	}
	if code := req.verdict(s.export.Size()); code != errNone {
		return s.refuse(req, code)
	}
	if req.length == 0 {
		return s.refuse(req, errNone) // no data, no error
	}
	if done, err := s.cached(req); done || err != nil {
		return err
	}
	if err := s.flush(); err != nil { // what follows may wait
		return err
	}
	sendfile := s.file != nil && s.out.raw != nil && req.length > copyMax
	if sendfile && s.file.likelyCached(int64(req.offset), int64(req.length)) {
		return s.send(req)
	}
	s.slots <- struct{}{}
	if sendfile {
		s.start(func() error {
			s.file.willNeed(int64(req.offset), int64(req.length))
			return s.send(req)
		})
		return nil
	}
	if buf := s.store.tryLarge(); buf != nil {
		s.start(func() error {
			defer s.store.putLarge(buf)
			return s.copy(req, buf[:])
		})
		return nil
	}
	// Others have all the memory: this connection still has its own.
	defer func() { <-s.slots }()
	buf := s.store.small.Get().(*[smallBuffer]byte)
	defer s.store.small.Put(buf)
	return s.copy(req, buf[:])
}

// start runs work, which owns a slot, beside the loop.
func (s *Session) start(work func() error) {
	s.work.Go(func() {
		defer func() { <-s.slots }()
		if err := work(); err != nil {
			s.fail(err)
		}
	})
}

// skip reads past the payload of a WRITE.
func (s *Session) skip(length uint32) error {
	if err := s.flush(); err != nil {
		return err
	}
	if length > maxRequest {
		return fmt.Errorf("a WRITE of %d bytes is more than the %d that were agreed", length, maxRequest)
	}
	if _, err := s.in.Discard(int(length)); err != nil {
		return fmt.Errorf("the client left within a WRITE: %w", err)
	}
	return nil
}

// refuse adds a reply without data to the pending ones.
func (s *Session) refuse(req request, code errno) error {
	b, err := s.room(replySize)
	if err != nil {
		return err
	}
	putReply(b, code, req.cookie)
	s.filled += replySize
	if code != errNone {
		s.errors.Add(1)
	}
	return nil
}

// cached adds the reply to the pending ones if it is short and can be had
// without waiting.
func (s *Session) cached(req request) (bool, error) {
	n := replySize + int(req.length)
	if s.file == nil || req.length > copyMax {
		return false, nil
	}
	b, err := s.room(n)
	if err != nil || !s.file.readCached(b[replySize:n], int64(req.offset)) {
		return false, err
	}
	putReply(b, errNone, req.cookie)
	s.filled += n
	s.bytes.Add(uint64(req.length))
	return true, nil
}

// room returns space for n bytes after the pending replies, sending them first
// if they are in the way.
func (s *Session) room(n int) ([]byte, error) {
	if s.filled+n > smallBuffer {
		if err := s.flush(); err != nil {
			return nil, err
		}
	}
	if s.pending == nil {
		s.pending = s.store.small.Get().(*[smallBuffer]byte)
	}
	return s.pending[s.filled:], nil
}

// flush sends the pending replies and gives their buffer back.
func (s *Session) flush() error {
	if s.pending == nil {
		return nil
	}
	var err error
	if s.filled > 0 {
		s.out.Lock()
		err = s.out.write(s.pending[:s.filled])
		s.out.Unlock()
	}
	s.store.small.Put(s.pending)
	s.pending, s.filled = nil, 0
	return err
}

// copy answers req by way of buf, in several pieces if it is longer than that.
// Once the first piece is sent an error can no longer be told: the connection
// ends, as the protocol demands.
func (s *Session) copy(req request, buf []byte) error {
	first := min(int(req.length), len(buf)-replySize)
	readErr := readFull(s.export, buf[replySize:replySize+first], int64(req.offset))
	code := errNone
	if readErr != nil {
		code, first = errIO, 0
		s.errors.Add(1)
	}
	putReply(buf, code, req.cookie)
	s.out.Lock()
	defer s.out.Unlock()
	if err := s.out.write(buf[:replySize+first]); err != nil || code != errNone {
		return err
	}
	s.bytes.Add(uint64(first))
	return s.copyRest(req, first, buf)
}

// copyRest sends what comes after the first done bytes of req. The sender is
// locked.
func (s *Session) copyRest(req request, done int, buf []byte) error {
	for done < int(req.length) {
		n := min(int(req.length)-done, len(buf))
		if err := readFull(s.export, buf[:n], int64(req.offset)+int64(done)); err != nil {
			return fmt.Errorf("reading the export within a reply: %w", err)
		}
		if err := s.out.write(buf[:n]); err != nil {
			return err
		}
		done += n
		s.bytes.Add(uint64(n))
	}
	return nil
}

// send answers req by sendfile.
func (s *Session) send(req request) error {
	var head [replySize]byte
	putReply(head[:], errNone, req.cookie)
	s.out.Lock()
	defer s.out.Unlock()
	if err := s.out.writeMore(head[:]); err != nil {
		return err
	}
	sent, err := s.out.sendfile(s.file, int64(req.offset), int(req.length))
	s.bytes.Add(uint64(sent))
	if errors.Is(err, errNoSendfile) {
		return s.copyRest(req, sent, make([]byte, smallBuffer))
	}
	return err
}

// readFull fills b; less than that is an error, whatever the export says.
func readFull(r io.ReaderAt, b []byte, offset int64) error {
	n, err := r.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%d bytes at %d: %w", len(b), offset, err)
}

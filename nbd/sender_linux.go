package nbd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// piece is the most a client must accept within the write timeout.
const piece = 1 << 20

// errNoSendfile says that the file's file system cannot do it.
var errNoSendfile = errors.New("this file system knows no sendfile")

// sender writes to a connection. Whoever writes holds the lock for the length
// of a whole reply.
type sender struct {
	sync.Mutex
	conn    net.Conn
	raw     syscall.RawConn // nil: not a socket
	timeout time.Duration
}

func newSender(conn net.Conn, timeout time.Duration) *sender {
	s := &sender{conn: conn, timeout: timeout}
	if sc, ok := conn.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn()
	}
	return s
}

// patience starts the time the client has for the next piece.
func (s *sender) patience() error { return s.conn.SetWriteDeadline(time.Now().Add(s.timeout)) }

// write sends b, which is at most a piece.
func (s *sender) write(b []byte) error {
	if err := s.patience(); err != nil {
		return err
	}
	_, err := s.conn.Write(b)
	return err
}

// writeMore sends b to a socket, which holds it back until more follows.
func (s *sender) writeMore(b []byte) error {
	if err := s.patience(); err != nil {
		return err
	}
	for len(b) > 0 {
		n, err := s.try(func(socket int) (int, error) {
			return unix.SendmsgN(socket, b, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
		})
		if err != nil {
			return fmt.Errorf("sending a reply: %w", err)
		}
		b = b[n:]
	}
	return nil
}

// sendfile sends n bytes of f from offset on and returns how many were sent.
func (s *sender) sendfile(f *file, offset int64, n int) (sent int, err error) {
	offset += f.base
	for sent < n {
		if err := s.patience(); err != nil {
			return sent, err
		}
		part, err := s.try(func(socket int) (int, error) {
			return unix.Sendfile(socket, f.fd, &offset, min(n-sent, piece))
		})
		switch {
		case err == nil && part == 0:
			return sent, fmt.Errorf("the file ends within a reply: %w", io.ErrUnexpectedEOF)
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
			return sent, errNoSendfile
		case err != nil:
			return sent, fmt.Errorf("sending a file within a reply: %w", err)
		}
		sent += part
	}
	return sent, nil
}

// try repeats a system call on the socket until it does not have to wait.
func (s *sender) try(call func(socket int) (int, error)) (n int, err error) {
	waitErr := s.raw.Write(func(socket uintptr) bool {
		for {
			n, err = call(int(socket))
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if waitErr != nil {
		return 0, waitErr
	}
	return max(n, 0), err
}

// file is a FileSection opened up.
type file struct {
	owner *os.File
	fd    int
	base  int64
}

// fileOf returns nil if export is no FileSection.
func fileOf(export Export) *file {
	fs, ok := export.(FileSection)
	if !ok {
		return nil
	}
	f, base := fs.Section()
	return &file{owner: f, fd: int(f.Fd()), base: base}
}

// readCached fills b if that takes no waiting for a disk.
func (f *file) readCached(b []byte, offset int64) bool {
	n, err := unix.Preadv2(f.fd, [][]byte{b}, f.base+offset, unix.RWF_NOWAIT)
	return err == nil && n == len(b)
}

// likelyCached looks at both ends of a range. A wrong guess costs time only.
func (f *file) likelyCached(offset, n int64) bool {
	var b [1]byte
	return f.readCached(b[:], offset) && f.readCached(b[:], offset+n-1)
}

// willNeed has the kernel read ahead, so that the disk works for several
// requests at a time. It is advice: its failure shows in the read.
func (f *file) willNeed(offset, n int64) {
	_ = unix.Fadvise(f.fd, f.base+offset, n, unix.FADV_WILLNEED)
}

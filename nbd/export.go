package nbd

import (
	"context"
	"io"
	"os"
)

// Exports is the catalogue a [Server] serves from. Its methods are called from
// many goroutines.
type Exports interface {
	// Open returns the export called name, which is at most 4096 bytes of UTF-8
	// and may be empty (the default export). It is called once for each
	// connection and once for each question about an export. An error that is
	// fs.ErrNotExist tells the client that there is no such export,
	// fs.ErrPermission that it may not have it; the text of the error goes to
	// the log, never to the client.
	Open(ctx context.Context, name string) (Export, error)

	// Names returns the names told to a client that asks for a list, if
	// [Server.List] is set.
	Names() []string
}

// Export is one block device as one connection sees it. ReadAt is called from
// many goroutines; Close is called once, after the last ReadAt has returned.
type Export interface {
	io.ReaderAt
	io.Closer

	// Size is the number of bytes; it must not change while the export is open.
	Size() int64
}

// FileSection is an Export whose bytes lie in one piece in a regular file that
// stays open, and unchanged, until Close. The server then reads the file itself,
// by sendfile(2) where that is faster.
type FileSection interface {
	Export

	// Section returns the file and where in it, in bytes, the export begins.
	Section() (f *os.File, offset int64)
}

// section is the FileSection made by NewFileSection.
type section struct {
	io.SectionReader
	file *os.File
}

// NewFileSection returns the size bytes of f from offset on as an Export. Close
// closes f.
func NewFileSection(f *os.File, offset, size int64) FileSection {
	return &section{*io.NewSectionReader(f, offset, size), f}
}

func (s *section) Section() (*os.File, int64) {
	_, offset, _ := s.Outer()
	return s.file, offset
}

func (s *section) Close() error { return s.file.Close() }

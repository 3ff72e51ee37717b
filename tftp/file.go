package tftp

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"

	"github.com/pin/tftp/v3/netascii"
)

// File is what a Tree hands out. Reads come in order, in pieces of some ten kilobytes, from one goroutine.
// Files of the same content should share it: a hundred boards read the same kernel at once.
type File interface {
	io.ReaderAt
	Size() int64 // bytes
	Close() error
}

// Bytes makes a File of b, which is shared and must not change.
func Bytes(b []byte) File { return content{bytes.NewReader(b)} }

type content struct{ *bytes.Reader }

func (content) Close() error { return nil }

// FS makes a File of an open file of a file system; it must be an io.ReaderAt, as those of os, embed and the
// image's FAT are. Closing the File closes f.
func FS(f fs.File) (File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("the file's size is not to be had: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: %w", info.Name(), fs.ErrNotExist)
	}
	r, ok := f.(io.ReaderAt)
	if !ok {
		return nil, fmt.Errorf("the file system's %T cannot be read at an offset; serve it from memory with tftp.Bytes", f)
	}
	return opened{r, f, info.Size()}, nil
}

type opened struct {
	io.ReaderAt
	fs.File
	size int64
}

func (o opened) Size() int64 { return o.size }

// stream is the file as it goes over the wire. An empty file is one newline: with a tsize of 0 the firmware takes
// the file for missing (firmware#1012).
func stream(f File, octet bool) (r io.Reader, size int64) {
	r, size = io.NewSectionReader(f, 0, f.Size()), f.Size()
	if size == 0 {
		r, size = bytes.NewReader([]byte("\n")), 1
	}
	if !octet {
		r = netascii.ToReader(r)
	}
	return r, size
}

// Package unpack decompresses what images and kernel modules come in: gzip, xz and zstd.
package unpack

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
)

// maxWindow bounds the memory that a stream may ask for. xz -9 wants 64 MiB, zstd --long=27 wants 128.
const maxWindow = 128 << 20

var magics = []struct{ name, magic string }{
	{"gzip", "\x1f\x8b\x08"},
	{"xz", "\xfd7zXZ\x00"},
	{"zstd", "\x28\xb5\x2f\xfd"},
}

// Sniff names the compression of data that begins with head: "gzip", "xz", "zstd", or "" for anything else.
func Sniff(head []byte) string {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.name
		}
	}
	return ""
}

// Reader decompresses r, whose compression Sniff has named; with "" it is r itself. Close does not close r.
func Reader(r io.Reader, compression string) (io.ReadCloser, error) {
	switch compression {
	case "":
		return io.NopCloser(r), nil
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("the gzip data is damaged: %w", err)
		}
		return reader{z, "gzip", z.Close}, nil
	case "xz":
		z, err := xz.NewReader(r, maxWindow)
		if err != nil {
			return nil, fmt.Errorf("the xz data is damaged: %w", err)
		}
		return reader{z, "xz", func() error { return nil }}, nil
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("the zstd data is damaged: %w", err)
		}
		return reader{z, "zstd", func() error { z.Close(); return nil }}, nil
	}
	return nil, fmt.Errorf("there is no decompressor for %q", compression)
}

// reader names the compression in errors.
type reader struct {
	io.Reader
	name  string
	close func() error
}

func (r reader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("the %s data is damaged or cut off: %w", r.name, err)
	}
	return n, err
}

func (r reader) Close() error { return r.close() }

package images

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"bramble/images/internal/unpack"
)

// extracted is what extract has made of a file.
type extracted struct {
	sum, packedSum string // SHA-256 in hex
	size           int64
}

// extract unpacks the image in a file, plain or compressed, into a new sparse file. Both are hashed on the way.
func (c *Catalogue) extract(ctx context.Context, o origin, from, to string, progress func(Progress)) (x extracted, err error) {
	in, err := os.Open(from)
	if err != nil {
		return x, fmt.Errorf("the image cannot be opened: %w", err)
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return x, fmt.Errorf("the image cannot be opened: %w", err)
	}
	if !st.Mode().IsRegular() {
		return x, fmt.Errorf("%s is not a file", from)
	}
	tell := func(n int64) { progress(Progress{Unpacking, n, st.Size()}) }
	head := make([]byte, 512)
	n, _ := in.ReadAt(head, 0)
	head = head[:n]

	var image io.ReadCloser
	var packed hash.Hash
	size := o.Size
	if bytes.HasPrefix(head, []byte("PK\x03\x04")) {
		// A zip's directory is at its end, so it is hashed apart.
		if x.packedSum, err = sum(ctx, from, Checking, progress); err != nil {
			return x, err
		}
		var entry *zip.File
		if entry, err = zipEntry(in, st.Size()); err != nil {
			return x, err
		}
		size = int64(min(entry.UncompressedSize64, 1<<62))
		if image, err = entry.Open(); err != nil {
			return x, fmt.Errorf("%s in the zip cannot be unpacked: %w", entry.Name, err)
		}
		tell = func(n int64) { progress(Progress{Unpacking, n, size}) }
		image = io.NopCloser(&meter{r: image, tell: tell})
	} else {
		compression := unpack.Sniff(head)
		if known, ok := unpack.Size(in, st.Size(), compression); ok && size == 0 {
			size = known
		}
		packed = sha256.New()
		source := io.TeeReader(&meter{r: in, tell: tell}, packed)
		if image, err = unpack.Reader(source, compression); err != nil {
			return x, err
		}
		defer func() {
			if err == nil { // what the decompressor left unread
				_, err = io.Copy(io.Discard, source)
				x.packedSum = hex.EncodeToString(packed.Sum(nil))
			}
		}()
	}
	defer image.Close()
	if err := c.room(size); err != nil {
		return x, err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if err != nil {
		return x, fmt.Errorf("the image cannot be written: %w", err)
	}
	h := sha256.New()
	x.size, err = writeSparse(out, io.TeeReader(stopper{ctx, image}, h))
	err = errors.Join(noRoom(err), out.Sync(), out.Close())
	if err != nil {
		return x, fmt.Errorf("the image cannot be unpacked: %w", err)
	}
	x.sum = hex.EncodeToString(h.Sum(nil))
	return x, nil
}

func noRoom(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w; make room there, or keep the state directory on another disk: %w", errNoRoom, err)
	}
	return err
}

// zipEntry is the only image in a zip.
func zipEntry(r io.ReaderAt, size int64) (*zip.File, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("the zip is damaged or cut off: %w", err)
	}
	var found *zip.File
	for _, f := range z.File {
		if !strings.HasSuffix(strings.ToLower(f.Name), ".img") {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("the zip has more than one image, %s and %s; unpack the one that you want", found.Name, f.Name)
		}
		found = f
	}
	if found == nil {
		return nil, errors.New("the zip has no file that ends in .img")
	}
	return found, nil
}

// hole is the size of the pieces that are left out of the file when all their bytes are zero.
const hole = 4096

// writeSparse copies r into a new file, leaving holes for zeros.
func writeSparse(f *os.File, r io.Reader) (size int64, err error) {
	buf, zeros := make([]byte, 1<<20), make([]byte, hole)
	for {
		n, err := fill(r, buf)
		for start := 0; start < n; {
			end := start
			for end < n && !bytes.Equal(buf[end:min(end+hole, n)], zeros[:min(hole, n-end)]) {
				end = min(end+hole, n)
			}
			if end > start {
				if _, err := f.WriteAt(buf[start:end], size+int64(start)); err != nil {
					return 0, err
				}
			}
			start = end + hole // end is at a hole, or at the end
		}
		size += int64(n)
		if errors.Is(err, io.EOF) {
			return size, f.Truncate(size)
		}
		if err != nil {
			return 0, err
		}
	}
}

// fill is io.ReadFull, but the end is always io.EOF and a stream that is cut off never is.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

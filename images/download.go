package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A broken download goes on where it stopped, within an add and in the next one. It is given up after so many
// attempts in a row that brought nothing.
const (
	downloadTries = 5
	downloadStall = 60 * time.Second // without a byte
)

// partial is a download as far as it has come: a file, and beside it what identifies the server's version.
type partial struct {
	path string
	validators
}

type validators struct {
	ETag     string `json:"etag,omitempty"`
	Modified string `json:"modified,omitempty"`
	Total    int64  `json:"total"` // bytes; 0 when the server did not say
}

func (c *Catalogue) partial(from string) *partial {
	sum := sha256.Sum256([]byte(from))
	p := &partial{path: filepath.Join(c.dir, workDir, hex.EncodeToString(sum[:8])+".part")}
	if b, err := os.ReadFile(p.path + ".json"); err == nil {
		_ = json.Unmarshal(b, &p.validators) // damaged: begins anew
	}
	return p
}

// strong is what If-Range may carry: a strong ETag, or else the date.
func (v validators) strong() string {
	if v.ETag != "" && !strings.HasPrefix(v.ETag, "W/") {
		return v.ETag
	}
	return v.Modified
}

func (p *partial) have() int64 {
	if st, err := os.Stat(p.path); err == nil && p.strong() != "" {
		return st.Size()
	}
	return 0
}

func (p *partial) remove() {
	_ = os.Remove(p.path)
	_ = os.Remove(p.path + ".json")
}

// download fetches a whole file, in as many pieces as it takes.
func (c *Catalogue) download(ctx context.Context, o origin, p *partial, progress func(Progress)) error {
	pause := time.Second
	for tries := 0; ; {
		before := p.have()
		err := c.attempt(ctx, o, p, progress)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the download of %s was stopped; adding it again goes on from there: %w", o.URL, ctx.Err())
		}
		var status statusError
		if errors.As(err, &status) || errors.Is(err, errNoRoom) {
			return err // asking again would not help
		}
		if p.have() > before {
			tries, pause = 0, time.Second
		}
		if tries++; tries == downloadTries {
			return fmt.Errorf("the download of %s has failed %d times in a row; adding it again goes on from there: %w", o.URL, tries, err)
		}
		c.Log.Warn("The download broke off; it goes on.", "url", o.URL, "have", p.have(), "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			pause *= 2
		}
	}
}

// statusError is an HTTP status that ends a download.
type statusError struct{ url, status string }

func (e statusError) Error() string { return fmt.Sprintf("%s answers %s", e.url, e.status) }

var errStalled = fmt.Errorf("nothing came for %s", downloadStall)

var errNoRoom = errors.New("the disk is full")

func (c *Catalogue) attempt(ctx context.Context, o origin, p *partial, progress func(Progress)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(downloadStall, func() { cancel(errStalled) })
	defer stalled.Stop()

	header, have := http.Header{"Accept-Encoding": {"identity"}}, p.have() // the bytes as they were published
	if have > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", have))
		header.Set("If-Range", p.strong())
	}
	resp, err := c.get(ctx, o.URL, header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusPartialContent && strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", have)):
	case resp.StatusCode == http.StatusOK:
		have = 0
		p.validators = validators{resp.Header.Get("ETag"), resp.Header.Get("Last-Modified"), max(0, resp.ContentLength)}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && have > 0 && have == p.Total:
		return nil
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("%s answers %s", o.URL, resp.Status)
	case have > 0:
		p.remove()
		return fmt.Errorf("%s does not go on where the download stopped, so it begins anew: it answers %s", o.URL, resp.Status)
	default:
		return statusError{o.URL, resp.Status}
	}
	if o.DownloadSize > 0 && p.Total > 0 && p.Total != o.DownloadSize {
		return statusError{o.URL, fmt.Sprintf("with %d bytes, but the list of images says %d; try again later, when both fit", p.Total, o.DownloadSize)}
	}
	if err := c.roomFor(o, p.Total-have); err != nil {
		return err
	}
	f, err := p.open(have)
	if err != nil {
		return err
	}
	total := max(p.Total, o.DownloadSize)
	alive := func(n int64) {
		stalled.Reset(downloadStall)
		progress(Progress{Downloading, have + n, total})
	}
	n, err := io.Copy(f, &meter{r: resp.Body, tell: alive})
	err = errors.Join(noRoom(err), f.Sync(), f.Close())
	switch {
	case err != nil:
		return fmt.Errorf("%s broke off after %s: %w", o.URL, Bytes(have+n), err)
	case p.Total > 0 && have+n != p.Total:
		return fmt.Errorf("%s broke off after %s of %s", o.URL, Bytes(have+n), Bytes(p.Total))
	}
	return nil
}

// roomFor checks the disk before a download of rest bytes, together with the image if its size is known.
func (c *Catalogue) roomFor(o origin, rest int64) error {
	if err := c.room(max(0, rest) + o.Size); err != nil {
		return fmt.Errorf("%w: %w", errNoRoom, err)
	}
	return nil
}

// open continues the partial file at an offset, and notes what version of the server's file it is of.
func (p *partial) open(at int64) (*os.File, error) {
	b, err := json.Marshal(p.validators)
	if err == nil {
		err = os.WriteFile(p.path+".json", b, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("the download cannot be noted down: %w", err)
	}
	f, err := os.OpenFile(p.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the download cannot be written: %w", err)
	}
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return nil, errors.Join(fmt.Errorf("the download cannot be written: %w", err), f.Close())
	}
	return f, f.Truncate(at)
}

// meter tells how many bytes went through it.
type meter struct {
	r    io.Reader
	n    int64
	tell func(n int64)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	m.tell(m.n)
	return n, err
}

// unchanged asks the server whether a file is still the one with this ETag.
func (c *Catalogue) unchanged(ctx context.Context, from, etag string) bool {
	if etag == "" {
		return false
	}
	resp, err := c.get(ctx, from, http.Header{"If-None-Match": {etag}, "Range": {"bytes=0-0"}})
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusNotModified
}

// sum is the SHA-256 of a file in hex.
func sum(ctx context.Context, path string, phase Phase, progress func(Progress)) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s cannot be read: %w", path, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("%s cannot be read: %w", path, err)
	}
	h := sha256.New()
	tell := func(n int64) { progress(Progress{phase, n, st.Size()}) }
	if _, err := io.CopyBuffer(h, &meter{r: stopper{ctx, f}, tell: tell}, make([]byte, 1<<20)); err != nil {
		return "", fmt.Errorf("%s cannot be read: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// stopper ends reading when its context does.
type stopper struct {
	ctx context.Context //nolint:containedctx // a reader has no other way
	io.Reader
}

func (s stopper) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.Reader.Read(p)
}

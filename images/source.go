package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

type kind int

const (
	fromList kind = iota
	fromURL
	fromFile
)

// endings are those of the files that an image comes in.
var endings = []string{".img", ".img.xz", ".img.gz", ".img.zst", ".zip", ".xz", ".gz", ".zst"}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*$`)

// classify tells what a source is, by its form alone: a URL has ://, a file has a slash or one of the endings, and
// all else is a name.
func classify(source string) (kind, error) {
	if strings.Contains(source, "://") {
		u, err := url.Parse(source)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return 0, fmt.Errorf("%q is not a URL that can be fetched; it must begin with https:// or http://", source)
		}
		return fromURL, nil
	}
	if strings.ContainsRune(source, '/') || trimEnding(source) != source {
		return fromFile, nil
	}
	if !nameForm.MatchString(source) {
		return 0, fmt.Errorf("%q is neither a name, a URL nor a file; names look like raspios-lite-arm64, and a file has a slash in it or ends in .img, .img.xz, .img.gz, .img.zst or .zip", source)
	}
	return fromList, nil
}

func trimEnding(file string) string {
	longest := ""
	for _, e := range endings {
		if strings.HasSuffix(file, e) && len(e) > len(longest) {
			longest = e
		}
	}
	return strings.TrimSuffix(file, longest)
}

// origin is a source, looked up: where the bytes are and what is known of them beforehand.
type origin struct {
	osItem        // URL is empty for a file
	name   string // that the image will have
	file   string // local file
}

func (c *Catalogue) resolve(ctx context.Context, source string) (origin, error) {
	kind, err := classify(source)
	if err != nil {
		return origin{}, err
	}
	switch kind {
	case fromList:
		item, err := c.lookup(ctx, source)
		if err != nil {
			return origin{}, err
		}
		if item.thirtyTwo() {
			return origin{}, fmt.Errorf("%s (%s): %w", source, item.Name, ErrThirtyTwoBit)
		}
		return origin{osItem: item, name: source}, nil
	case fromURL:
		u, _ := url.Parse(source) // classify has tried it
		o := origin{osItem: osItem{URL: source}, name: nameFor(path.Base(u.Path))}
		if o.thirtyTwo() {
			return origin{}, fmt.Errorf("%s: %w", source, ErrThirtyTwoBit)
		}
		o.DownloadSHA256 = c.publishedSum(ctx, source)
		return o, nil
	}
	file, err := filepath.Abs(source)
	if err != nil {
		return origin{}, fmt.Errorf("the file %s cannot be found: %w", source, err)
	}
	return origin{name: nameFor(filepath.Base(file)), file: file}, nil
}

func nameFor(file string) string {
	if name := slug(trimEnding(file)); name != "" {
		return name
	}
	return "image"
}

// publishedSum is the SHA-256 that lies beside many images as URL.sha256, or "" if there is none.
func (c *Catalogue) publishedSum(ctx context.Context, from string) string {
	resp, err := c.get(ctx, from+".sha256", nil)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	first, _, _ := strings.Cut(string(b), " ")
	if first = strings.ToLower(strings.TrimSpace(first)); sumForm.MatchString(first) {
		return first
	}
	return ""
}

var sumForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// get sends a GET. The caller closes the body.
func (c *Catalogue) get(ctx context.Context, from string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be asked for: %w", from, err)
	}
	for key, values := range header {
		req.Header[key] = values
	}
	resp, err := c.Client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s does not answer: %w", from, err)
	}
	return resp, nil
}

// ErrThirtyTwoBit is wrapped by the errors for images whose programs or kernel are for 32 bits.
var ErrThirtyTwoBit = errors.New("this image is for 32 bits, and only 64-bit images can be booted over the network here; " +
	"take one whose name ends in arm64, like raspios-lite-arm64")

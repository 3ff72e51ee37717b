package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Phase is what an add or a verification is doing.
type Phase string

// The phases, in their order.
const (
	Waiting     Phase = "waiting" // for another add
	Looking     Phase = "looking up"
	Downloading Phase = "downloading"
	Unpacking   Phase = "unpacking"
	Checking    Phase = "checking"
)

// Progress tells how far an add has come.
type Progress struct {
	Phase Phase
	Done  int64 // bytes
	Total int64 // bytes; 0 when unknown
}

// Add obtains an image from a source: a name of the list of images (raspios-lite-arm64), a URL, or a file that ends
// in .img, .img.xz, .img.gz, .img.zst or .zip or has a slash in it. Size and SHA-256 of download and image are checked
// as far as they were published. One image is added at a time; others wait. Adding an image that is there costs
// nothing but gives it the name. progress is called often and from one goroutine at a time; nil is fine.
func (c *Catalogue) Add(ctx context.Context, source string, progress func(Progress)) (Info, error) {
	if progress == nil {
		progress = func(Progress) {}
	}
	unlock, err := c.lock(ctx, func() { progress(Progress{Phase: Waiting}) })
	if err != nil {
		return Info{}, err
	}
	defer unlock()
	info, err := c.add(ctx, source, progress)
	if err != nil {
		return Info{}, fmt.Errorf("%s was not added: %w", source, err)
	}
	return info, nil
}

func (c *Catalogue) add(ctx context.Context, source string, progress func(Progress)) (Info, error) {
	progress(Progress{Phase: Looking})
	o, err := c.resolve(ctx, source)
	if err != nil {
		return Info{}, err
	}
	if info, ok, err := c.present(ctx, o); ok || err != nil {
		return info, err
	}
	packed := o.file
	var p *partial
	if packed == "" {
		p = c.partial(o.URL)
		packed = p.path
		if err := c.download(ctx, o, p, progress); err != nil {
			return Info{}, err
		}
	}
	dir, err := os.MkdirTemp(filepath.Join(c.dir, workDir), "new-")
	if err != nil {
		return Info{}, fmt.Errorf("the image cannot be written: %w", err)
	}
	defer os.RemoveAll(dir)
	x, err := c.extract(ctx, o, packed, filepath.Join(dir, imageFile), progress)
	if err != nil {
		if p != nil && ctx.Err() == nil && !errors.Is(err, errNoRoom) {
			p.remove() // it would fail again
		}
		return Info{}, err
	}
	if err := o.compare(x, packed); err != nil {
		if p != nil {
			p.remove()
		}
		return Info{}, err
	}
	info := Info{
		ID: x.sum[:idLength], Names: []string{o.name}, Source: o.URL, SHA256: x.sum, Size: x.size, DownloadSHA256: x.packedSum,
		Released: o.Released, Added: c.Now().UTC().Truncate(time.Millisecond),
	}
	if st, err := os.Stat(packed); err == nil {
		info.DownloadSize = st.Size()
	}
	if p != nil {
		info.ETag = p.ETag
	} else {
		info.Source = o.file
	}
	progress(Progress{Phase: Checking})
	if info.Architecture, err = usable(filepath.Join(dir, imageFile)); err != nil {
		if p != nil {
			p.remove()
		}
		return Info{}, err
	}
	info, err = c.publish(dir, info)
	if err == nil && p != nil {
		p.remove()
	}
	return info, err
}

// present finds an image that need not be fetched because it is here.
func (c *Catalogue) present(ctx context.Context, o origin) (info Info, ok bool, err error) {
	list, err := c.List()
	if err != nil {
		return Info{}, false, err
	}
	for _, info := range list {
		if o.SHA256 != "" && info.SHA256 == o.SHA256 || o.URL != "" && info.Source == o.URL && c.unchanged(ctx, o.URL, info.ETag) {
			info, err = c.rename(info, o.name)
			return info, true, err
		}
	}
	return Info{}, false, nil
}

// compare checks what was unpacked against what was published.
func (o origin) compare(x extracted, packed string) error {
	st, err := os.Stat(packed)
	if err != nil {
		return fmt.Errorf("the download cannot be found any more: %w", err)
	}
	switch {
	case o.DownloadSize > 0 && st.Size() != o.DownloadSize:
		return fmt.Errorf("the download has %d bytes, but %d were published; it was thrown away, so add the image again", st.Size(), o.DownloadSize)
	case o.DownloadSHA256 != "" && x.packedSum != o.DownloadSHA256:
		return fmt.Errorf("the download has the SHA-256 %s, but %s was published; it was thrown away, so add the image again", x.packedSum, o.DownloadSHA256)
	case o.Size > 0 && x.size != o.Size:
		return fmt.Errorf("the image has %d bytes, but %d were published; it was thrown away, so add the image again", x.size, o.Size)
	case o.SHA256 != "" && x.sum != o.SHA256:
		return fmt.Errorf("the image has the SHA-256 %s, but %s was published; it was thrown away, so add the image again", x.sum, o.SHA256)
	}
	return nil
}

// publish moves a finished image into the catalogue, where it appears complete.
func (c *Catalogue) publish(dir string, info Info) (Info, error) {
	if there, err := c.read(info.ID); err == nil {
		return c.rename(there, info.Names[0])
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Info{}, err
	}
	if err := writeInfo(dir, info); err != nil {
		return Info{}, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return Info{}, fmt.Errorf("the image cannot be put into the catalogue: %w", err)
	}
	if err := os.Rename(dir, filepath.Join(c.dir, info.ID)); err != nil {
		return Info{}, fmt.Errorf("the image cannot be put into the catalogue: %w", err)
	}
	return info, syncDir(c.dir)
}

// Verify reads an image anew and compares its SHA-256 with that of the day it was added.
func (c *Catalogue) Verify(ctx context.Context, name string, progress func(Progress)) error {
	if progress == nil {
		progress = func(Progress) {}
	}
	info, err := c.Get(name)
	if err != nil {
		return err
	}
	got, err := sum(ctx, c.Path(info.ID), Checking, progress)
	if err != nil {
		return err
	}
	if got != info.SHA256 {
		return fmt.Errorf("image %s has changed on the disk: its SHA-256 is %s and was %s; remove it and add it again", name, got, info.SHA256)
	}
	return nil
}

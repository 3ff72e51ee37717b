// Package images is the catalogue of operating system images: it obtains, checks and unpacks them, and opens their
// parts. An image stays byte for byte what was published; it is opened read-only, and nothing is mounted.
//
// On disk, a catalogue is a directory with one directory for each image, named by the image's ID:
//
//	ID/image.img    the unpacked image; blocks of zeros are holes
//	ID/image.json   Info
//	.work/          downloads that can be resumed, and images that are being unpacked
//	.lock           held by whoever adds an image
//
// An image appears when its directory is renamed into place, complete and on the disk, or not at all.
package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ErrNotFound is wrapped by the errors for names that the catalogue does not have.
var ErrNotFound = errors.New("no such image")

// DefaultListURL is Raspberry Pi's own list of images, the one that Raspberry Pi Imager shows.
const DefaultListURL = "https://downloads.raspberrypi.com/os_list_imagingutility_v4.json"

// Options of a catalogue. The zero value is usable.
type Options struct {
	ListURL string           // where names are looked up; DefaultListURL when empty
	Client  *http.Client     // http.DefaultClient when nil
	Log     *slog.Logger     // slog.Default when nil
	Now     func() time.Time // time.Now when nil
}

// Catalogue is a directory of images. Several processes may use it at once.
type Catalogue struct {
	dir string
	Options
}

// Info is what the catalogue knows of an image.
type Info struct {
	ID             string    `json:"id"`    // the first twelve hex digits of SHA256
	Names          []string  `json:"names"` // what it goes by; an image of a later release may have the same name
	Source         string    `json:"source"`
	SHA256         string    `json:"sha256"`         // of the unpacked image
	Size           int64     `json:"size"`           // of the unpacked image in bytes
	DownloadSHA256 string    `json:"downloadSHA256"` // of the file as it came
	DownloadSize   int64     `json:"downloadSize"`
	ETag           string    `json:"etag,omitempty"`     // of Source, when it is a URL
	Released       string    `json:"released,omitempty"` // day of release as the list says, 2025-10-01
	Architecture   string    `json:"architecture"`       // of its programs: "arm64"; "" when unknown
	Added          time.Time `json:"added"`
}

const (
	imageFile = "image.img"
	infoFile  = "image.json"
	workDir   = ".work"
	lockFile  = ".lock"
	idLength  = 12
)

// Open opens the catalogue in a directory, which is made if need be, and removes what interrupted adds have left.
func Open(dir string, o Options) (*Catalogue, error) {
	if o.ListURL == "" {
		o.ListURL = DefaultListURL
	}
	if o.Client == nil {
		o.Client = http.DefaultClient
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Catalogue{dir: dir, Options: o}
	if err := os.MkdirAll(filepath.Join(dir, workDir), 0o755); err != nil {
		return nil, fmt.Errorf("the directory of images cannot be made; choose another state directory: %w", err)
	}
	return c, c.clean()
}

// keepDownloads is how long an unfinished download waits to be resumed.
const keepDownloads = 14 * 24 * time.Hour

// clean removes leftovers, unless somebody is adding an image right now.
func (c *Catalogue) clean() error {
	unlock, err := c.tryLock()
	if errors.Is(err, errLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	entries, err := os.ReadDir(filepath.Join(c.dir, workDir))
	if err != nil {
		return fmt.Errorf("the work directory of the images cannot be read: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !e.IsDir() && c.Now().Sub(info.ModTime()) < keepDownloads {
			continue
		}
		if err := os.RemoveAll(filepath.Join(c.dir, workDir, e.Name())); err != nil {
			return fmt.Errorf("what an interrupted add has left cannot be removed: %w", err)
		}
	}
	return nil
}

// List describes all images, the one added last at the end.
func (c *Catalogue) List() ([]Info, error) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, fmt.Errorf("the directory of images cannot be read: %w", err)
	}
	var list []Info
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		info, err := c.read(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // just removed, or a directory that is not ours
		}
		if err != nil {
			return nil, err
		}
		list = append(list, info)
	}
	slices.SortStableFunc(list, func(a, b Info) int { return a.Added.Compare(b.Added) })
	return list, nil
}

func (c *Catalogue) read(id string) (Info, error) {
	path := filepath.Join(c.dir, id, infoFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return Info{}, fmt.Errorf("the description of image %s cannot be read: %w", id, err)
	}
	var info Info
	if err := json.Unmarshal(b, &info); err != nil {
		return Info{}, fmt.Errorf("%s is damaged; remove the image's directory and add it again: %w", path, err)
	}
	if info.ID != id {
		return Info{}, fmt.Errorf("%s describes image %s; remove its directory and add the image again", path, info.ID)
	}
	return info, nil
}

// Get finds an image by ID, or by name; of several with one name it is the one that was added last.
func (c *Catalogue) Get(name string) (Info, error) {
	list, err := c.List()
	if err != nil {
		return Info{}, err
	}
	for _, info := range slices.Backward(list) {
		if info.ID == name || slices.Contains(info.Names, name) {
			return info, nil
		}
	}
	return Info{}, fmt.Errorf("%w as %q in the catalogue; bramble image list shows what there is, bramble image add gets more", ErrNotFound, name)
}

// Path is where an image's bytes are.
func (c *Catalogue) Path(id string) string { return filepath.Join(c.dir, id, imageFile) }

// Remove removes an image by ID or name. Nodes that run from it go on until the appliance is restarted.
func (c *Catalogue) Remove(name string) error {
	info, err := c.Get(name)
	if err != nil {
		return err
	}
	trash, err := os.MkdirTemp(filepath.Join(c.dir, workDir), "removed-")
	if err == nil {
		err = os.Rename(filepath.Join(c.dir, info.ID), filepath.Join(trash, info.ID))
	}
	if err == nil {
		err = os.RemoveAll(trash)
	}
	if err != nil {
		return fmt.Errorf("image %s cannot be removed: %w", name, err)
	}
	return nil
}

// Name gives an image one more name.
func (c *Catalogue) Name(id, name string) (Info, error) {
	if kind, err := classify(name); err != nil || kind != fromList {
		return Info{}, fmt.Errorf("%q cannot be a name of an image; use small letters, digits, dots and dashes", name)
	}
	info, err := c.Get(id)
	if err != nil {
		return Info{}, err
	}
	return c.rename(info, name)
}

// rename adds a name, and makes the image the latest of those that have it.
func (c *Catalogue) rename(info Info, name string) (Info, error) {
	if !slices.Contains(info.Names, name) {
		info.Names = append(info.Names, name)
	}
	info.Added = c.Now().UTC().Truncate(time.Millisecond)
	return info, writeInfo(filepath.Join(c.dir, info.ID), info)
}

// writeInfo replaces an image's description in one step.
func writeInfo(dir string, info Info) error {
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return fmt.Errorf("the description of image %s cannot be written: %w", info.ID, err)
	}
	f, err := os.CreateTemp(dir, infoFile+"-")
	if err != nil {
		return fmt.Errorf("the description of image %s cannot be written: %w", info.ID, err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, infoFile))
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("the description of image %s cannot be written: %w", info.ID, err)
	}
	return syncDir(dir)
}

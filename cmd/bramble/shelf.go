package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"sync"

	"bramble/boot"
	"bramble/images"
	"bramble/images/initramfs"
	"bramble/nbd"
)

// The program that runs as /init on the nodes; make build puts it here.
//
//go:embed embed
var embedded embed.FS

func stage1Program() ([]byte, error) {
	b, err := embedded.ReadFile("embed/stage1")
	if err != nil {
		return nil, errors.New("this bramble was built without stage 1 inside, so no board could boot; build it with make build")
	}
	return b, nil
}

// What stage 1 needs of a kernel, and what it takes when the kernel has it as a module: USB network of the 2 and 3,
// of the 4 and 5, and of QEMU's boards.
var (
	needModules = []string{"nbd", "overlay"}
	wantModules = []string{
		"crc32c_generic", "dwc2", "phy_generic", "lan78xx", "smsc95xx", "microchip", "cdc_ether", "rndis_host",
		"genet", "bcmgenet", "macb", "broadcom", "virtio_net", "virtio_pci",
	}
)

// shelf keeps the images that boots use open, by ID, each with its initramfs. It answers the TFTP tree and the block server.
type shelf struct {
	catalogue *images.Catalogue
	stage1    []byte

	mu   sync.Mutex
	open map[string]*shelved
}

type shelved struct {
	*images.Image
	once      sync.Once
	initramfs []byte
	err       error
}

func newShelf(c *images.Catalogue, stage1 []byte) *shelf {
	return &shelf{catalogue: c, stage1: stage1, open: map[string]*shelved{}}
}

func (s *shelf) get(id string) (*shelved, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if img := s.open[id]; img != nil {
		return img, nil
	}
	img, err := s.catalogue.Open(id)
	if err != nil {
		return nil, err
	}
	s.open[id] = &shelved{Image: img}
	return s.open[id], nil
}

// Boot is the FAT partition of an image.
func (s *shelf) Boot(id string) (fs.FS, error) {
	img, err := s.get(id)
	if err != nil {
		return nil, err
	}
	return img.Image.Boot(), nil
}

// Stage1 is the initramfs for an image's kernel, built at the first call.
func (s *shelf) Stage1(ctx context.Context, id string) ([]byte, error) {
	img, err := s.get(id)
	if err != nil {
		return nil, err
	}
	img.once.Do(func() { img.initramfs, img.err = buildInitramfs(context.WithoutCancel(ctx), img.Image, s.stage1) })
	return img.initramfs, img.err
}

func buildInitramfs(ctx context.Context, img *images.Image, stage1 []byte) ([]byte, error) {
	modules, err := img.Modules()
	if err != nil {
		return nil, err
	}
	release, err := img.Release("kernel8.img")
	if err != nil {
		return nil, err
	}
	need := append([]string{img.Root().FSType}, needModules...)
	return initramfs.Build(ctx, initramfs.Spec{Init: stage1, Modules: modules, Release: release, Need: need, Want: wantModules})
}

// Open opens an image's root for one connection of the block server.
func (s *shelf) Open(_ context.Context, id string) (nbd.Export, error) {
	img, err := s.get(id)
	if errors.Is(err, images.ErrNotFound) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(s.catalogue.Path(img.ID))
	if err != nil {
		return nil, fmt.Errorf("the image cannot be opened: %w", err)
	}
	return nbd.NewFileSection(f, img.Root().Offset, img.Root().Size), nil
}

// Names lists the block exports.
func (s *shelf) Names() []string {
	all, _ := s.catalogue.List()
	var ids []string
	for _, info := range all {
		ids = append(ids, info.ID)
	}
	return ids
}

// byName is what every name of the catalogue means now; an ID means itself.
func byName(c *images.Catalogue) (map[string]string, error) {
	all, err := c.List()
	if err != nil {
		return nil, err
	}
	ids := map[string]string{}
	for _, info := range all {
		ids[info.ID] = info.ID
		for _, name := range info.Names {
			if now, err := c.Get(name); err == nil {
				ids[name] = now.ID
			}
		}
	}
	return ids, nil
}

// policy is the rules of the settings, with the catalogue as it is now.
type policy struct {
	catalogue *images.Catalogue
	mu        sync.Mutex
	rules     boot.Rules
}

func (p *policy) Rules() boot.Rules {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rules
}

// refresh looks into the catalogue again; it reports whether anything changed.
func (p *policy) refresh() (bool, error) {
	ids, err := byName(p.catalogue)
	if err != nil {
		return false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := !maps.Equal(p.rules.Images, ids)
	p.rules.Images = ids
	return changed, nil
}

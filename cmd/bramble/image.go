package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"bramble/configs"
	"bramble/images"
)

// obtain finds the image that the settings name, and every one that a rule names; what is not there is fetched and verified.
func obtain(ctx context.Context, c *images.Catalogue, s configs.Settings) (images.Info, error) {
	for _, rule := range s.Rules {
		if rule.Image != "" {
			if _, err := obtainOne(ctx, c, rule.Image); err != nil {
				return images.Info{}, err
			}
		}
	}
	return obtainOne(ctx, c, s.Image)
}

func obtainOne(ctx context.Context, c *images.Catalogue, name string) (images.Info, error) {
	info, err := c.Get(name)
	if errors.Is(err, images.ErrNotFound) {
		return add(ctx, c, name)
	}
	return info, err
}

// add fetches an image under a progress bar.
func add(ctx context.Context, c *images.Catalogue, source string) (images.Info, error) {
	bar := newBar(os.Stderr, source)
	info, err := c.Add(ctx, source, bar.show)
	bar.end()
	if err != nil {
		return info, err
	}
	fmt.Fprintf(os.Stderr, "%s is in the catalogue: %s, %s, verified.\n", list(info.Names), info.ID, images.Bytes(info.Size))
	return info, nil
}

func imageCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Obtain, check and remove operating system images"}
	state := cmd.PersistentFlags().String("state-dir", "/var/lib/bramble", "where images are kept")
	url := cmd.PersistentFlags().String("image-list", images.DefaultListURL, "catalogue of images that names are looked up in")
	open := func() (*images.Catalogue, error) {
		return images.Open(filepath.Join(*state, "images"), images.Options{ListURL: *url})
	}
	sub := func(use, short string, args cobra.PositionalArgs, run func(ctx context.Context, c *images.Catalogue, args []string) error) {
		cmd.AddCommand(&cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
			c, err := open()
			if err != nil {
				return err
			}
			return run(cmd.Context(), c, args)
		}})
	}
	sub("add NAME|URL|FILE [AS]", "Obtain and verify an image, under the name AS if one is given", cobra.RangeArgs(1, 2),
		func(ctx context.Context, c *images.Catalogue, args []string) error {
			info, err := add(ctx, c, args[0])
			if err == nil && len(args) > 1 {
				_, err = c.Name(info.ID, args[1])
			}
			return err
		})
	sub("list", "List the catalogue", cobra.NoArgs, func(_ context.Context, c *images.Catalogue, _ []string) error {
		all, err := c.List()
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tNAMES\tSIZE\tRELEASED\tFROM")
		for _, i := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", i.ID, list(i.Names), images.Bytes(i.Size), orWord(i.Released, "-"), i.Source)
		}
		return w.Flush()
	})
	sub("inspect NAME", "Show partitions, kernels and boot files", cobra.ExactArgs(1), func(_ context.Context, c *images.Catalogue, args []string) error {
		r, err := c.Inspect(args[0])
		if err != nil {
			return err
		}
		return inspect(os.Stdout, r)
	})
	sub("verify NAME", "Read an image again and compare its SHA-256", cobra.ExactArgs(1), func(ctx context.Context, c *images.Catalogue, args []string) error {
		bar := newBar(os.Stderr, args[0])
		err := c.Verify(ctx, args[0], bar.show)
		bar.end()
		if err == nil {
			fmt.Printf("%s is what was published.\n", args[0])
		}
		return err
	})
	sub("remove NAME", "Remove an image", cobra.ExactArgs(1), func(_ context.Context, c *images.Catalogue, args []string) error {
		return c.Remove(args[0])
	})
	return cmd
}

func listImages(c *images.Catalogue) []apiImage {
	all, _ := c.List()
	var list []apiImage
	for _, i := range all {
		list = append(list, apiImage{Name: slices.Concat(i.Names, []string{i.ID})[0], ID: i.ID, Title: i.Source, Bytes: i.Size, Added: i.Added})
	}
	return list
}

// bar shows progress: a moving line on a terminal, a line every tenth elsewhere.
type bar struct {
	w     io.Writer
	name  string
	live  bool
	phase images.Phase
	tenth int64
}

func newBar(w *os.File, name string) *bar {
	return &bar{w: w, name: filepath.Base(name), live: term.IsTerminal(int(w.Fd())), tenth: -1}
}

func (b *bar) show(p images.Progress) {
	if p.Phase != b.phase {
		b.end()
		b.phase, b.tenth = p.Phase, -1
	}
	tenth := int64(-1)
	if p.Total > 0 {
		tenth = 10 * p.Done / p.Total
	}
	switch {
	case b.live && p.Total > 0:
		const width = 30
		full := int(min(width, width*p.Done/p.Total))
		fmt.Fprintf(b.w, "\r%-12s %s  [%s%s] %3d %%  %s of %s \x1b[K", b.phase, b.name, strings.Repeat("#", full), strings.Repeat(".", width-full),
			100*p.Done/p.Total, images.Bytes(p.Done), images.Bytes(p.Total))
	case b.live:
		fmt.Fprintf(b.w, "\r%-12s %s  %s \x1b[K", b.phase, b.name, images.Bytes(p.Done))
	case tenth > b.tenth:
		fmt.Fprintf(b.w, "%-12s %s  %3d %%\n", b.phase, b.name, 10*tenth)
	}
	b.tenth = max(b.tenth, tenth)
}

func (b *bar) end() {
	if b.live && b.phase != "" {
		fmt.Fprintln(b.w)
	}
}

package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// osList is the JSON of Raspberry Pi Imager (rpi-imager, doc/json-schema), as far as it matters here.
type osList struct {
	Items []osItem `json:"os_list"`
}

type osItem struct {
	Name           string   `json:"name"`
	URL            string   `json:"url"`
	Size           int64    `json:"extract_size"`
	SHA256         string   `json:"extract_sha256"`
	DownloadSize   int64    `json:"image_download_size"`
	DownloadSHA256 string   `json:"image_download_sha256"`
	Released       string   `json:"release_date"`
	Architecture   string   `json:"architecture"`
	Devices        []string `json:"devices"`
	Subitems       []osItem `json:"subitems"`
	SubitemsURL    string   `json:"subitems_url"`
}

// names are what an entry can be asked for by. Raspberry Pi's own images go by the folder on the download server,
// with dashes: .../raspios_lite_arm64/images/... is raspios-lite-arm64, always the latest. All others go by the
// title that Imager shows, in small letters with dashes for everything else: "Ubuntu Server 24.04 LTS (64-bit)" is
// ubuntu-server-24.04-lts-64-bit.
func (i osItem) names() []string {
	names := []string{slug(i.Name)}
	if u, err := url.Parse(i.URL); err == nil {
		if folder, _, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/images/"); ok && !strings.Contains(folder, "/") {
			names = append([]string{slug(folder)}, names...)
		}
	}
	return names
}

func slug(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.':
			b.WriteRune(r)
		case !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	return strings.Trim(b.String(), "-.")
}

// thirtyTwo reports whether the list says that an entry is for 32 bits.
func (i osItem) thirtyTwo() bool {
	switch i.Architecture {
	case "armhf", "armel", "armv6", "armv7":
		return true
	case "arm64", "armv8", "aarch64":
		return false
	}
	not32 := func(d string) bool { return !strings.HasSuffix(d, "-32bit") }
	return len(i.Devices) > 0 && !slices.ContainsFunc(i.Devices, not32) || strings.Contains(i.URL, "armhf")
}

const (
	maxList  = 16 << 20 // bytes of one list; the real one has about half a megabyte
	maxDepth = 4        // of lists in lists
	maxLists = 64       // fetched for one name
)

// lookup finds a name in the list. Entries inside of the list come first; lists that it refers to, which belong to
// others, are only fetched for a name that is not found otherwise.
func (c *Catalogue) lookup(ctx context.Context, name string) (osItem, error) {
	items, err := c.fetchList(ctx, c.ListURL)
	if err != nil {
		return osItem{}, fmt.Errorf("the list of images cannot be read, so %q cannot be looked up; is this machine online? A URL or a file can be added without the list: %w", name, err)
	}
	var all []osItem
	var failed []error
	fetched := 0
	for depth := 0; len(items) > 0 && depth < maxDepth; depth++ {
		var lists []string
		var flat func(items []osItem, depth int)
		flat = func(items []osItem, depth int) {
			for _, i := range items {
				all = append(all, i)
				if i.SubitemsURL != "" {
					lists = append(lists, i.SubitemsURL)
				}
				if depth > 0 {
					flat(i.Subitems, depth-1)
				}
			}
		}
		flat(items, 8)
		if item, ok := latest(all, name); ok {
			return item, nil
		}
		items = nil
		for _, u := range lists {
			if fetched++; fetched > maxLists {
				break
			}
			more, err := c.fetchList(ctx, u)
			if err != nil {
				failed = append(failed, err)
			}
			items = append(items, more...)
		}
	}
	err = fmt.Errorf("%w as %q in the list of images; it has %s", ErrNotFound, name, strings.Join(similar(all, name), ", "))
	if failed != nil {
		err = errors.Join(err, fmt.Errorf("some of the lists that it refers to could not be read: %w", errors.Join(failed...)))
	}
	return osItem{}, err
}

// latest is the entry of a name that was released last.
func latest(items []osItem, name string) (best osItem, ok bool) {
	for _, i := range items {
		if i.URL != "" && slices.Contains(i.names(), name) && (!ok || i.Released > best.Released) {
			best, ok = i, true
		}
	}
	return best, ok
}

// similar are at most twelve names of the list, those first that share most words with a name.
func similar(items []osItem, name string) []string {
	words := strings.Split(name, "-")
	score := func(s string) (n int) {
		for _, w := range words {
			if slices.Contains(strings.Split(s, "-"), w) {
				n++
			}
		}
		return n
	}
	var names []string
	for _, i := range items {
		if n := i.names()[0]; i.URL != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return score(b) - score(a) })
	return names[:min(12, len(names))]
}

func (c *Catalogue) fetchList(ctx context.Context, from string) ([]osItem, error) {
	resp, err := c.get(ctx, from, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", from, resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxList))
	if err != nil {
		return nil, fmt.Errorf("%s broke off: %w", from, err)
	}
	return parseList(from, b)
}

func parseList(from string, b []byte) ([]osItem, error) {
	var list osList
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%s is not a list of images: %w", from, err)
	}
	base, err := url.Parse(from)
	if err != nil {
		return nil, fmt.Errorf("%s is not a URL: %w", from, err)
	}
	var resolve func(items []osItem)
	resolve = func(items []osItem) {
		for i := range items {
			items[i].URL, items[i].SubitemsURL = reference(base, items[i].URL), reference(base, items[i].SubitemsURL)
			resolve(items[i].Subitems)
		}
	}
	resolve(list.Items)
	return list.Items, nil
}

// reference makes a URL absolute; one that is none becomes empty.
func reference(base *url.URL, ref string) string {
	u, err := url.Parse(ref)
	if err != nil || ref == "" {
		return ""
	}
	return base.ResolveReference(u).String()
}

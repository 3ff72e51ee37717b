package images

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func hexSum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// catalogue is an empty one whose clock moves a minute with each look.
func catalogue(t *testing.T, o Options) *Catalogue {
	t.Helper()
	var minutes atomic.Int64
	o.Now = func() time.Time {
		return time.Date(2026, 1, 1, 0, int(minutes.Add(1)), 0, 0, time.UTC)
	}
	o.Log = slog.New(slog.DiscardHandler)
	c, err := Open(filepath.Join(t.TempDir(), "images"), o)
	check(t, err)
	return c
}

// left is what is in the work directory.
func left(t *testing.T, c *Catalogue) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(c.dir, workDir))
	check(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestAddFile(t *testing.T) {
	image := build(t, standard)
	var zipped bytes.Buffer
	z := zip.NewWriter(&zipped)
	for name, data := range map[string][]byte{"README": []byte("hello"), "dir/some.img": image} {
		w, err := z.Create(name)
		check(t, err)
		_, err = w.Write(data)
		check(t, err)
	}
	check(t, z.Close())
	for name, packed := range map[string][]byte{
		"Lab_Image.img": image,
		"lab.img.xz":    tool(t, image, "xz", "-0c"),
		"lab.img.gz":    tool(t, image, "gzip", "-1c"),
		"lab.img.zst":   tool(t, image, "zstd", "-qc"),
		"lab.zip":       zipped.Bytes(),
	} {
		t.Run(name, func(t *testing.T) {
			c := catalogue(t, Options{})
			file := filepath.Join(t.TempDir(), name)
			check(t, os.WriteFile(file, packed, 0o600))
			var last Progress
			info, err := c.Add(context.Background(), file, func(p Progress) {
				if p.Phase == last.Phase && p.Done < last.Done || p.Total > 0 && p.Done > p.Total {
					t.Errorf("progress went from %+v to %+v", last, p)
				}
				last = p
			})
			check(t, err)
			want := Info{
				ID: hexSum(image)[:12], Names: []string{strings.ToLower(strings.Trim(slug(trimEnding(name)), "-"))}, Source: file,
				SHA256: hexSum(image), Size: int64(len(image)), DownloadSHA256: hexSum(packed), DownloadSize: int64(len(packed)),
				Architecture: "arm64", Added: info.Added,
			}
			if d := cmp.Diff(want, info); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			got, err := os.ReadFile(c.Path(info.ID))
			if err != nil || !bytes.Equal(got, image) {
				t.Errorf("the unpacked image has %d bytes (%v), or others than it should", len(got), err)
			}
			st, err := os.Stat(c.Path(info.ID))
			check(t, err)
			if blocks := st.Sys().(*syscall.Stat_t).Blocks * 512; blocks > int64(len(image))/2 || st.Mode().Perm() != 0o444 {
				t.Errorf("the image takes %d of its %d bytes on the disk, mode %v; want it sparse and read-only", blocks, len(image), st.Mode())
			}
			check(t, c.Verify(context.Background(), info.ID, nil))
			if names := left(t, c); names != nil {
				t.Errorf("left in the work directory: %v", names)
			}
		})
	}
}

func TestNamesAndRemoval(t *testing.T) {
	c := catalogue(t, Options{})
	add := func(seed string) Info {
		r := standard
		r.seed = seed
		file := filepath.Join(t.TempDir(), "lab.img")
		check(t, os.WriteFile(file, build(t, r), 0o600))
		info, err := c.Add(context.Background(), file, nil)
		check(t, err)
		return info
	}
	if _, err := c.Get("lab"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of an empty catalogue: %v, want ErrNotFound", err)
	}
	first, second := add("1"), add("2")
	latest := func(want Info) {
		t.Helper()
		if got, err := c.Get("lab"); err != nil || got.ID != want.ID {
			t.Errorf("lab is %s, %v; want %s", got.ID, err, want.ID)
		}
	}
	latest(second)
	if got, err := c.Get(first.ID); err != nil || got.ID != first.ID {
		t.Errorf("the first by ID: %v, %v", got, err)
	}
	again := add("1")
	if again.ID != first.ID || len(again.Names) != 1 {
		t.Errorf("added again: %+v, want the first", again)
	}
	latest(first)
	named, err := c.Name(second.ID, "raspios-lite-arm64")
	check(t, err)
	if d := cmp.Diff([]string{"lab", "raspios-lite-arm64"}, named.Names); d != "" {
		t.Error(d)
	}
	if _, err := c.Name(second.ID, "../x"); err == nil {
		t.Error("Name took ../x")
	}
	img, err := c.Open("raspios-lite-arm64")
	check(t, err)
	defer img.Close()
	check(t, c.Remove("raspios-lite-arm64"))
	if _, err := fs.ReadFile(img.Boot(), "config.txt"); err != nil {
		t.Errorf("an open image cannot be read after it was removed: %v", err)
	}
	latest(first)
	list, err := c.List()
	if err != nil || len(list) != 1 {
		t.Errorf("List = %v, %v; want one image", list, err)
	}
	check(t, os.WriteFile(filepath.Join(c.dir, first.ID, infoFile), []byte("{"), 0o600))
	if _, err := c.List(); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("List with a damaged description: %v", err)
	}
}

func TestVerify(t *testing.T) {
	c := catalogue(t, Options{})
	file := filepath.Join(t.TempDir(), "lab.img")
	check(t, os.WriteFile(file, build(t, standard), 0o600))
	info, err := c.Add(context.Background(), file, nil)
	check(t, err)
	check(t, os.Chmod(c.Path(info.ID), 0o600))
	f, err := os.OpenFile(c.Path(info.ID), os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteAt([]byte{1}, rootAt+rootSize-1)
	check(t, errors.Join(err, f.Close()))
	if err := c.Verify(context.Background(), "lab", nil); err == nil || !strings.Contains(err.Error(), "changed") {
		t.Errorf("Verify of a changed image: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Verify(ctx, "lab", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestImage(t *testing.T) {
	c := catalogue(t, Options{})
	file := filepath.Join(t.TempDir(), "lab.img")
	check(t, os.WriteFile(file, build(t, standard), 0o600))
	_, err := c.Add(context.Background(), file, nil)
	check(t, err)
	img, err := c.Open("lab")
	check(t, err)
	defer img.Close()
	if err := fstest.TestFS(img.Boot(), "config.txt", "kernel8.img", "kernel_2712.img"); err != nil {
		t.Error(err)
	}
	root := img.Root()
	if root.Offset != rootAt || root.Size != rootSize || root.FSType != "ext4" {
		t.Errorf("root at %d with %d bytes of %s; want %d, %d, ext4", root.Offset, root.Size, root.FSType, rootAt, rootSize)
	}
	a, b := make([]byte, 4096), make([]byte, 4096)
	_, err = root.ReadAt(a, 1024)
	check(t, err)
	_, err = root.File.ReadAt(b, root.Offset+1024)
	check(t, err)
	if !bytes.Equal(a, b) {
		t.Error("the root's bytes are not those of the file at its offset")
	}
	for kernel, want := range map[string]string{"kernel8.img": "6.12.47+rpt-rpi-v8", "kernel_2712.img": "6.12.47+rpt-rpi-2712", "absent.img": ""} {
		got, err := img.Release(kernel)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("Release(%s) = %q, %v, want %q", kernel, got, err, want)
		}
	}
	modules, err := img.Modules()
	check(t, err)
	if b, err := fs.ReadFile(modules, "6.12.47+rpt-rpi-v8/kernel/nbd.ko"); err != nil || string(b) != "\x7fELF nbd of 6.12.47+rpt-rpi-v8" {
		t.Errorf("nbd.ko: %q, %v", b, err)
	}
	report, err := c.Inspect("lab")
	check(t, err)
	if report.OS != "Debian GNU/Linux 13 (trixie)" || report.Problems != nil || len(report.Boot) != 3 || report.Architecture != "arm64" ||
		len(report.Parts) != 2 || report.Parts[0].FSType != "vfat" || !strings.EqualFold(report.Parts[0].Label, "bootfs") || report.Parts[1].Label != "rootfs" {
		t.Errorf("report: %+v", report)
	}
	if d := cmp.Diff([]Kernel{{"kernel8.img", "6.12.47+rpt-rpi-v8"}, {"kernel_2712.img", "6.12.47+rpt-rpi-2712"}}, report.Kernels); d != "" {
		t.Error(d)
	}
}

func TestRefused(t *testing.T) {
	with := func(change func(*recipe)) []byte {
		r := standard
		change(&r)
		return build(t, r)
	}
	image := build(t, standard)
	for _, c := range []struct {
		name, file string
		data       []byte
		is         error
		says       string
	}{
		{"programs for 32 bits", "a.img", with(func(r *recipe) { r.machine = 0x28 }), ErrThirtyTwoBit, "64-bit"},
		{"kernel for 32 bits", "a.img", with(func(r *recipe) { r.kernels = []string{"kernel7.img", "6.12"} }), ErrThirtyTwoBit, ""},
		{"for a PC", "a.img", with(func(r *recipe) { r.machine = 0x3e }), nil, "amd64"},
		{"no kernel", "a.img", with(func(r *recipe) { r.kernels = nil }), nil, "no kernel8.img"},
		{"root is squashfs", "a.img", with(func(r *recipe) { r.fstype = "squashfs" }), nil, "squashfs"},
		{"no table", "a.img", make([]byte, 1<<20), nil, "no partition"},
		{"empty", "a.img", nil, nil, "empty"},
		{"cut off", "a.img", image[:12<<20], nil, "cut off"},
		{"xz cut off", "a.img.xz", tool(t, image, "xz", "-0c")[:3000], nil, "damaged or cut off"},
		{"no such file", "none/such.img", nil, fs.ErrNotExist, ""},
		{"zip without an image", "a.zip", []byte("PK\x03\x04 and so on"), nil, "zip"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cat := catalogue(t, Options{})
			file := filepath.Join(t.TempDir(), c.file)
			if !strings.Contains(c.file, "/") {
				check(t, os.WriteFile(file, c.data, 0o600))
			}
			info, err := cat.Add(context.Background(), file, nil)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Add = %+v, %v; want an error with %q (%v)", info, err, c.says, c.is)
			}
			if list, err := cat.List(); len(list) != 0 || err != nil || left(t, cat) != nil {
				t.Errorf("in the catalogue: %v, %v, and in the work directory: %v; want nothing", list, err, left(t, cat))
			}
		})
	}
}

func TestClassify(t *testing.T) {
	for source, want := range map[string]int{
		"raspios-lite-arm64": int(fromList), "ubuntu-server-24.04-lts-64-bit": int(fromList), "https://host/x.img.xz": int(fromURL),
		"./x": int(fromFile), "x.img": int(fromFile), "x.img.zst": int(fromFile), "/dev/sda": int(fromFile),
		"ftp://host/x": -1, "https://": -1, "Raspberry Pi OS": -1, "": -1, "-x": -1,
	} {
		got, err := classify(source)
		if (err != nil) != (want < 0) || err == nil && int(got) != want {
			t.Errorf("classify(%q) = %v, %v; want %d", source, got, err, want)
		}
	}
}

func TestOpenCleans(t *testing.T) {
	dir := t.TempDir()
	work := filepath.Join(dir, workDir)
	check(t, os.MkdirAll(filepath.Join(work, "new-1"), 0o755))
	for name, age := range map[string]time.Duration{"fresh.part": time.Hour, "old.part": keepDownloads + time.Hour} {
		check(t, os.WriteFile(filepath.Join(work, name), []byte("x"), 0o600))
		check(t, os.Chtimes(filepath.Join(work, name), time.Time{}, time.Now().Add(-age)))
	}
	c, err := Open(dir, Options{})
	check(t, err)
	if d := cmp.Diff([]string{"fresh.part"}, left(t, c)); d != "" {
		t.Errorf("after Open (-want +got):\n%s", d)
	}
	unlock, err := c.tryLock()
	check(t, err)
	check(t, os.MkdirAll(filepath.Join(work, "new-2"), 0o755))
	if _, err := Open(dir, Options{}); err != nil {
		t.Errorf("Open while somebody adds: %v", err)
	}
	if len(left(t, c)) != 2 {
		t.Errorf("Open has removed what somebody is working on; left: %v", left(t, c))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Add(ctx, "x.img", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Add while somebody adds: %v, want DeadlineExceeded", err)
	}
	unlock()
}

// server publishes one image under a list. It counts requests, and breaks connections off after limit bytes.
type server struct {
	*httptest.Server
	packed   []byte
	list     func() osList
	limit    atomic.Int64
	busy     atomic.Int64 // so many requests to go on are answered 503
	etag     atomic.Value
	mu       sync.Mutex
	requests []string
}

func serve(t *testing.T, image []byte) *server {
	t.Helper()
	s := &server{packed: tool(t, image, "xz", "-0c")}
	s.etag.Store(`"1"`)
	s.list = func() osList {
		item := osItem{
			Name: "Raspberry Pi OS Lite (64-bit)", URL: "/raspios_lite_arm64/images/raspios_lite_arm64-2025-10-02/2025-10-01-raspios-trixie-arm64-lite.img.xz",
			Size: int64(len(image)), SHA256: hexSum(image), DownloadSize: int64(len(s.packed)), DownloadSHA256: hexSum(s.packed), Released: "2025-10-01",
		}
		old := item
		old.Released, old.URL = "2024-01-01", "/raspios_lite_arm64/images/old/old.img.xz"
		small := osItem{Name: "Raspberry Pi OS Lite (32-bit)", URL: "/raspios_lite_armhf/images/x/x.img.xz", Devices: []string{"pi3-32bit"}}
		return osList{Items: []osItem{{Name: "Raspberry Pi OS (other)", Subitems: []osItem{old, item, small}}, {Name: "Others", SubitemsURL: "/others.json"}}}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/list.json", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(s.list()) })
	mux.HandleFunc("/others.json", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(osList{Items: []osItem{{Name: "Ubuntu Server 24.04 LTS (64-bit)", URL: "/ubuntu.img.xz"}}})
	})
	mux.HandleFunc("/plain.img.xz.sha256", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "%s  plain.img.xz\n", hexSum(s.packed)) })
	mux.HandleFunc("/wrong.img.xz.sha256", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "%064x  x\n", 5) })
	mux.HandleFunc("/none.img.xz", http.NotFound)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, ".img.xz") {
			http.NotFound(w, r)
			return
		}
		s.mu.Lock()
		s.requests = append(s.requests, r.Header.Get("Range"))
		s.mu.Unlock()
		if r.Header.Get("Range") != "" && s.busy.Add(-1) >= 0 {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("ETag", s.etag.Load().(string))
		if limit := s.limit.Load(); limit > 0 {
			w = &breaking{w, limit}
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.packed))
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

type breaking struct {
	http.ResponseWriter
	rest int64
}

func (b *breaking) Write(p []byte) (int, error) {
	n, err := b.ResponseWriter.Write(p[:min(int64(len(p)), b.rest)])
	if b.rest -= int64(n); b.rest == 0 {
		b.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func TestAddFromList(t *testing.T) {
	image := build(t, standard)
	s := serve(t, image)
	c := catalogue(t, Options{ListURL: s.URL + "/list.json"})
	info, err := c.Add(context.Background(), "raspios-lite-arm64", nil)
	check(t, err)
	if info.Released != "2025-10-01" || info.Names[0] != "raspios-lite-arm64" || info.SHA256 != hexSum(image) || info.ETag != `"1"` ||
		!strings.HasSuffix(info.Source, "-lite.img.xz") || left(t, c) != nil {
		t.Errorf("added %+v, left %v", info, left(t, c))
	}
	if again, err := c.Add(context.Background(), "raspios-lite-arm64", nil); err != nil || again.ID != info.ID || len(s.requests) != 1 {
		t.Errorf("added again: %v, %v, requests %q; want the same image and one request", again.ID, err, s.requests)
	}
	if other, err := c.Add(context.Background(), "ubuntu-server-24.04-lts-64-bit", nil); err != nil || other.ID != info.ID || len(other.Names) != 2 {
		t.Errorf("the same image from another list: %+v, %v", other, err)
	}
	for name, want := range map[string]string{"raspios-lite-armhf": "32 bits", "raspios-lite": "raspios-lite-arm64, raspios-lite-armhf"} {
		if _, err := c.Add(context.Background(), name, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", name, err, want)
		}
	}
	s.Close()
	if _, err := c.Add(context.Background(), "raspios-lite-arm64", nil); err == nil || !strings.Contains(err.Error(), "online") {
		t.Errorf("without the server: %v", err)
	}
}

func TestListDisagrees(t *testing.T) {
	image := build(t, standard)
	for name, change := range map[string]func(*osItem){
		"1 bytes":    func(i *osItem) { i.DownloadSize = 1 },
		"2 were pub": func(i *osItem) { i.Size = 2 },
		"3333":       func(i *osItem) { i.DownloadSHA256 = strings.Repeat("3", 64) },
		"4444":       func(i *osItem) { i.SHA256 = strings.Repeat("4", 64) },
		"has only":   func(i *osItem) { i.Size = 1 << 55 },
	} {
		s := serve(t, image)
		list := s.list()
		change(&list.Items[0].Subitems[1])
		s.list = func() osList { return list }
		c := catalogue(t, Options{ListURL: s.URL + "/list.json"})
		if info, err := c.Add(context.Background(), "raspios-lite-arm64", nil); err == nil ||
			!strings.Contains(err.Error(), strings.TrimSuffix(strings.Replace(name, "1 bytes", "says 1", 1), "")) {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
		if list, err := c.List(); len(list) != 0 || err != nil || left(t, c) != nil {
			t.Errorf("%s: in the catalogue %v, %v; left %v; want nothing", name, list, err, left(t, c))
		}
	}
}

func TestResume(t *testing.T) {
	image := build(t, standard)
	s := serve(t, image)
	url := s.URL + "/plain.img.xz"
	third := int64(len(s.packed))/3 + 1

	t.Run("within an add", func(t *testing.T) {
		s.requests = nil
		s.limit.Store(third)
		s.busy.Store(1)
		c := catalogue(t, Options{})
		info, err := c.Add(context.Background(), url, nil)
		check(t, err)
		want := []string{"", fmt.Sprintf("bytes=%d-", third), fmt.Sprintf("bytes=%d-", third), fmt.Sprintf("bytes=%d-", 2*third)}
		if d := cmp.Diff(want, s.requests); d != "" || info.SHA256 != hexSum(image) {
			t.Errorf("requests (-want +got):\n%s\nimage %s", d, info.SHA256)
		}
	})
	for name, changed := range map[string]bool{"in the next add": false, "of another file": true} {
		t.Run(name, func(t *testing.T) {
			s.requests = nil
			s.limit.Store(third)
			c := catalogue(t, Options{})
			ctx, cancel := context.WithCancel(context.Background())
			_, err := c.Add(ctx, url, func(p Progress) {
				if p.Phase == Downloading && p.Done >= third {
					cancel()
				}
			})
			if !errors.Is(err, context.Canceled) || len(left(t, c)) != 2 {
				t.Fatalf("stopped: %v, left %v; want Canceled and a partial download", err, left(t, c))
			}
			s.limit.Store(0)
			if changed {
				s.etag.Store(`"2"`)
			}
			c, err = Open(c.dir, Options{Log: c.Log})
			check(t, err)
			info, err := c.Add(context.Background(), url, nil)
			check(t, err)
			if info.SHA256 != hexSum(image) || len(s.requests) != 2 || s.requests[1] != fmt.Sprintf("bytes=%d-", third) || info.ETag != s.etag.Load() {
				t.Errorf("image %s, ETag %s, requests %q", info.SHA256, info.ETag, s.requests)
			}
			if _, err := c.Add(context.Background(), url, nil); err != nil || len(s.requests) != 3 {
				t.Errorf("added again: %v, requests %q; want a question whether it has changed", err, s.requests)
			}
		})
	}
}

func TestURLErrors(t *testing.T) {
	s := serve(t, build(t, standard))
	c := catalogue(t, Options{})
	for path, want := range map[string]string{"/none.img.xz": "404", "/wrong.img.xz": "was published", "/x_armhf.img.xz": "32 bits"} {
		if _, err := c.Add(context.Background(), s.URL+path, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", path, err, want)
		}
	}
	if left(t, c) != nil {
		t.Errorf("left: %v", left(t, c))
	}
}

func TestConcurrentAdds(t *testing.T) {
	s := serve(t, build(t, standard))
	c := catalogue(t, Options{ListURL: s.URL + "/list.json"})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			other, err := Open(c.dir, c.Options) // as another process would
			if err == nil {
				_, err = other.Add(context.Background(), "raspios-lite-arm64", nil)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if list, err := c.List(); err != nil || len(list) != 1 || len(s.requests) != 1 {
		t.Errorf("images %v, %v, downloads %q; want one of each", list, err, s.requests)
	}
}

func FuzzList(f *testing.F) {
	f.Add([]byte(`{"os_list":[{"name":"A (64-bit)","url":"https://h/raspios_lite_arm64/images/x/y.img.xz","subitems":[{"name":"B","subitems_url":"b.json"}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		items, err := parseList("https://host/list.json", data)
		if err != nil {
			return
		}
		for _, i := range items {
			for _, name := range i.names() {
				if kind, err := classify(name); name != "" && (err != nil || kind == fromURL) {
					t.Errorf("the name %q cannot be asked for: %v", name, err)
				}
			}
			_ = i.thirtyTwo()
		}
		_, _ = latest(items, "raspios-lite-arm64")
	})
}

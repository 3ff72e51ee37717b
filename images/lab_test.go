package images_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bramble/images"
	"bramble/images/initramfs"
	"bramble/lab"
)

func output(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, &stderr)
	}
	return out
}

// wanted are the modules that a virtual or real Pi needs with Debian's kernel.
var wanted = []string{
	"nbd", "overlay", "ext4", "crc32c", "libcrc32c", "dwc2", "phy-generic", "lan78xx", "microchip", "smsc95xx", "cdc_ether",
	"rndis_host", "virtio_net", "virtio_pci", "virtio_mmio",
}

// TestLabImage looks into the lab image and compares what it sees with mtools, debugfs and modprobe.
func TestLabImage(t *testing.T) {
	lab.Need(t, "mcopy", "debugfs", "modprobe")
	file := lab.Image(t)
	img, err := images.OpenFile(file)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()

	report := img.Inspect()
	if len(report.Problems) > 0 || report.Architecture != "arm64" || len(report.Kernels) != 1 || len(report.Modules) != 1 ||
		report.Kernels[0].Release != report.Modules[0] || !strings.HasPrefix(report.OS, "Debian") {
		t.Fatalf("the report of the lab image: %+v", report)
	}
	release, err := img.Release("kernel8.img")
	if err != nil || release != report.Modules[0] {
		t.Fatalf("Release = %q, %v, want %q", release, err, report.Modules[0])
	}

	boot := fmt.Sprintf("%s@@%d", file, report.Parts[0].Offset)
	for _, f := range report.Boot {
		got, err := fs.ReadFile(img.Boot(), f.Name)
		if want := output(t, "mcopy", "-i", boot, "::"+f.Name, "-"); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v; mcopy reads %d, or others", f.Name, len(got), err, len(want))
		}
	}

	modules, err := img.Modules()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root := fmt.Sprintf("%s?offset=%d", file, img.Root().Offset)
	home := filepath.Join(dir, "lib/modules", release)
	if err := os.MkdirAll(filepath.Dir(home), 0o755); err != nil {
		t.Fatal(err)
	}
	output(t, "debugfs", "-R", "rdump /usr/lib/modules/"+release+" "+filepath.Dir(home), root)
	files := 0
	if err := fs.WalkDir(modules, release, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		got, err := fs.ReadFile(modules, name)
		if want, werr := os.ReadFile(filepath.Join(dir, "lib/modules", name)); err != nil || werr != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v; debugfs reads %d, %v, or others", name, len(got), err, len(want), werr)
		}
		return nil
	}); err != nil || files < 1000 {
		t.Errorf("the walk over the modules found %d files, %v", files, err)
	}

	spec := initramfs.Spec{Modules: modules, Release: release, Need: wanted}
	order, err := initramfs.Select(spec)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, p := range order {
		got = append(got, path.Base(p))
	}
	for line := range strings.Lines(string(output(t, "modprobe", append([]string{"-d", dir, "-S", release, "-a", "--show-depends"}, wanted...)...))) {
		if words := strings.Fields(line); words[0] == "insmod" {
			want = append(want, path.Base(words[1]))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(slices.Compact(want), got); d != "" {
		t.Errorf("modprobe would load others (-modprobe +ours):\n%s", d)
	}

	archive, err := initramfs.Build(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d modules, %s without /init", len(order), images.Bytes(int64(len(archive))))
	if len(archive) > 3<<20 {
		t.Errorf("the modules alone take %d bytes; stage 1 with them has to fit into 6 MB", len(archive))
	}
}

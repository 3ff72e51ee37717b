package partition

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is not installed; run lab/setup", tool)
		}
	}
}

// made is a file of size bytes that a program has put a table on.
func made(t testing.TB, size int64, stdin, name string, args ...string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, append(args, path)...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return f
}

// sfdisk is the oracle: what it says of a file, as our Table.
func sfdisk(t *testing.T, path string) Table {
	t.Helper()
	out, err := exec.Command("sfdisk", "--json", path).Output()
	if err != nil {
		t.Fatalf("sfdisk --json: %v", err)
	}
	var j struct {
		PartitionTable struct {
			Label, ID  string
			Partitions []struct {
				Node, Type, UUID, Name string
				Start, Size            int64
			}
		}
	}
	if err := json.Unmarshal(out, &j); err != nil {
		t.Fatal(err)
	}
	want := Table{Scheme: "gpt", ID: strings.ToLower(j.PartitionTable.ID)}
	if j.PartitionTable.Label == "dos" {
		want.Scheme, want.ID = "mbr", strings.TrimPrefix(want.ID, "0x")
	}
	for _, p := range j.PartitionTable.Partitions {
		number, err := strconv.Atoi(strings.TrimPrefix(p.Node, path))
		if err != nil {
			t.Fatal(err)
		}
		part := Part{Number: number, Offset: p.Start * 512, Size: p.Size * 512, Type: strings.ToLower(p.Type), Name: p.Name, UUID: strings.ToLower(p.UUID)}
		if want.Scheme == "mbr" {
			if part.Type == "f" || part.Type == "5" {
				continue // the container of the logical ones is no partition with contents
			}
			part.Type = strings.Repeat("0", 2-len(part.Type)) + part.Type
			part.UUID = want.ID + "-" + strings.ToLower(strconv.FormatInt(int64(0x100+number), 16)[1:])
		}
		want.Parts = append(want.Parts, part)
	}
	return want
}

const disk = 64 << 20

var layouts = map[string]string{
	"raspberry pi os":  "label: dos\nlabel-id: 0xd3b1f3a0\nstart=16384, size=65536, type=c\nstart=81920, type=83\n",
	"old alignment":    "label: dos\nlabel-id: 0x00000001\nstart=8192, size=32768, type=c\nstart=40960, size=40000, type=83\n",
	"gap in numbers":   "label: dos\n1: start=2048, size=2048, type=c\n3: start=8192, size=2048, type=83\n",
	"logical":          "label: dos\nstart=2048, size=8192, type=c\nstart=10240, size=100000, type=f\nstart=12288, size=10000, type=83\nstart=24576, size=10000, type=82\nstart=40960, size=10000, type=83\n",
	"gpt":              "label: gpt\nsize=16M, type=uefi, name=bootfs\nsize=32M, type=linux, name=\"rootfs ü\"\n",
	"gpt, 7 and 9":     "label: gpt\n7: size=4M, type=linux, name=seven\n9: size=4M, type=linux\n",
	"empty dos":        "label: dos\n",
	"empty gpt":        "label: gpt\n",
	"unaligned starts": "label: dos\nstart=1, size=63, type=c\nstart=77, size=5, type=83\n",
}

func TestAgainstSfdisk(t *testing.T) {
	need(t, "sfdisk")
	for name, script := range layouts {
		t.Run(name, func(t *testing.T) {
			f := made(t, disk, script, "sfdisk", "-q", "--no-reread", "--no-tell-kernel")
			got, err := Read(f, disk)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(sfdisk(t, f.Name()), got); d != "" {
				t.Errorf("sfdisk says otherwise (-sfdisk +ours):\n%s", d)
			}
		})
	}
}

func TestAgainstSgdisk(t *testing.T) {
	need(t, "sgdisk", "sfdisk")
	f := made(t, disk, "", "sgdisk", "-n", "1:16384:+16M", "-t", "1:0c00", "-c", "1:bootfs", "-n", "2:0:0", "-c", "2:rootfs")
	want := sfdisk(t, f.Name())
	for _, damage := range []string{"none", "primary header"} {
		if damage == "primary header" {
			if _, err := f.WriteAt([]byte("broken"), 512+40); err != nil {
				t.Fatal(err)
			}
		}
		got, err := Read(f, disk)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("damage %s (-sfdisk +ours):\n%s", damage, d)
		}
	}
	if _, err := f.WriteAt([]byte("broken"), disk-512); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(f, disk); err == nil {
		t.Errorf("both headers are broken, and Read = %+v, want an error", got)
	}
}

func TestCutOff(t *testing.T) {
	need(t, "sfdisk")
	for _, name := range []string{"raspberry pi os", "gpt", "logical"} {
		f := made(t, disk, layouts[name], "sfdisk", "-q", "--no-reread", "--no-tell-kernel")
		if err := f.Truncate(5 << 20); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(f, 5<<20); err == nil {
			t.Errorf("%s: the image is cut off after 5 MiB, and Read = %+v, want an error", name, got)
		}
	}
}

func TestNoTable(t *testing.T) {
	need(t, "mkfs.fat")
	bare := made(t, 8<<20, "", "mkfs.fat", "-F", "12")
	if _, err := Read(bare, 8<<20); !errors.Is(err, ErrNoTable) {
		t.Errorf("bare FAT: err = %v, want ErrNoTable", err)
	}
	zeros := make([]byte, 4096)
	if _, err := Read(bytes.NewReader(zeros), 4096); !errors.Is(err, ErrNoTable) {
		t.Errorf("zeros: err = %v, want ErrNoTable", err)
	}
	if _, err := Read(bytes.NewReader(nil), 0); err == nil {
		t.Error("empty file: no error")
	}
}

func TestLogicalCircle(t *testing.T) {
	img := make([]byte, 64*512)
	record := func(sector int, es ...entry) {
		b := img[sector*512:][:512]
		b[510], b[511] = 0x55, 0xaa
		for i, e := range es {
			b[446+16*i+4], b[446+16*i+8], b[446+16*i+12] = e.kind, byte(e.start), byte(e.count)
		}
	}
	record(0, entry{kind: 0x0f, start: 8, count: 40})
	record(8, entry{kind: 0x83, start: 1, count: 1}, entry{kind: 5, start: 0, count: 8})
	if got, err := Read(bytes.NewReader(img), int64(len(img))); err == nil || !strings.Contains(err.Error(), "circle") {
		t.Errorf("Read = %+v, %v, want an error that names the circle", got, err)
	}
}

func FuzzRead(f *testing.F) {
	need(f, "sfdisk")
	for _, script := range layouts {
		img := made(f, 1<<20, "label: gpt\n", "sfdisk", "-q", "--no-reread", "--no-tell-kernel")
		if strings.Contains(script, "dos") {
			img = made(f, disk, script, "sfdisk", "-q", "--no-reread", "--no-tell-kernel")
		}
		head := make([]byte, 40<<10)
		if _, err := img.ReadAt(head, 0); err != nil {
			f.Fatal(err)
		}
		f.Add(head)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		size := int64(len(data))
		table, err := Read(bytes.NewReader(data), size)
		if err != nil {
			return
		}
		for _, p := range table.Parts {
			if p.Offset < 0 || p.Size < 0 || p.Offset+p.Size > size {
				t.Fatalf("partition %+v lies outside of %d bytes", p, size)
			}
		}
	})
}

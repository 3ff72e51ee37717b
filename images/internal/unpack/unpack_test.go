package unpack

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// compressors are other people's programs, which make what this package reads.
var compressors = map[string][]string{
	"gzip": {"gzip", "-9c"},
	"xz":   {"xz", "-c"},
	"zstd": {"zstd", "-q", "-c", "-19"},
}

func compressed(t testing.TB, argv []string, data []byte) []byte {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Fatalf("%s is not installed; run lab/setup", argv[0])
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return out
}

func sample() []byte {
	rng := rand.New(rand.NewPCG(1, 1))
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(rng.IntN(5)) // compresses, but not to nothing
	}
	return b
}

func decompress(data []byte, compression string) ([]byte, error) {
	r, err := Reader(bytes.NewReader(data), compression)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestReader(t *testing.T) {
	want := sample()
	for name, argv := range compressors {
		t.Run(name, func(t *testing.T) {
			packed := compressed(t, argv, want)
			if got := Sniff(packed); got != name {
				t.Errorf("Sniff = %q", got)
			}
			if got, err := decompress(packed, name); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v; want the %d that were compressed", len(got), err, len(want))
			}
			for _, cut := range []int{len(packed) / 2, len(packed) - 1, 20} {
				if got, err := decompress(packed[:cut], name); err == nil {
					t.Errorf("cut after %d bytes of %d: %d bytes and no error", cut, len(packed), len(got))
				}
			}
			bad := bytes.Clone(packed)
			bad[len(bad)/2] ^= 0x10
			if got, err := decompress(bad, name); err == nil {
				t.Errorf("one bit wrong: %d bytes and no error", len(got))
			}
		})
	}
	t.Run("several streams", func(t *testing.T) {
		packed := append(compressed(t, compressors["xz"], want[:1000]), compressed(t, compressors["xz"], want[1000:])...)
		if got, err := decompress(packed, "xz"); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v; want both streams", len(got), err)
		}
	})
	if got, err := decompress(want, Sniff(want)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("not compressed: %d bytes, %v", len(got), err)
	}
}

func TestSize(t *testing.T) {
	data := sample()
	xz := compressed(t, compressors["xz"], data)
	file := filepath.Join(t.TempDir(), "data") // of which zstd knows the size beforehand
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, compression string
		packed            []byte
		known             bool
	}{
		{"plain", "", data, true},
		{"xz", "xz", xz, true},
		{"xz of 16 blocks", "xz", compressed(t, []string{"xz", "-c", "--block-size=65536"}, data), true},
		{"xz of two streams", "xz", append(bytes.Clone(xz), xz...), false},
		{"xz cut off", "xz", xz[:len(xz)-4], false},
		{"zstd of a file", "zstd", compressed(t, []string{"zstd", "-q", "-c", file}, nil), true},
		{"zstd of a pipe", "zstd", compressed(t, compressors["zstd"], data), false},
		{"gzip", "gzip", compressed(t, compressors["gzip"], data), false},
		{"nothing", "xz", nil, false},
	} {
		n, ok := Size(bytes.NewReader(c.packed), int64(len(c.packed)), c.compression)
		if ok != c.known || ok && n != int64(len(data)) {
			t.Errorf("%s: %d, %v; want %d, %v", c.name, n, ok, len(data), c.known)
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, argv := range compressors {
		f.Add(compressed(f, argv, sample()[:4096]))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if n, ok := Size(bytes.NewReader(data), int64(len(data)), Sniff(data)); n < 0 || n > 0 && !ok {
			t.Errorf("Size = %d, %v", n, ok)
		}
		r, err := Reader(bytes.NewReader(data), Sniff(data))
		if err != nil {
			return
		}
		defer r.Close()
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
	})
}

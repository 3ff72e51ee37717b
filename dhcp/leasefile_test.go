package dhcp

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func someLease(last byte, until time.Time) lease {
	return lease{Addr: netip.AddrFrom4([4]byte{10, 0, 0, last}), MAC: mustMAC("b8:27:eb:69:20:2e"), Until: until}
}

func TestParseLeases(t *testing.T) {
	const good = `{"addr":"10.0.0.100","mac":"b8:27:eb:69:20:2e","until":"2026-11-24T12:00:00Z"}` + "\n"
	for _, test := range []struct {
		name, text string
		want       int
	}{
		{"empty", "", 0},
		{"one", good, 1},
		{"two", good + good, 2},
		{"torn at the end", good + good[:40], 1},
		{"torn in the middle", good[:40] + "\n" + good, 1},
		{"no address", `{"mac":"b8:27:eb:69:20:2e"}` + "\n" + good, 1},
		{"IPv6", strings.Replace(good, "10.0.0.100", "fe80::1", 1), 0},
		{"no client", strings.Replace(good, "b8:27:eb:69:20:2e", "", 1), 0},
		{"zeros from a crashed file system", strings.Repeat("\x00", 512) + "\n" + good, 1},
	} {
		if got := parseLeases([]byte(test.text)); len(got) != test.want {
			t.Errorf("%s: %d leases; want %d", test.name, len(got), test.want)
		}
	}
}

func FuzzParseLeases(f *testing.F) {
	f.Add([]byte(`{"addr":"10.0.0.100","mac":"b8:27:eb:69:20:2e","until":"2026-11-24T12:00:00Z"}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, l := range parseLeases(b) {
			if !l.Addr.Is4() || l.MAC.IsZero() {
				t.Errorf("%+v is no lease", l)
			}
		}
	})
}

func TestLeaseFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases")
	lf := leaseFile{path: path}
	if err := lf.rewrite(nil); err != nil {
		t.Fatal(err)
	}
	a, b := someLease(100, noon), someLease(101, noon)
	for _, l := range []lease{a, b} {
		if err := lf.append([]lease{l}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readLeases(path)
	if err != nil || !slices.Equal(got, []lease{a, b}) {
		t.Errorf("read %v, %v; want %v", got, err, []lease{a, b})
	}
	if err := lf.rewrite([]lease{b}); err != nil {
		t.Fatal(err)
	}
	if got, err := readLeases(path); err != nil || !slices.Equal(got, []lease{b}) {
		t.Errorf("after a rewrite read %v, %v; want %v", got, err, b)
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if got, err := readLeases(filepath.Join(t.TempDir(), "none")); err != nil || got != nil {
		t.Errorf("no file: %v, %v; want nothing", got, err)
	}
}

// A client's last line counts; leases outside of the range and times beyond the lease time are corrected.
func TestAuthorityLoads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases")
	lf := leaseFile{path: path}
	moved := someLease(101, noon.AddDate(5, 0, 0))
	if err := lf.rewrite([]lease{someLease(100, noon), moved, {Addr: netip.MustParseAddr("10.9.9.9"), MAC: mustMAC(pc), Until: noon}}); err != nil {
		t.Fatal(err)
	}
	a := &Authority{First: netip.MustParseAddr("10.0.0.100"), Last: netip.MustParseAddr("10.0.0.110"), LeaseTime: time.Hour, File: path}
	table, err := newTable(a.First, a.Last)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.load(table, noon); err != nil {
		t.Fatal(err)
	}
	moved.Until = noon.Add(time.Hour)
	if got, ok := a.table.of(moved.MAC); !ok || got != moved || len(a.table.byAddr) != 1 {
		t.Errorf("loaded %v; want %v", a.table.byAddr, moved)
	}

	// what keep writes until it is told to end is all there
	ctx, cancel := context.WithCancel(t.Context())
	kept := make(chan struct{})
	go func() { defer close(kept); a.keep(ctx, slog.New(slog.DiscardHandler)) }()
	for i := range byte(10) {
		l := someLease(101+i, noon)
		l.MAC[5] = i
		a.mu.Lock()
		a.hold(l, true)
		a.mu.Unlock()
	}
	cancel()
	<-kept
	if got, err := readLeases(path); err != nil || len(got) != 11 {
		t.Errorf("the file has %d leases, %v; want 11 lines", len(got), err)
	}
}

// A disk that cannot be written stops nobody from getting an address, and the file is whole again afterwards.
func TestLeasesOutliveAFullDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "leases")
	w := newWorld(t, "10.0.0.100", "10.0.0.110")
	w.Authority.File = path
	if err := w.Authority.load(w.Authority.table, w.time); err != nil {
		t.Fatal(err)
	}
	if err := w.Authority.file.f.Close(); err != nil { // every write fails now
		t.Fatal(err)
	}
	second := laptop("00:1b:21:00:00:02", asRouter+option(50, "10.0.0.102"))
	for range 2 {
		if got := answer(w.says(second)); !strings.HasPrefix(got, "ACK") {
			t.Errorf("with a full disk a client got %q; want an ACK", got)
		}
		w.Authority.write(w.Authority.drain(nil), w.Log)
	}
	w.says(laptop(pc, asRouter+option(50, "10.0.0.105")))
	w.Authority.write(w.Authority.drain(nil), w.Log)
	got, err := readLeases(path)
	if err != nil || len(got) != 2 {
		t.Errorf("the file has %v, %v; want both leases", got, err)
	}
}

package journal

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bramble/node"
)

var (
	quiet = slog.New(slog.NewTextHandler(io.Discard, nil))
	alpha = node.MAC{0xb8, 0x27, 0xeb, 0, 0, 1}
	beta  = node.MAC{0xb8, 0x27, 0xeb, 0, 0, 2}
)

func opened(t *testing.T, opt Options) *Journal {
	t.Helper()
	if opt.Log == nil {
		opt.Log = quiet
	}
	j, err := Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func closed(t *testing.T, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func flushed(t *testing.T, j *Journal) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := j.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// boot records one board's way to its kernel: 4 events.
func boot(j *Journal, mac node.MAC, id string) {
	j.Record(node.Event{Kind: node.BootStarted, Node: mac, Boot: node.BootID(id), Name: "pi-" + mac.String()[15:], Image: "lite", Text: "because"})
	j.Record(node.Event{Kind: node.Offered, Node: mac, File: "rom"})
	j.Record(node.Event{Kind: node.FileSent, Node: mac, File: "bootcode.bin", Bytes: 52460, Took: 40 * time.Millisecond})
	j.Record(node.Event{Kind: node.FileSent, Node: mac, File: "kernel8.img", Bytes: 9 << 20, Took: 7 * time.Second})
}

func since(t *testing.T, j *Journal, seq uint64, mac node.MAC, limit int) []node.Event {
	t.Helper()
	events, err := j.Since(t.Context(), seq, mac, limit)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func seqs(events []node.Event) (s []uint64) {
	for _, e := range events {
		s = append(s, e.Seq)
	}
	return s
}

func diff(a, b any) string {
	return cmp.Diff(a, b, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	j := opened(t, Options{Dir: dir})
	for i := range 3 {
		boot(j, alpha, fmt.Sprint("a", i))
		boot(j, beta, fmt.Sprint("b", i))
	}
	flushed(t, j)
	all, nodes := since(t, j, 0, node.MAC{}, 0), j.Nodes().All()
	if len(all) != 24 || len(nodes) != 2 || nodes[0].Boots != 3 || nodes[0].Stage != node.StageKernel {
		t.Fatalf("%d events, nodes %+v; want 24 and 2 at their kernel after 3 boots", len(all), nodes)
	}
	closed(t, j)

	j = opened(t, Options{Dir: dir, Recent: 4})
	if d := diff(since(t, j, 0, node.MAC{}, 0), all); d != "" {
		t.Errorf("events after reopening differ (-got +want):\n%s", d)
	}
	if d := diff(j.Nodes().All(), nodes); d != "" {
		t.Errorf("states after reopening differ (-got +want):\n%s", d)
	}
	boot(j, alpha, "a3") // now some are in memory and some on disk only
	for _, test := range []struct {
		after uint64
		mac   node.MAC
		limit int
		want  []uint64
	}{
		{0, node.MAC{}, 3, []uint64{1, 2, 3}},
		{22, node.MAC{}, 4, []uint64{23, 24, 25, 26}},
		{26, node.MAC{}, 0, []uint64{27, 28}},
		{28, node.MAC{}, 0, nil},
		{1 << 60, node.MAC{}, 0, nil},
		{0, beta, 5, []uint64{5, 6, 7, 8, 13}},
		{15, beta, 0, []uint64{16, 21, 22, 23, 24}},
		{18, alpha, 0, []uint64{19, 20, 25, 26, 27, 28}},
		{0, node.MAC{1}, 0, nil},
	} {
		if d := cmp.Diff(seqs(since(t, j, test.after, test.mac, test.limit)), test.want); d != "" {
			t.Errorf("Since(%d, %s, %d) (-got +want):\n%s", test.after, test.mac, test.limit, d)
		}
	}
	for mac, want := range map[node.MAC][]uint64{alpha: {25, 26, 27, 28}, beta: {21, 22, 23, 24}, {1}: nil} {
		events, err := j.Boot(t.Context(), mac, 0)
		if d := cmp.Diff(seqs(events), want); d != "" || err != nil {
			t.Errorf("Boot(%s) (-got +want): %v\n%s", mac, err, d)
		}
	}
	events, err := j.Boot(t.Context(), alpha, 2)
	if d := cmp.Diff(seqs(events), []uint64{25, 28}); d != "" || err != nil {
		t.Errorf("Boot with a limit: %v\n%s", err, d)
	}
	closed(t, j)
}

func TestTrimmedEventsKeepStates(t *testing.T) {
	dir := t.TempDir()
	j := opened(t, Options{Dir: dir, MaxBytes: 200 << 10, Recent: 64})
	boot(j, alpha, "a0")
	for range 60 {
		for range 50 {
			j.Record(node.Event{Kind: node.FileMissed, Node: beta, File: "recovery.elf", Text: strings.Repeat("x", 50)})
		}
		flushed(t, j)
	}
	want := j.Nodes().All()
	closed(t, j)

	j = opened(t, Options{Dir: dir, MaxBytes: 200 << 10})
	defer closed(t, j)
	if d := diff(j.Nodes().All(), want); d != "" {
		t.Errorf("states after trimming differ (-got +want):\n%s", d)
	}
	all := since(t, j, 0, node.MAC{}, 0)
	if len(all) == 0 || all[0].Seq == 1 || all[len(all)-1].Seq != 3004 {
		t.Fatalf("%d events kept, want the newest of 3004, without the oldest", len(all))
	}
	for i := range all {
		if all[i].Seq != all[0].Seq+uint64(i) {
			t.Fatalf("event %d follows %d", all[i].Seq, all[i-1].Seq)
		}
	}
	if size := dirSize(t, dir); size > 1<<20 {
		t.Errorf("the store takes %d bytes, want under 1 MiB", size)
	}
}

func dirSize(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := d.Info(); err == nil && !d.IsDir() {
			n += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOneJournalPerDirectory(t *testing.T) {
	dir := t.TempDir()
	j := opened(t, Options{Dir: dir})
	defer closed(t, j)
	_, err := Open(t.Context(), Options{Dir: dir, Log: quiet})
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("second Open: %v; want a sentence about the other process", err)
	}
}

func TestBrokenStoreIsMovedAside(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, data string){
		"directory is a file": func(t *testing.T, data string) {
			must(t, os.RemoveAll(data))
			must(t, os.WriteFile(data, []byte("rubbish"), 0o600))
		},
		"stream's description is garbage": func(t *testing.T, data string) {
			must(t, os.WriteFile(filepath.Join(data, "$G/streams/EVENTS/meta.inf"), []byte("rubbish"), 0o600))
		},
		"stream's description is empty": func(t *testing.T, data string) {
			must(t, os.Truncate(filepath.Join(data, "$G/streams/EVENTS/meta.inf"), 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j := opened(t, Options{Dir: dir})
			boot(j, alpha, "a0")
			closed(t, j)
			spoil(t, filepath.Join(dir, "jetstream"))

			j = opened(t, Options{Dir: dir})
			notices := j.Notices()
			if len(notices) != 1 || !strings.Contains(notices[0].Text, "moved to") {
				t.Errorf("notices %+v; want one that tells where the old journal is", notices)
			}
			boot(j, beta, "b0")
			flushed(t, j)
			closed(t, j)
			if aside, _ := filepath.Glob(filepath.Join(dir, "jetstream.broken-*")); len(aside) != 1 {
				t.Errorf("moved aside: %v; want one", aside)
			}
			j = opened(t, Options{Dir: dir})
			defer closed(t, j)
			if s, ok := j.Nodes().Get(beta); !ok || s.Stage != node.StageKernel {
				t.Errorf("the new journal says %+v of the board", s)
			}
		})
	}
}

// TestDamagedBlocks damages the files that hold events and snapshots: opening must neither fail nor hang.
func TestDamagedBlocks(t *testing.T) {
	for _, file := range []string{"EVENTS/msgs/1.blk", "EVENTS/msgs/index.db", "FOLD/msgs/1.blk"} {
		t.Run(file, func(t *testing.T) {
			dir := t.TempDir()
			j := opened(t, Options{Dir: dir})
			for range 100 {
				boot(j, alpha, "a0")
			}
			closed(t, j)
			path := filepath.Join(dir, "jetstream/$G/streams", file)
			data, err := os.ReadFile(path)
			must(t, err)
			for i := len(data) / 2; i < len(data); i += 7 {
				data[i] ^= 0x55
			}
			must(t, os.WriteFile(path, data, 0o600))

			j = opened(t, Options{Dir: dir})
			before := j.Stats().Last
			boot(j, beta, "b0")
			flushed(t, j)
			events := since(t, j, before, beta, 0)
			if len(events) != 4 || len(since(t, j, 0, node.MAC{}, 0)) < 4 {
				t.Errorf("%d events of the new boot, want 4", len(events))
			}
			closed(t, j)
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSubscribe(t *testing.T) {
	dir := t.TempDir()
	j := opened(t, Options{Dir: dir})
	for range 40 {
		boot(j, alpha, "a")
	}
	closed(t, j)
	j = opened(t, Options{Dir: dir, Recent: 32})
	defer closed(t, j)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	old, fresh := j.Subscribe(ctx, 100), j.Subscribe(ctx, 1<<62)
	go func() {
		for range 5 {
			boot(j, beta, "b")
		}
	}()
	for want := uint64(101); want <= 180; want++ {
		if e := <-old; e.Seq != want {
			t.Fatalf("got event %d, want %d", e.Seq, want)
		}
	}
	for want := uint64(161); want <= 180; want++ {
		if e := <-fresh; e.Seq != want {
			t.Fatalf("a reader of what is new got event %d, want %d", e.Seq, want)
		}
	}
	cancel()
	if e, open := <-old; open {
		t.Errorf("got %+v after the end", e)
	}
}

func TestSlowReader(t *testing.T) {
	j := opened(t, Options{Dir: t.TempDir(), Recent: 32})
	defer closed(t, j)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	slow := j.Subscribe(ctx, 0)
	boot(j, alpha, "a")
	if e := <-slow; e.Seq != 1 {
		t.Fatalf("got event %d first", e.Seq)
	}
	const n = 500
	began := time.Now()
	for range n {
		boot(j, alpha, "a")
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("recording took %v while a reader slept", took)
	}
	got, missed, at := 1, 0, uint64(1)
	for at < 4*(n+1) {
		e := <-slow
		if e.Seq == 0 {
			var k int
			if _, err := fmt.Sscanf(e.Text, "%d events are left out", &k); err != nil {
				t.Fatalf("strange line %q", e.Text)
			}
			missed += k
			at += uint64(k)
			continue
		}
		if e.Seq != at+1 {
			t.Fatalf("event %d follows %d", e.Seq, at)
		}
		at = e.Seq
		got++
	}
	if missed == 0 || uint64(got+missed) != at {
		t.Errorf("%d read and %d told as missed, want %d in all and some missed", got, missed, at)
	}
}

func TestNotices(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	j := opened(t, Options{Dir: t.TempDir(), Now: func() time.Time { at = at.Add(time.Second); return at }})
	defer closed(t, j)
	say := func(kind node.Kind, step string, texts ...string) {
		now := j.opt.Now()
		for _, text := range texts {
			j.Record(node.Event{Kind: kind, Step: step, Text: text, Time: now})
		}
	}
	say(node.Finding, "", "from before the start")
	say(node.Started, "", "")
	say(node.Finding, "eth0", "nobody gives out addresses", "spanning tree is slow")
	say(node.Finding, "eth1", "all is well on eth1")
	say(node.Finding, "", "a second server")
	say(node.Warning, "x", "hot")
	say(node.Finding, "eth0", "the router gives out addresses", "it sends option 66")
	say(node.Finding, "", "a second server")
	say(node.Warning, "x", "")
	j.Record(node.Event{Kind: node.Warning, Node: node.MAC{2, 1}, Text: "a board's own"})
	var texts []string
	for _, n := range j.Notices() {
		texts = append(texts, n.Text)
	}
	want := []string{"all is well on eth1", "the router gives out addresses", "it sends option 66", "a second server"}
	if d := cmp.Diff(texts, want); d != "" {
		t.Errorf("notices (-got +want):\n%s", d)
	}
}

// BenchmarkRecord is what a server waits for when something happened.
func BenchmarkRecord(b *testing.B) {
	j, err := Open(b.Context(), Options{Dir: b.TempDir(), Log: quiet})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	for i := 0; b.Loop(); i++ {
		j.Record(node.Event{Kind: node.FileSent, Node: node.MAC{2, 0, 0, 0, 0, byte(i)}, File: "8b07bcc6/start.elf", Bytes: 2_973_536})
	}
}

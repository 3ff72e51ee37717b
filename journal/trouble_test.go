package journal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bramble/lab"
	"bramble/node"
)

// moody is a store that fails while it is sick, after it took part of what it was given.
type moody struct {
	*memory
	sick *atomic.Bool
}

var errFull = errors.New("no space left on device")

func (m moody) append(ctx context.Context, events []node.Event) error {
	if m.sick.Load() {
		return errors.Join(errFull, m.memory.append(ctx, events[:len(events)/2]))
	}
	return m.memory.append(ctx, events)
}

// memory is a store that outlives its closing.
type memory struct {
	events []node.Event
	saved  fold
}

func (m *memory) append(_ context.Context, events []node.Event) error {
	m.events = append(m.events, events...)
	return nil
}

func (m *memory) last() uint64 {
	if len(m.events) == 0 {
		return 0
	}
	return m.events[len(m.events)-1].Seq
}

func (m *memory) read(_ context.Context, q query) (found []node.Event, err error) {
	for _, e := range m.events {
		if e.Seq > q.after && (q.upTo == 0 || e.Seq <= q.upTo) && (q.node.IsZero() || q.node == e.Node) && len(found) < q.limit {
			found = append(found, e)
		}
	}
	return found, nil
}

func (m *memory) lastBoot(context.Context, node.MAC) (uint64, error) { return 0, nil }
func (m *memory) saveFold(_ context.Context, f fold) error           { m.saved = f; return nil }
func (m *memory) loadFold(context.Context) (fold, error)             { return m.saved, nil }
func (m *memory) remarks() []string                                  { return nil }
func (m *memory) close()                                             {}

func troubled(t *testing.T, sick *atomic.Bool, m *memory, openFails bool, recent int) *Journal {
	t.Helper()
	open := func(context.Context) (store, error) {
		if openFails && sick.Load() {
			return nil, errFull
		}
		return moody{m, sick}, nil
	}
	return start(t.Context(), Options{Log: quiet, Recent: recent}.withDefaults(), nil, open, 10*time.Millisecond)
}

func warnings(j *Journal) (texts []string) {
	for _, e := range j.recent.after(0, node.MAC{}, j.recent.size) {
		if e.Kind == node.Warning {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 1000 {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("after ten seconds not: %s", what)
}

func TestDiskTroublePasses(t *testing.T) {
	var sick atomic.Bool
	m := &memory{}
	j := troubled(t, &sick, m, true, 100)
	boot(j, alpha, "a0")
	flushed(t, j)
	sick.Store(true)
	boot(j, beta, "b0")
	eventually(t, "the trouble shows", func() bool { return j.Stats().Trouble != "" })
	boot(j, alpha, "a1")
	time.Sleep(50 * time.Millisecond) // several attempts
	if s, _ := j.Nodes().Get(alpha); s.Boots != 2 || s.Stage != node.StageKernel {
		t.Errorf("the fold says %+v while the disk is full", s)
	}
	if got := seqs(since(t, j, 4, alpha, 0)); len(got) != 4 {
		t.Errorf("Since says %v while the disk is full, want the 4 newest", got)
	}
	sick.Store(false)
	eventually(t, "the journal is well again", func() bool { return j.Stats().Trouble == "" && j.Stats().Stored == j.Stats().Last })
	got := warnings(j)
	if len(got) != 2 || !strings.Contains(got[0], "no space left") || !strings.Contains(got[1], "nothing was lost") {
		t.Errorf("warnings %q; want one of the full disk and one that it is over", got)
	}
	closed(t, j)
	for i, e := range m.events {
		if e.Seq != uint64(i+1) {
			t.Fatalf("stored events %v, want no gap and no duplicate", seqs(m.events))
		}
	}
}

func TestDiskTroubleLastsTooLong(t *testing.T) {
	var sick atomic.Bool
	m := &memory{}
	j := troubled(t, &sick, m, true, 20)
	sick.Store(true)
	for i := range 30 {
		boot(j, alpha, fmt.Sprint("a", i))
	}
	eventually(t, "the trouble shows", func() bool { return j.Stats().Trouble != "" })
	sick.Store(false)
	eventually(t, "the journal is well again", func() bool { return j.Stats().Trouble == "" })
	if lost := j.Stats().Lost; lost == 0 {
		t.Error("nothing is said to be lost of 120 events with room for 20")
	}
	want := j.Nodes().All()
	closed(t, j)
	j = troubled(t, &sick, m, true, 20)
	defer closed(t, j)
	if d := diff(j.Nodes().All(), want); d != "" {
		t.Errorf("states differ after a gap (-got +want):\n%s", d)
	}
}

// TestFasterThanTheDisk: the live view is whole, what the disk missed is told, and the states outlive it.
func TestFasterThanTheDisk(t *testing.T) {
	var sick atomic.Bool
	m := &memory{}
	j := troubled(t, &sick, m, true, 20)
	for i := range 1000 {
		boot(j, alpha, fmt.Sprint("a", i))
	}
	flushed(t, j)
	eventually(t, "a warning tells how many are missing", func() bool {
		return slices.ContainsFunc(j.Notices(), func(e node.Event) bool { return strings.Contains(e.Text, "faster than it takes them") })
	})
	if s, _ := j.Nodes().Get(alpha); s.Boots != 1000 || j.Stats().Lost == 0 {
		t.Errorf("%d boots in the fold and %d lost, want 1000 and some", s.Boots, j.Stats().Lost)
	}
	want := j.Nodes().All()
	closed(t, j)
	j = troubled(t, &sick, m, true, 20)
	defer closed(t, j)
	if d := diff(j.Nodes().All(), want); d != "" {
		t.Errorf("states differ after a gap (-got +want):\n%s", d)
	}
}

func TestDiskTroubleAtStart(t *testing.T) {
	var sick atomic.Bool
	m := &memory{}
	j := troubled(t, &sick, m, true, 100)
	boot(j, alpha, "a0")
	boot(j, beta, "b0")
	closed(t, j)

	sick.Store(true)
	j = troubled(t, &sick, m, true, 100)
	boot(j, alpha, "a1")
	sick.Store(false)
	eventually(t, "the journal is well again", func() bool { return j.Stats().Trouble == "" && j.Stats().Stored == j.Stats().Last })
	if s, _ := j.Nodes().Get(beta); s.Boots != 1 {
		t.Errorf("of the other board the fold says %+v, want what was stored before", s)
	}
	if s, _ := j.Nodes().Get(alpha); s.Boots != 2 || s.Boot != "a1" {
		t.Errorf("of the board that booted meanwhile the fold says %+v, want its second boot", s)
	}
	want := j.Nodes().All()
	closed(t, j)
	if !slices.IsSorted(seqs(m.events)) {
		t.Errorf("stored in the order %v", seqs(m.events))
	}
	j = troubled(t, &sick, m, true, 100)
	defer closed(t, j)
	if d := diff(j.Nodes().All(), want); d != "" {
		t.Errorf("states differ after reopening (-got +want):\n%s", d)
	}
}

// TestSequenceGapInJetStream: Seq and JetStream's own numbers part when events were lost; every lookup stays right.
func TestSequenceGapInJetStream(t *testing.T) {
	dir := t.TempDir()
	var want []uint64
	st, err := openJetStream(t.Context(), dir, 1<<20, quiet)
	must(t, err)
	seq := uint64(1)
	for _, run := range []struct{ events, gap uint64 }{{10, 5}, {3, 100}, {20, 1}, {7, 0}} {
		var events []node.Event
		for range run.events {
			events = append(events, node.Event{Seq: seq, Kind: node.Offered, Node: alpha})
			want = append(want, seq)
			seq++
		}
		must(t, st.append(t.Context(), events))
		seq += run.gap
	}
	check := func(st store) {
		t.Helper()
		for after := range seq + 3 {
			got, err := st.read(t.Context(), query{after: after, limit: 100})
			must(t, err)
			i, _ := slices.BinarySearch(want, after+1)
			if !slices.Equal(seqs(got), want[i:]) {
				t.Fatalf("after %d: %v, want %v", after, seqs(got), want[i:])
			}
		}
	}
	check(st)
	st.close()
	st, err = openJetStream(t.Context(), dir, 1<<20, quiet)
	must(t, err)
	defer st.close()
	if st.last() != want[len(want)-1] {
		t.Errorf("last is %d, want %d", st.last(), want[len(want)-1])
	}
	check(st)
}

// TestFullDisk fills a real file system, a tmpfs of a few MiB.
func TestFullDisk(t *testing.T) {
	lab.Need(t)
	dir := t.TempDir()
	must(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"))
	defer func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) }()
	lock, err := lockDir(dir)
	must(t, err)
	open := func(ctx context.Context) (store, error) { return openJetStream(ctx, dir, 1<<20, quiet) }
	j := start(t.Context(), Options{Log: quiet}.withDefaults(), lock, open, 100*time.Millisecond)
	boot(j, alpha, "a0")
	flushed(t, j)
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 4<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	began := time.Now()
	for i := range 500 {
		boot(j, beta, fmt.Sprint("b", i))
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("recording took %v on a full disk", took)
	}
	for range 300 {
		if j.Stats().Trouble != "" {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if s := j.Stats().Trouble; !strings.Contains(s, "no space left on device") {
		t.Errorf("trouble: %q; want the full disk", s)
	}
	must(t, os.Remove(filler))
	eventually(t, "the journal is well again", func() bool { return j.Stats().Trouble == "" && j.Stats().Stored == j.Stats().Last })
	want := j.Nodes().All()
	closed(t, j)
	j = opened(t, Options{Dir: dir, MaxBytes: 1 << 20})
	defer closed(t, j)
	if d := diff(j.Nodes().All(), want); d != "" {
		t.Errorf("states differ after the full disk (-got +want):\n%s", d)
	}
	all := seqs(since(t, j, 0, node.MAC{}, 0))
	for i := range all {
		if all[i] != all[0]+uint64(i) {
			t.Fatalf("event %d follows %d", all[i], all[i-1])
		}
	}
}

// TestKilled kills a recording process at random moments. What it had flushed is there, once and in order, and the
// states are those that follow from the events.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("JOURNAL_CHILD"); dir != "" {
		record(t, dir)
		return
	}
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	acknowledged := uint64(0)
	for round := range 6 {
		child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		child.Env = append(os.Environ(), "JOURNAL_CHILD="+dir)
		out, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		lines := bufio.NewScanner(out)
		deadline := time.Duration(50+random.IntN(400)) * time.Millisecond
		var kill *time.Timer
		for lines.Scan() {
			if kill == nil {
				kill = time.AfterFunc(deadline, func() { child.Process.Kill() })
			}
			fmt.Sscanf(lines.Text(), "flushed %d", &acknowledged)
		}
		if err := child.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		if acknowledged == 0 {
			t.Fatal("the child flushed nothing")
		}

		j := opened(t, Options{Dir: dir})
		all := since(t, j, 0, node.MAC{}, 0)
		for i, e := range all {
			if e.Seq != uint64(i+1) {
				t.Fatalf("round %d: event %d at place %d", round, e.Seq, i+1)
			}
		}
		if len(all) == MaxLimit {
			t.Fatal("the test records more than one call returns")
		}
		if uint64(len(all)) < acknowledged {
			t.Errorf("round %d: %d events, but %d were flushed", round, len(all), acknowledged)
		}
		fromEvents := node.NewRegistry()
		for _, e := range all {
			fromEvents.Apply(e)
		}
		if d := diff(j.Nodes().All(), fromEvents.All()); d != "" {
			t.Errorf("round %d: states are not the fold of the events (-got +want):\n%s", round, d)
		}
		acknowledged = uint64(len(all))
		closed(t, j)
	}
}

// record is the child: it boots boards until it is killed.
func record(t *testing.T, dir string) {
	j := opened(t, Options{Dir: dir})
	for i := 0; ; i++ {
		boot(j, node.MAC{2, 0, 0, 0, 0, byte(i)}, fmt.Sprint("k", i))
		if i%5 == 0 {
			flushed(t, j)
			fmt.Printf("flushed %d\n", j.Stats().Stored)
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// TestMemory bounds what an idle journal of 500 boards costs, together with the Go runtime and this test.
func TestMemory(t *testing.T) {
	dir := os.Getenv("JOURNAL_CHILD")
	if dir == "" {
		child := exec.Command(os.Args[0], "-test.run=^TestMemory$", "-test.v")
		child.Env = append(os.Environ(), "JOURNAL_CHILD="+t.TempDir())
		out, err := child.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Logf("%s", out)
		return
	}
	j := opened(t, Options{Dir: dir})
	for i := range 500 {
		boot(j, node.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}, "m")
	}
	flushed(t, j)
	closed(t, j)
	j = opened(t, Options{Dir: dir})
	defer closed(t, j)
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	must(t, err)
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d KiB resident", kib)
	limit := 32 << 10
	if raceEnabled {
		limit *= 4
	}
	if kib > limit {
		t.Errorf("an idle journal takes %d KiB, want at most %d", kib, limit)
	}
}

package pisim

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// stormIn runs a fleet in a house, in fake time.
func stormIn(t *testing.T, count int, like Board, change func(*house)) (reports []Report) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, change)
		f := NewFleet(&h.Segment, like, count)
		f.Stagger = time.Second / 2
		reports = f.Run(t.Context())
		time.Sleep(10 * time.Second)
	})
	return reports
}

func reference(t *testing.T, m Model, change func(*house)) Report {
	t.Helper()
	r := stormIn(t, 1, Board{Model: m, Serial: testSerial, Keep: KeepHashes}, change)[0]
	if r.Outcome != Kernel {
		t.Fatalf("without loss the outcome is %q: %s", r.Outcome, r.Reason)
	}
	return r
}

// 64 boards in the same half second, with 1 % loss in each direction: with a client that asks again and acknowledges
// duplicates, all come through, whatever the seed.
func TestStorm(t *testing.T) {
	t.Parallel()
	m := mustModel(t, "3b+").WithRFC1350()
	ref := reference(t, m, nil)
	seeds := 20
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		reports := stormIn(t, 64, Board{Model: m, Serial: testSerial, Seed: uint64(seed), Faults: Faults{Loss: 0.01}, Keep: KeepHashes}, nil)
		for _, r := range reports {
			if missing := r.Missing(ref); r.Outcome != Kernel || len(missing) > 0 {
				t.Errorf("seed %d: %s; missing %q", seed, r, missing)
			}
		}
	}
}

// A client that does neither comes through as often as Odds says.
func TestOdds(t *testing.T) {
	t.Parallel()
	small := func(h *house) {
		for name, text := range h.files {
			h.files[name] = text[:min(len(text), 1500)]
		}
	}
	m := mustModel(t, "3b+")
	ref := reference(t, m, small)
	for _, loss := range []float64{0.003, 0.01} {
		odds, through, all := Odds(ref, loss, 8), 0, 0
		for seed := range 20 {
			for _, r := range stormIn(t, 64, Board{Model: m, Serial: testSerial, Seed: uint64(seed), Faults: Faults{Loss: loss}, Keep: KeepHashes}, small) {
				all++
				if r.Outcome == Kernel && len(r.Missing(ref)) == 0 {
					through++
				}
			}
		}
		share := float64(through) / float64(all)
		tolerance := 4 * math.Sqrt(odds*(1-odds)/float64(all))
		t.Logf("loss %.3f: %d of %d came through, %.3f; the rules leave %.3f possible", loss, through, all, share, odds)
		if math.Abs(share-odds) > tolerance {
			t.Errorf("loss %.3f: the share %.3f is more than %.3f from the odds %.3f", loss, share, tolerance, odds)
		}
	}
}

func TestOddsWithoutLoss(t *testing.T) {
	ref := Report{Exchanges: []Exchange{{Counts: true, Result: Read, Options: true, Blocks: 5800}}}
	if got := Odds(ref, 0, 1); got != 1 {
		t.Errorf("odds without loss: %v; want 1", got)
	}
	if got, want := Odds(ref, 0.01, 1), math.Pow(0.99, 1+1+5800+5800); math.Abs(got-want) > 1e-12 {
		t.Errorf("odds with one send: %v; want %v", got, want)
	}
	ref.Exchanges[0].Counts = false
	if got := Odds(ref, 0.5, 1); got != 1 {
		t.Errorf("odds of a request that does not count: %v; want 1", got)
	}
}

// Duplicates and frames out of order do not stop a client of RFC 1350.
func TestFaults(t *testing.T) {
	m := mustModel(t, "3b+").WithRFC1350()
	ref := reference(t, m, nil)
	f := Faults{Dup: 0.05, Reorder: 0.05}
	dups := 0
	for _, r := range stormIn(t, 8, Board{Model: m, Serial: testSerial, Faults: f}, nil) {
		dups += r.Duplicates
		if missing := r.Missing(ref); r.Outcome != Kernel || len(missing) > 0 {
			t.Errorf("%s; missing %q", r, missing)
		}
	}
	if dups == 0 {
		t.Error("no board saw a duplicate")
	}
}

func TestImpairIsRepeatable(t *testing.T) {
	draw := func(seed uint64) (got []int) {
		cable := Faults{Loss: 0.3, Dup: 0.3}.Impair(seed, 0)
		for i := range 200 {
			cable.pass([]byte{byte(i)}, func(b []byte) { got = append(got, int(b[0])) })
		}
		return got
	}
	one, again, other := draw(1), draw(1), draw(2)
	if len(one) != len(again) || len(one) < 100 || len(one) > 250 {
		t.Fatalf("%d and %d of 200 frames", len(one), len(again))
	}
	same := len(one) == len(other)
	for i := range one {
		if one[i] != again[i] {
			t.Fatal("the same seed gave other faults")
		}
		same = same && one[i] == other[i]
	}
	if same {
		t.Error("another seed gave the same faults")
	}
}

func TestFleetEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Segment
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		f := NewFleet(&s, Board{Model: mustModel(t, "3b+")}, 3)
		f.Stagger = time.Hour
		for _, r := range f.Run(ctx) {
			if r.Outcome != Cancelled {
				t.Errorf("outcome %q", r.Outcome)
			}
		}
	})
}

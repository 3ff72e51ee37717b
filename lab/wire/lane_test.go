package wire

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// run sends packets 0 to n-1, one each pause, and returns the numbers that arrived, in order.
func run(f Faults, n int, pause time.Duration) (arrived []int, stats Stats) {
	l := newLane(f, 0, newPlug(), func(p packet) { arrived = append(arrived, int(p.data[0])<<8|int(p.data[1])) })
	for i := range n {
		l.send([]byte{byte(i >> 8), byte(i)}, nil)
		time.Sleep(pause)
	}
	time.Sleep(time.Second)
	l.close()
	return arrived, l.counted()
}

func upTo(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

func TestNoFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if got, _ := run(Faults{}, 100, time.Millisecond); !slices.Equal(got, upTo(100)) {
			t.Errorf("arrived: %v", got)
		}
	})
}

func TestShares(t *testing.T) {
	const n = 20000
	for _, test := range []struct {
		name   string
		faults Faults
		count  func(Stats) uint64
	}{
		{"loss", Faults{Loss: 0.1}, func(s Stats) uint64 { return s.Lost }},
		{"duplication", Faults{Dup: 0.1}, func(s Stats) uint64 { return s.Duplicated }},
		{"reordering", Faults{Reorder: 0.1}, func(s Stats) uint64 { return s.Reordered }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got, stats := run(test.faults, n, time.Millisecond)
				if c := test.count(stats); c < n/10-n/100 || c > n/10+n/100 {
					t.Errorf("%d of %d packets, want a tenth", c, n)
				}
				if want := n - int(stats.Lost) + int(stats.Duplicated); len(got) != want {
					t.Errorf("%d arrived, want %d by the counts %+v", len(got), want, stats)
				}
				if sorted := slices.IsSorted(got); sorted != (stats.Reordered == 0) {
					t.Errorf("in order: %t, with %d reordered", sorted, stats.Reordered)
				}
			})
		})
	}
}

func TestSameSeedSameFate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := Faults{Loss: 0.2, Dup: 0.1, Reorder: 0.1, Delay: 3 * time.Millisecond, Seed: 7}
		one, _ := run(f, 500, time.Millisecond)
		two, _ := run(f, 500, time.Millisecond)
		if !slices.Equal(one, two) {
			t.Error("two runs with one seed differ")
		}
		f.Seed = 8
		if three, _ := run(f, 500, time.Millisecond); slices.Equal(one, three) {
			t.Error("runs with different seeds are equal")
		}
	})
}

func TestDelayKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var took []time.Duration
		var got []byte
		l := newLane(Faults{Delay: 20 * time.Millisecond}, 0, newPlug(), func(p packet) {
			took = append(took, time.Since(start))
			got = append(got, p.data[0])
		})
		buf := []byte{0}
		for i := range 3 {
			buf[0] = byte(i) // the caller's buffer is its own again when send returns
			l.send(buf, nil)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !slices.Equal(got, []byte{0, 1, 2}) {
			t.Errorf("arrived %v, want 0 1 2", got)
		}
		for _, d := range took {
			if d != 20*time.Millisecond {
				t.Errorf("took %v, want 20ms", d)
			}
		}
	})
}

func TestDropFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plug := newPlug()
		arrived := 0
		l := newLane(Faults{DropFirst: 30 * time.Second}, 0, plug, func(packet) { arrived++ })
		check := func(when string, want int) {
			t.Helper()
			l.send([]byte{1}, nil)
			if arrived != want {
				t.Errorf("%s: %d packets have arrived, want %d", when, arrived, want)
			}
		}
		check("at once", 0)
		time.Sleep(30*time.Second - 1)
		check("just before 30 s", 0)
		time.Sleep(time.Nanosecond)
		check("after 30 s", 1)
		plug.cut.Store(true)
		check("cut", 1)
		plug.in()
		check("plugged in again", 1)
		time.Sleep(30 * time.Second)
		check("30 s after that", 2)
		if l.counted().Blocked != 4 {
			t.Errorf("counted %+v, want 4 blocked", l.counted())
		}
	})
}

func TestCutLosesWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plug := newPlug()
		arrived := 0
		l := newLane(Faults{Delay: time.Second}, 0, plug, func(packet) { arrived++ })
		l.send([]byte{1}, nil)
		plug.cut.Store(true)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if arrived != 0 {
			t.Error("a packet under way arrived through a cable that was cut")
		}
	})
}

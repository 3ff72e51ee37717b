package tftp

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// A network that loses, doubles and reorders on purpose; the client gives a file up after a second without progress,
// as bootcode.bin does.
func TestBadNetwork(t *testing.T) {
	content := pattern(400_000, 3)
	var seen reports
	addr := start(t, &Server{Tree: memory{"kernel8.img": content}, Observe: seen.observe})
	for name, set := range map[string]func(*firmware){
		"clean":     func(*firmware) {},
		"1 % lost":  func(f *firmware) { f.loss, f.asks = 0.01, 200*time.Millisecond },
		"10 % lost": func(f *firmware) { f.loss, f.asks = 0.10, 200*time.Millisecond },
		"doubled":   func(f *firmware) { f.double = 0.3 },
		"reordered": func(f *firmware) { f.delay, f.asks = 2*time.Millisecond, 200*time.Millisecond },
		"everything": func(f *firmware) {
			f.loss, f.double, f.delay, f.asks = 0.02, 0.1, time.Millisecond, 200*time.Millisecond
		},
	} {
		for seed := range uint64(3) {
			f := newFirmware(t, addr, seed)
			set(f)
			got, whole, twice := f.read("kernel8.img", "1024")
			if !whole || !bytes.Equal(got, content) {
				t.Errorf("%s, seed %d: %d of %d bytes came", name, seed, len(got), len(content))
			}
			// a machine that is busy with other tests now and then holds the client up for longer than the timer waits
			if f.loss == 0 && f.delay == 0 && twice > 8 {
				t.Errorf("%s, seed %d: %d of 391 blocks came twice, though none was lost", name, seed, twice)
			}
		}
	}
}

// 64 boards at once, one datagram in a hundred lost each way. A client that repeats what was lost always comes
// through. One that neither asks again for a lost request nor acknowledges a duplicate is stuck whenever its request or
// an ACK is lost: what those rules leave possible is (1-p) to the power of what it sends.
func TestStorm(t *testing.T) {
	const boards, loss, size = 64, 0.01, 60 * 1024
	content := pattern(size, 4)
	addr := start(t, &Server{Tree: memory{"f": content}})
	storm := func(asks time.Duration) (came int, slowest time.Duration) {
		type result struct {
			whole bool
			took  time.Duration
		}
		results := make(chan result, boards)
		for i := range boards {
			f := newFirmware(t, addr, uint64(i)+100)
			f.loss, f.asks = loss, asks
			go func() {
				time.Sleep(time.Duration(i) * 500 * time.Millisecond / boards)
				begin := time.Now()
				got, whole, _ := f.read("f", "1024")
				results <- result{whole && bytes.Equal(got, content), time.Since(begin)}
			}()
		}
		for range boards {
			if r := <-results; r.whole {
				came, slowest = came+1, max(slowest, r.took)
			}
		}
		return came, slowest
	}
	came, slowest := storm(300 * time.Millisecond)
	if came != boards {
		t.Errorf("%d of %d boards came through", came, boards)
	}
	t.Logf("the slowest of %d boards took %v", boards, slowest)

	// RRQ and the ACKs of the OACK and of 60 whole blocks; a lost last ACK no longer matters to the client
	sends := 1 + 1 + size/1024
	want := math.Pow(1-loss, float64(sends))
	came, _ = storm(0)
	// three standard deviations of 64 draws
	low := want - 3*math.Sqrt(want*(1-want)/boards)
	if share := float64(came) / boards; share < low {
		t.Errorf("without repetition %.2f came through; its rules leave %.2f possible, and at least %.2f must", share, want, low)
	}
}

// With a lost block in fifty the whole takes little longer: the timer is near the round trip.
func TestLossCostsLittle(t *testing.T) {
	const blocks = 1000
	addr := start(t, &Server{Tree: memory{"f": make([]byte, blocks*512-1)}})
	var each []time.Duration
	for seed := range uint64(3) {
		f := newFirmware(t, addr, seed)
		f.loss, f.asks = 0.01, 500*time.Millisecond
		begin := time.Now()
		if _, whole, _ := f.read("f", "512"); !whole {
			t.Fatal("the file did not come")
		}
		each = append(each, time.Since(begin))
	}
	slices.Sort(each)
	if lost := 2 * 0.01 * blocks; each[1] > time.Duration(lost*50)*time.Millisecond {
		t.Errorf("%v for %d blocks, of which about %.0f were lost: more than 50 ms each", each[1], blocks, lost)
	}
}

func TestGateIsFair(t *testing.T) {
	addr := start(t, &Server{Tree: memory{"f": make([]byte, 200_000)}, Transfers: 8, PerClient: 8})
	done := make(chan error, 40)
	for i := range 40 {
		go func() {
			f := newFirmware(t, addr, uint64(i))
			f.patience = 2 * time.Second
			if _, whole, _ := f.read("f", "1468"); !whole {
				done <- fmt.Errorf("board %d starved", i)
				return
			}
			done <- nil
		}()
	}
	for range 40 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

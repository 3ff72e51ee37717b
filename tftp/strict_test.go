package tftp

import (
	"math"
	"slices"
	"testing"
	"time"

	"bramble/lab/pisim"
)

var (
	inROM      = stage{patience: time.Second}
	inBootcode = stage{options: "tsize 0", patience: time.Second, oackBreaks: true}
	inStart    = stage{options: "tsize 0 blksize 1468", patience: 10 * time.Second, oackBreaks: true, dataBreaks: true}
)

// errand is a file of a boot, and how often it is probed before it is read.
type errand struct {
	stage  stage
	size   int64 // bytes
	probes int
}

// bookworm is what a 3B+ must get, in its order (pi-netboot.md section 2.4) and of real size.
var bookworm = []errand{
	{inROM, 52_476, 0},         // bootcode.bin
	{inBootcode, 2_980_000, 1}, // start.elf
	{inBootcode, 105, 0},       // config.txt
	{inBootcode, 7_300, 0},     // fixup.dat
	{inStart, 105, 1},          // config.txt
	{inStart, 105, 1},          // and again
	{inStart, 3_000_000, 3},    // the initramfs
	{inStart, 35_000, 1},       // the device tree
	{inStart, 2_000, 1},        // overlay_map.dtb
	{inStart, 105, 1},          // config.txt, for its overlays
	{inStart, 3_900, 1},        // vc4-kms-v3d.dtbo
	{inStart, 118, 1},          // cmdline.txt
	{inStart, 9_000_000, 1},    // kernel8.img
}

// scaled is the boot with files of at most most bytes.
func scaled(most int64) []errand {
	boot := slices.Clone(bookworm)
	for i := range boot {
		boot[i].size = min(boot[i].size, most)
	}
	return boot
}

// possible is the share of boots that the rules of strict clients let through.
func possible(boot []errand, loss float64) float64 {
	var ref pisim.Report
	for _, e := range boot {
		options, block := e.stage.negotiate(e.size)
		x := pisim.Exchange{Counts: true, Options: len(options) > 0, Probe: true, Result: pisim.Exists}
		for range e.probes {
			ref.Exchanges = append(ref.Exchanges, x)
		}
		x.Probe, x.Result, x.Blocks = false, pisim.Read, int(e.size)/block+1
		ref.Exchanges = append(ref.Exchanges, x)
	}
	return pisim.Odds(ref, loss, 8)
}

// A strict client neither asks again for a lost request nor acknowledges a duplicate. It comes through as often as
// that leaves possible, within one point, which is three standard deviations of the sample or more. At real size and a
// loss of 1 % nobody does, whatever the server: so there is a boot of small files, too, and a loss at which some of those
// who read all 14,000 blocks come through. The clock is fake: see
// network.
func TestStrictClients(t *testing.T) {
	for name, c := range map[string]struct {
		boot  []errand
		loss  float64
		boots int
	}{
		"small files, 1 % lost":  {scaled(1400), 0.01, 21_000},
		"real size, 1 % lost":    {bookworm, 0.01, 10_000},
		"real size, 0.02 % lost": {bookworm, 0.0002, 5_000},
		"real size, none lost":   {bookworm, 0, 20},
	} {
		t.Run(name, func(t *testing.T) {
			if raceEnabled {
				c.boots /= 20 // there is but one goroutine
			}
			odds := possible(c.boot, c.loss)
			sigma := math.Sqrt(odds * (1 - odds) / float64(c.boots))
			if 3*sigma > 0.01 && !raceEnabled {
				t.Fatalf("%d boots tell the share only within %.4f", c.boots, 3*sigma)
			}
			n := newNetwork(c.loss, false)
			came := 0
			for range c.boots {
				if n.boot(c.boot) {
					came++
				}
			}
			share := float64(came) / float64(c.boots)
			t.Logf("%d of %d boots came through, %.4f; the rules leave %.4f possible (standard deviation %.4f); %v", came, c.boots, share, odds, sigma, n.figures)
			if math.Abs(share-odds) > max(0.01, 3*sigma) {
				t.Errorf("the share %.4f is not within a point of %.4f", share, odds)
			}
			n.check(t)
		})
	}
}

// A client that acknowledges duplicates gets all 14,000 blocks, though it gives a file up a second after a lost block:
// three tries in that second would fail one boot in twenty.
func TestPatienceOfASecond(t *testing.T) {
	boots := 100
	if raceEnabled {
		boots = 5
	}
	var took [2]time.Duration
	for i, loss := range []float64{0, 0.01} {
		n := newNetwork(loss, true)
		for range boots {
			if !n.boot(bookworm) {
				t.Errorf("at a loss of %.2f a boot lost a file", loss)
			}
		}
		n.check(t)
		took[i] = n.now.Sub(zero) / time.Duration(boots)
		t.Logf("at a loss of %.2f a boot takes %.1f s; %v", loss, took[i].Seconds(), n.figures)
	}
}

package pisim

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Fleet is a number of boards that are powered on together.
type Fleet struct {
	Segment *Segment
	Boards  []Board
	Stagger time.Duration // between the first and the last power-on
}

// NewFleet makes count boards of one model with serials that follow each other. Seed decides each one's luck.
func NewFleet(s *Segment, like Board, count int) Fleet {
	f := Fleet{Segment: s}
	for i := range count {
		b := like
		b.Serial += uint32(i)
		f.Boards = append(f.Boards, b)
	}
	return f
}

// Run boots them all, and returns their reports in the order of Boards.
func (f Fleet) Run(ctx context.Context) []Report {
	reports := make([]Report, len(f.Boards))
	var wg sync.WaitGroup
	for i, b := range f.Boards {
		delay := time.Duration(0)
		if len(f.Boards) > 1 {
			delay = f.Stagger * time.Duration(i) / time.Duration(len(f.Boards)-1)
		}
		wg.Go(func() {
			select {
			case <-time.After(delay):
			case <-ctx.Done():
			}
			reports[i] = b.Boot(ctx, f.Segment)
		})
	}
	wg.Wait()
	return reports
}

// MedianTook is the median time that the boots which reached the kernel took; 0 if none did.
func MedianTook(reports []Report) time.Duration {
	var took []time.Duration
	for _, r := range reports {
		if r.Outcome == Kernel {
			took = append(took, r.Took)
		}
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)/2]
}

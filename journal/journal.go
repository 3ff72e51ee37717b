// Package journal is the one log of everything that happens, and the fold over it.
//
// Record puts an event into the one true order, folds it into the registry and shows it to every reader before it
// returns; it never waits for a disk. A writer behind it appends to a JetStream store. While the store is in trouble
// (full disk, broken directory) boots and readers go on from memory, and a warning says so.
package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"bramble/node"
)

// Options are the settings of a Journal; only Dir is required.
type Options struct {
	Dir      string           // made when missing; belongs to one journal at a time
	Log      *slog.Logger     // nil: slog.Default
	Now      func() time.Time // nil: time.Now
	MaxBytes int64            // of events on disk, the oldest are dropped; 0: 64 MiB
	Recent   int              // events in memory, for live readers and while the disk is in trouble; 0: 4096
}

const (
	defaultMaxBytes = 64 << 20
	defaultRecent   = 4096
	snapshotEvery   = 2000 // events between two snapshots of the fold; replayed at most that many at a start
	batch           = 256  // events appended at once
	maxNotices      = 32
)

// Journal is an open journal. All methods are safe for concurrent use.
type Journal struct {
	opt   Options
	nodes *node.Registry
	open  func(context.Context) (store, error)
	lock  *os.File
	wait  time.Duration // between two attempts to get the store well again
	wake  chan struct{} // there is something to store
	stop  context.CancelFunc
	done  chan struct{}

	mu      sync.Mutex
	recent  ring
	last    uint64 // Seq of the newest event
	stored  uint64 // Seq of the newest event in the store
	snapped uint64 // Seq of the newest snapshot in the store
	lost    uint64 // events that were pushed out of memory before they could be stored
	notices []node.Event
	trouble string // why the store does not work; empty when it does
	changed chan struct{}
	store   store // nil while there is none
	known   bool  // what was stored before this start is in the fold
}

// Open opens or makes the journal in opt.Dir and replays it. A store that cannot be read is moved aside, one that
// cannot be written is retried: both are warnings in the journal, not errors. An error means that Dir cannot be
// used at all, or that another process uses it.
func Open(ctx context.Context, opt Options) (*Journal, error) {
	opt = opt.withDefaults()
	lock, err := lockDir(opt.Dir)
	if err != nil {
		return nil, err
	}
	open := func(ctx context.Context) (store, error) { return openJetStream(ctx, opt.Dir, opt.MaxBytes, opt.Log) }
	return start(ctx, opt, lock, open, 15*time.Second), nil
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.Recent <= 0 {
		o.Recent = defaultRecent
	}
	return o
}

// lockDir makes dir and takes it for this process; the kernel lets go of it however the process ends.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the journal's directory %s cannot be made; give another state directory or more rights: %w", dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the journal in %s cannot be locked: %w", dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("the journal in %s is in use by another process; stop that one first: %w", dir, err)
	}
	return f, nil
}

func start(ctx context.Context, opt Options, lock *os.File, open func(context.Context) (store, error), wait time.Duration) *Journal {
	j := &Journal{
		opt: opt, nodes: node.NewRegistry(), open: open, lock: lock, wait: wait,
		wake: make(chan struct{}, 1), done: make(chan struct{}), changed: make(chan struct{}),
	}
	j.recent.size = opt.Recent
	if err := j.reopen(ctx); err != nil {
		// Numbers that no stored event has: milliseconds are ahead of any count of events.
		j.last = uint64(opt.Now().UnixMilli())
		j.stored, j.recent.next = j.last, j.last+1
		j.fail(err)
	}
	run, stop := context.WithCancel(context.Background())
	j.stop = stop
	go j.write(run)
	return j
}

// Nodes is the fold: what every board's events add up to.
func (j *Journal) Nodes() *node.Registry { return j.nodes }

// Record appends e to the journal: it gets the next Seq, and the time if it has none. When Record returns, the fold
// and the readers know of e; the disk follows.
func (j *Journal) Record(e node.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = j.opt.Now()
	}
	e.Time = e.Time.Round(0).UTC()
	j.last++
	e.Seq = j.last
	j.recent.add(e)
	j.nodes.Apply(e)
	j.notice(e)
	j.announce()
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// announce wakes everyone who waits for something new. The caller holds mu.
func (j *Journal) announce() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// notice keeps what the appliance says of itself and of the segment; a board's own stand on its timeline. What is said
// later about the same Kind and Step replaces what was said before; several sentences of one moment, like those of one
// probe, stay together. A repeated text replaces itself. The caller holds mu.
func (j *Journal) notice(e node.Event) {
	if !e.Node.IsZero() {
		return
	}
	switch e.Kind {
	case node.Started:
		j.notices = nil
		return
	case node.Finding, node.Warning:
	default:
		return
	}
	kept := j.notices[:0:0]
	for _, n := range j.notices {
		outdated := e.Step != "" && n.Step == e.Step && n.Kind == e.Kind && !n.Time.Equal(e.Time)
		if n.Text != e.Text && !outdated {
			kept = append(kept, n)
		}
	}
	if e.Text != "" {
		kept = append(kept, e)
	}
	if len(kept) > maxNotices {
		kept = kept[len(kept)-maxNotices:]
	}
	j.notices = kept
}

// Notices are the findings and warnings about no board since the appliance started, oldest first. They replace those of
// the same Kind and Step that have an earlier Time; one without Text takes them back.
func (j *Journal) Notices() []node.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]node.Event(nil), j.notices...)
}

// Stats are figures of a journal.
type Stats struct {
	Last    uint64 // Seq of the newest event
	Stored  uint64 // Seq of the newest event on disk
	Lost    uint64 // events since the start that will be missing after a restart
	Trouble string // one sentence when the store does not work; empty when it does
}

// Stats returns the present figures.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Stats{Last: j.last, Stored: j.stored, Lost: j.lost, Trouble: j.trouble}
}

// Flush waits until everything recorded before the call is in the store.
func (j *Journal) Flush(ctx context.Context) error {
	j.mu.Lock()
	want := j.last
	for j.stored < want {
		changed := j.changed
		j.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the journal was not stored in time: %w", ctx.Err())
		}
		j.mu.Lock()
	}
	j.mu.Unlock()
	return nil
}

// Close stores what is left, with a snapshot of the fold, and lets go of the directory.
func (j *Journal) Close() error {
	j.stop()
	<-j.done
	if s := j.Stats(); s.Stored < s.Last {
		return errors.Join(j.unlock(), fmt.Errorf("the last %d events were not stored: %s", s.Last-s.Stored, s.Trouble))
	}
	return j.unlock()
}

func (j *Journal) unlock() error {
	if j.lock == nil {
		return nil
	}
	return j.lock.Close()
}

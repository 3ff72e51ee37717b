package journal

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bramble/node"
)

// Names in the store. A board's events have the subject bramble.node.<MAC in hex>.<kind>, so that one board's are
// found without reading the others'.
const (
	eventStream = "EVENTS"
	foldStream  = "FOLD"
	foldSubject = "bramble.fold"
	maxPayload  = 8 << 20 // a snapshot of node.MaxNodes states, packed, is far below
	patience    = 10 * time.Second
)

func subject(e node.Event) string {
	if e.Node.IsZero() {
		return "bramble.appliance." + string(e.Kind)
	}
	return "bramble.node." + hex.EncodeToString(e.Node[:]) + "." + string(e.Kind)
}

// jetStore is a store in an embedded JetStream server without a listener.
type jetStore struct {
	dir    string
	srv    *server.Server
	nc     *nats.Conn
	js     jetstream.JetStream
	events jetstream.Stream
	notes  []string

	end        uint64        // Seq of the newest event at the opening
	streamLast uint64        // JetStream's number of the newest event; only append uses it
	gapLow     uint64        // Seq minus JetStream's number, of the oldest event at the opening
	gapHigh    atomic.Uint64 // the same, of the newest event
}

// openJetStream opens the store in dir/jetstream. A store that is there but cannot be read is moved aside.
func openJetStream(ctx context.Context, dir string, maxBytes int64, log *slog.Logger) (store, error) {
	if err := writable(dir); err != nil {
		return nil, err
	}
	data := filepath.Join(dir, server.JetStreamStoreDir)
	had := exists(filepath.Join(data, "$G", "streams", eventStream))
	s, err := runJetStream(ctx, dir, maxBytes, log, had)
	if err == nil || !exists(data) || ctx.Err() != nil {
		return s, err
	}
	if full := writable(dir); full != nil {
		return nil, full
	}
	aside := data + ".broken-" + strconv.FormatInt(time.Now().Unix(), 10)
	if moveErr := os.Rename(data, aside); moveErr != nil {
		return nil, errors.Join(err, moveErr)
	}
	fresh, again := runJetStream(ctx, dir, maxBytes, log, false)
	if again != nil {
		return nil, again
	}
	fresh.notes = append(fresh.notes, fmt.Sprintf(
		"The journal could not be read (%v). It was moved to %s and a new one begun; delete the old one if nothing in it matters.", err, aside))
	return fresh, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// writable proves that dir takes data, because JetStream does not tell why it cannot write.
func writable(dir string) error {
	probe := filepath.Join(dir, "probe")
	err := os.WriteFile(probe, bytes.Repeat([]byte{1}, 256<<10), 0o600)
	os.Remove(probe)
	if err != nil {
		return fmt.Errorf("its directory takes no data; make room there or mend its rights: %w", err)
	}
	return nil
}

func runJetStream(ctx context.Context, dir string, maxBytes int64, log *slog.Logger, had bool) (*jetStore, error) {
	srv, err := server.NewServer(&server.Options{
		ServerName: "bramble", DontListen: true, NoSigs: true, DisableJetStreamBanner: true,
		JetStream: true, StoreDir: dir, JetStreamMaxMemory: 1 << 20, JetStreamMaxStore: maxBytes + 8*maxPayload,
		// A power cut may cost the last second of the timeline; a sync for every event would cost an SD card its life.
		SyncInterval: time.Second,
		MaxPayload:   maxPayload, MaxPending: 4 * maxPayload,
	})
	if err != nil {
		return nil, fmt.Errorf("the embedded NATS server cannot be set up: %w", err)
	}
	says := &natsLog{log: log}
	srv.SetLoggerV2(says, false, false, false)
	s := &jetStore{srv: srv, dir: dir}
	srv.Start() // returns when there is no listener to wait at
	if says.fatal != "" {
		err = fmt.Errorf("the embedded NATS server did not start: %s", says.fatal)
	} else {
		err = s.connect(ctx, maxBytes, had)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *jetStore) connect(ctx context.Context, maxBytes int64, had bool) error {
	if !s.srv.JetStreamEnabled() || !s.srv.ReadyForConnections(patience) {
		return errors.New("the embedded NATS server did not start")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var err error
	if s.nc, err = nats.Connect("", nats.InProcessServer(s.srv), nats.NoReconnect()); err != nil {
		return fmt.Errorf("the embedded NATS server takes no connection: %w", err)
	}
	if s.js, err = jetstream.New(s.nc); err != nil {
		return err
	}
	if had {
		// JetStream leaves out a stream that it cannot recover; making it anew would hide that.
		if _, err := s.js.Stream(ctx, eventStream); err != nil {
			return fmt.Errorf("its events cannot be recovered: %w", err)
		}
	}
	s.events, err = s.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: eventStream, Subjects: []string{"bramble.node.>", "bramble.appliance.>"},
		Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld, MaxBytes: maxBytes, AllowDirect: true,
	})
	if err != nil {
		return fmt.Errorf("the stream of events cannot be opened: %w", err)
	}
	_, err = s.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: foldStream, Subjects: []string{foldSubject}, Storage: jetstream.FileStorage,
		Discard: jetstream.DiscardOld, MaxMsgsPerSubject: 1, AllowDirect: true,
	})
	if err != nil {
		return fmt.Errorf("the stream of snapshots cannot be opened: %w", err)
	}
	return s.findEnds(ctx)
}

// findEnds learns how Seq and JetStream's numbers relate. They differ when events were lost for want of disk.
func (s *jetStore) findEnds(ctx context.Context) error {
	info, err := s.events.Info(ctx)
	if err != nil {
		return fmt.Errorf("the stream of events cannot be looked at: %w", err)
	}
	s.streamLast = info.State.LastSeq
	low, high := uint64(0), uint64(0)
	if info.State.Msgs > 0 {
		first, err := s.seqAt(ctx, info.State.FirstSeq)
		if err != nil {
			return err
		}
		if s.end, err = s.seqAt(ctx, info.State.LastSeq); err != nil {
			return err
		}
		low, high = first-info.State.FirstSeq, s.end-info.State.LastSeq
	}
	s.gapLow = low
	s.gapHigh.Store(high)
	return nil
}

// seqAt is the Seq of the event that JetStream has under a number.
func (s *jetStore) seqAt(ctx context.Context, number uint64) (uint64, error) {
	m, err := s.events.GetMsg(ctx, number)
	if err != nil {
		return 0, fmt.Errorf("event %d cannot be read: %w", number, err)
	}
	var e node.Event
	if err := json.Unmarshal(m.Data, &e); err != nil {
		return 0, fmt.Errorf("event %d cannot be understood: %w", number, err)
	}
	return e.Seq, nil
}

func (s *jetStore) last() uint64      { return s.end }
func (s *jetStore) remarks() []string { return s.notes }

func (s *jetStore) append(ctx context.Context, events []node.Event) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var acks []jetstream.PubAckFuture
	for i, e := range events {
		body, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("event %d cannot be written: %w", e.Seq, err)
		}
		// The expected number keeps the order even if one in the middle is refused.
		ack, err := s.js.PublishAsync(subject(e), body, jetstream.WithExpectLastSequence(s.streamLast+uint64(i)))
		if err != nil {
			return s.because(err)
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return s.because(err)
		case <-ctx.Done():
			return s.because(ctx.Err())
		}
	}
	s.streamLast += uint64(len(events))
	s.gapHigh.Store(events[len(events)-1].Seq - s.streamLast)
	return nil
}

// because finds the cause behind JetStream's silence.
func (s *jetStore) because(err error) error {
	if cause := writable(s.dir); cause != nil {
		return cause
	}
	return fmt.Errorf("its store does not answer: %w", err)
}

func (s *jetStore) lastBoot(ctx context.Context, mac node.MAC) (uint64, error) {
	m, err := s.events.GetLastMsgForSubject(ctx, subject(node.Event{Node: mac, Kind: node.BootStarted}))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var e node.Event
	err = json.Unmarshal(m.Data, &e)
	return e.Seq, err
}

func (s *jetStore) saveFold(ctx context.Context, f fold) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body, err := packFold(f)
	if err != nil {
		return err
	}
	if _, err := s.js.Publish(ctx, foldSubject, body); err != nil {
		return s.because(err)
	}
	return nil
}

func (s *jetStore) loadFold(ctx context.Context) (fold, error) {
	stream, err := s.js.Stream(ctx, foldStream)
	if err != nil {
		return fold{}, err
	}
	m, err := stream.GetLastMsgForSubject(ctx, foldSubject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return fold{}, nil
	}
	if err != nil {
		return fold{}, err
	}
	f, err := unpackFold(m.Data)
	if err != nil {
		// The events are still there; a fold over them is the next best.
		s.notes = append(s.notes, fmt.Sprintf("The snapshot of the boards' states was unreadable (%v); it was rebuilt from the events.", err))
		return fold{}, nil
	}
	return f, nil
}

func packFold(f fold) ([]byte, error) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	err := errors.Join(json.NewEncoder(z).Encode(f), z.Close())
	return packed.Bytes(), err
}

func unpackFold(packed []byte) (f fold, err error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return fold{}, err
	}
	err = json.NewDecoder(z).Decode(&f)
	return f, err
}

func (s *jetStore) close() {
	if s.nc != nil {
		s.nc.Close()
	}
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
}

// natsLog hands the server's troubles to slog. What it says in good times interests nobody.
type natsLog struct {
	log   *slog.Logger
	fatal string // why the server did not start
}

func (l *natsLog) Noticef(string, ...any)         {}
func (l *natsLog) Debugf(string, ...any)          {}
func (l *natsLog) Tracef(string, ...any)          {}
func (l *natsLog) Warnf(format string, v ...any)  { l.log.Warn("nats: " + fmt.Sprintf(format, v...)) }
func (l *natsLog) Errorf(format string, v ...any) { l.log.Error("nats: " + fmt.Sprintf(format, v...)) }
func (l *natsLog) Fatalf(format string, v ...any) { l.fatal = fmt.Sprintf(format, v...) }

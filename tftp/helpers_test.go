package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// memory is a Tree of named contents.
type memory map[string][]byte

func (m memory) Open(_ context.Context, _ Peer, name string) (File, error) {
	b, ok := m[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return Bytes(b), nil
}

type treeFunc func(context.Context, Peer, string) (File, error)

func (f treeFunc) Open(ctx context.Context, p Peer, name string) (File, error) {
	return f(ctx, p, name)
}

// reports is an Observer that remembers.
type reports struct {
	mu  sync.Mutex
	all []Report
}

func (r *reports) observe(report Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, report)
}

// wait returns the first report with an outcome, or fails.
func (r *reports) wait(t testing.TB, want Outcome) Report {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		r.mu.Lock()
		for _, got := range r.all {
			if got.Outcome == want {
				r.mu.Unlock()
				return got
			}
		}
		r.mu.Unlock()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t.Fatalf("no report says %s; there are %+v", want, r.all)
	return Report{}
}

func (r *reports) count(want Outcome) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, got := range r.all {
		if got.Outcome == want {
			n++
		}
	}
	return n
}

// start runs s on a port of its own until the test ends.
func start(t testing.TB, s *Server) netip.AddrPort {
	t.Helper()
	return startAt(t, s, "127.0.0.1:0")
}

func startAt(t testing.TB, s *Server, at string) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
	if err != nil {
		t.Fatal(err)
	}
	addr := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, conn) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("Serve does not end with its context")
		}
	})
	return addr
}

// wire is a client that does what the test says, byte for byte.
type wire struct {
	t      testing.TB
	conn   *net.UDPConn
	server netip.AddrPort
	tid    netip.AddrPort // where the last datagram came from
}

func newWire(t testing.TB, server netip.AddrPort) *wire {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IP(server.Addr().AsSlice()).To16()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &wire{t: t, conn: conn, server: server}
}

func (w *wire) ask(b []byte) {
	if _, err := w.conn.WriteToUDPAddrPort(b, w.server); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) say(b []byte) {
	if _, err := w.conn.WriteToUDPAddrPort(b, w.tid); err != nil {
		w.t.Fatal(err)
	}
}

// hear returns the next datagram, or nil when none comes within d.
func (w *wire) hear(d time.Duration) []byte {
	buf := make([]byte, 2048)
	w.conn.SetReadDeadline(time.Now().Add(d))
	n, from, err := w.conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		return nil
	}
	w.tid = from
	return buf[:n]
}

func (w *wire) want(b []byte) {
	w.t.Helper()
	if got := w.hear(2 * time.Second); !bytes.Equal(got, b) {
		w.t.Fatalf("on the wire: %.60q; want %.60q", got, b)
	}
}

func data(block int, payload string) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{0, opDATA}, uint16(block)), payload...)
}

// firmware reads files as bootcode.bin and start.elf do, over a network that loses, doubles and delays.
type firmware struct {
	conn     *net.UDPConn
	server   netip.AddrPort
	rand     *rand.Rand
	loss     float64       // share that is lost, in each direction
	double   float64       // share of ACKs and requests that arrive twice
	delay    time.Duration // up to which an ACK may come late, and so out of order
	patience time.Duration // after which a file is given up
	asks     time.Duration // after which the request or last ACK is repeated; 0: never
}

func (f *firmware) send(b []byte, to netip.AddrPort) {
	if f.rand.Float64() < f.loss {
		return
	}
	copies := 1
	if f.rand.Float64() < f.double {
		copies = 2
	}
	for range copies {
		if f.delay > 0 {
			late, b := time.Duration(f.rand.Int64N(int64(f.delay))), bytes.Clone(b)
			time.AfterFunc(late, func() { f.conn.WriteToUDPAddrPort(b, to) })
			continue
		}
		f.conn.WriteToUDPAddrPort(b, to)
	}
}

// read returns what came, whether it came whole, and how many DATA arrived a second time.
func (f *firmware) read(name string, block string) (content []byte, whole bool, twice int) {
	last := rrq(name, "octet", "tsize", "0", "blksize", block)
	to, next, size := f.server, uint16(1), 512
	f.send(last, to)
	heard := time.Now()
	asked := heard
	buf := make([]byte, 2048)
	for {
		wait := f.patience - time.Since(heard)
		if f.asks > 0 {
			wait = min(wait, f.asks-time.Since(asked))
		}
		f.conn.SetReadDeadline(time.Now().Add(max(wait, time.Microsecond)))
		n, from, err := f.conn.ReadFromUDPAddrPort(buf)
		switch {
		case err != nil && time.Since(heard) >= f.patience:
			return content, false, twice
		case err != nil:
			asked = time.Now()
			f.send(last, to)
			continue
		case f.rand.Float64() < f.loss:
			continue
		}
		switch op, number := binary.BigEndian.Uint16(buf), binary.BigEndian.Uint16(buf[2:]); {
		case op == opOACK && next == 1 && len(content) == 0:
			to = from
			if accepted := bytes.Split(buf[2:n], []byte{0}); len(accepted) > 3 && string(accepted[2]) == "blksize" {
				size = atoi(string(accepted[3]))
			}
			last = ack(0)
		case op == opDATA && number == next:
			to = from
			content = append(content, buf[headerSize:n]...)
			last = ack(int(number))
			next++
		case op == opDATA:
			twice++
			if f.asks > 0 { // RFC 1350: a duplicate is acknowledged
				f.send(ack(int(number)), to)
			}
			continue
		default:
			continue
		}
		heard = time.Now()
		asked = heard
		f.send(last, to)
		if last[1] == opACK && next > 1 && n-headerSize < size {
			return content, true, twice
		}
	}
}

func atoi(s string) (n int) {
	for _, c := range s {
		n = n*10 + int(c-'0')
	}
	return n
}

func newFirmware(t testing.TB, server netip.AddrPort, seed uint64) *firmware {
	return &firmware{conn: newWire(t, server).conn, server: server, rand: rand.New(rand.NewPCG(seed, 1)), patience: time.Second}
}

func pattern(size int, seed uint64) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	r.Read(b)
	return b
}

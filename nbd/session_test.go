package nbd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestVerdict(t *testing.T) {
	const size = 1 << 30
	for _, tt := range []struct {
		name string
		req  request
		want errno
	}{
		{"first byte", request{length: 1}, errNone},
		{"last byte", request{offset: size - 1, length: 1}, errNone},
		{"nothing at the end", request{offset: size}, errNone},
		{"longest", request{length: maxRequest}, errNone},
		{"with FUA", request{flags: cmdFlagFUA, length: 1}, errNone},
		{"too long", request{length: maxRequest + 1}, errInval},
		{"one byte beyond", request{offset: size - 1, length: 2}, errInval},
		{"behind the end", request{offset: size + 1}, errInval},
		{"overflow", request{offset: math.MaxUint64, length: 2}, errInval},
		{"negative as int64", request{offset: 1 << 63, length: 2}, errInval},
		{"flag DF", request{flags: 1 << 2, length: 1}, errInval},
		{"WRITE", request{kind: cmdWrite, length: 1}, errPerm},
		{"WRITE beyond the end", request{kind: cmdWrite, offset: size, length: 1}, errPerm},
		{"TRIM", request{kind: cmdTrim, length: 1}, errPerm},
		{"WRITE_ZEROES", request{kind: cmdWriteZeroes, length: math.MaxUint32}, errPerm},
		{"FLUSH", request{kind: 3}, errInval},
		{"CACHE", request{kind: 5, length: 1}, errInval},
		{"BLOCK_STATUS", request{kind: 7, length: 1}, errInval},
		{"unknown", request{kind: 0xffff, length: 1}, errInval},
	} {
		if got := tt.req.verdict(size); got != tt.want {
			t.Errorf("%s: verdict() = %d; want %d", tt.name, got, tt.want)
		}
	}
}

// Every way a reply can take: out of the page cache, by sendfile, by a copy in
// one piece or more, and by the connection's own buffer when memory is short.
func TestReads(t *testing.T) {
	const skip = 12345
	path, data := noiseFile(t, 3<<20+777)
	inMemory := func() any { return newMemory(data[skip:]) }
	inFile := func() any {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return NewFileSection(f, skip, int64(len(data)-skip))
	}
	for _, world := range []struct {
		name   string
		export func() any
		memory int64
	}{{"file", inFile, 0}, {"memory", inMemory, 0}, {"little memory", inMemory, 1}} {
		t.Run(world.name, func(t *testing.T) {
			addr := start(t, &Server{Exports: worlds{"": world.export()}, Memory: world.memory})
			conn, info := dial(t, addr, "")
			want := data[skip:]
			if got := (Info{uint64(len(want)), FlagHasFlags | FlagReadOnly | FlagCanMultiConn, 1, 4096, 32 << 20}); info != got {
				t.Errorf("info %+v; want %+v", info, got)
			}
			for _, length := range []int{0, 1, 511, 4096, copyMax, copyMax + 1, largeBuffer, largeBuffer + 1, 1<<20 + 1, len(want)} {
				for _, offset := range []int{0, 1, (len(want) - length) / 2, len(want) - length} {
					if offset+length > len(want) {
						continue
					}
					code, got := ask(t, conn, request{cookie: uint64(length), offset: uint64(offset), length: uint32(length)})
					if code != errNone || !bytes.Equal(got, want[offset:offset+length]) {
						t.Fatalf("READ of %d at %d: error %d, or other data than there is", length, offset, code)
					}
				}
			}
		})
	}
}

func TestStaysInStep(t *testing.T) {
	data := noise(1 << 20)
	addr := start(t, &Server{Exports: worlds{"": newMemory(data)}})
	conn, _ := dial(t, addr, "")
	write := appendRequest(nil, request{kind: cmdWrite, cookie: 1, length: 1 << 20})
	all := slices.Concat(
		write, bytes.Repeat(appendRequest(nil, request{cookie: 666, length: 1}), (1<<20)/requestSize+1)[:1<<20], // looks like requests
		appendRequest(nil, request{kind: cmdTrim, cookie: 2, length: 4096}),
		appendRequest(nil, request{kind: 99, cookie: 3, length: 4096}),
		appendRequest(nil, request{kind: cmdWrite, cookie: 4}),
	)
	if _, err := conn.Write(all); err != nil {
		t.Fatal(err)
	}
	for i, want := range []errno{errPerm, errPerm, errInval, errPerm} {
		code, cookie, err := readReply(conn)
		if err != nil || code != want || cookie != uint64(i+1) {
			t.Fatalf("reply %d: error %d, cookie %d, %v; want error %d", i+1, code, cookie, err, want)
		}
	}
	if code, got := ask(t, conn, request{cookie: 5, offset: 100, length: 200}); code != errNone || !bytes.Equal(got, data[100:300]) {
		t.Errorf("READ afterwards: error %d, or wrong data", code)
	}
	if _, err := conn.Write(appendRequest(nil, request{kind: cmdWrite, length: maxRequest + 1})); err != nil {
		t.Fatal(err)
	}
	if _, _, err := readReply(conn); !errors.Is(err, io.EOF) {
		t.Errorf("after a WRITE longer than agreed: %v; want the end of the connection", err)
	}
}

// gated is an export whose first block cannot be read until the gate opens.
type gated struct {
	memory
	gate        chan struct{}
	busy, worst atomic.Int64
}

func (g *gated) ReadAt(b []byte, offset int64) (int, error) {
	if offset == 0 {
		if n := g.busy.Add(1); n > g.worst.Load() {
			g.worst.Store(n)
		}
		<-g.gate
		g.busy.Add(-1)
	}
	return g.memory.ReadAt(b, offset)
}

func TestSlowReadHoldsUpNobody(t *testing.T) {
	export := &gated{memory: newMemory(noise(8192)), gate: make(chan struct{})}
	addr := start(t, &Server{Exports: worlds{"": export}})
	conn, _ := dial(t, addr, "")
	if _, err := conn.Write(appendRequest(nil, request{cookie: 1, length: 512})); err != nil {
		t.Fatal(err)
	}
	if code, _ := ask(t, conn, request{cookie: 2, offset: 4096, length: 512}); code != errNone {
		t.Errorf("the second READ: error %d", code)
	}
	close(export.gate)
	if code, cookie, err := readReply(conn); code != errNone || cookie != 1 || err != nil {
		t.Errorf("the first READ: error %d, cookie %d, %v", code, cookie, err)
	}
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	export := &gated{memory: newMemory(noise(8192)), gate: make(chan struct{})}
	addr := start(t, &Server{Exports: worlds{"": export}})
	conn, _ := dial(t, addr, "")
	const requests = 10 * parallel
	if _, err := conn.Write(bytes.Repeat(appendRequest(nil, request{length: 1}), requests)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); export.busy.Load() < parallel; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d reads at a time; want %d", export.busy.Load(), parallel)
		}
	}
	close(export.gate)
	for i := range requests {
		if code, _, err := readReply(conn); code != errNone || err != nil {
			t.Fatalf("reply %d: error %d, %v", i, code, err)
		}
		if _, err := io.CopyN(io.Discard, conn, 1); err != nil {
			t.Fatal(err)
		}
	}
	if worst := export.worst.Load(); worst > parallel {
		t.Errorf("%d reads at a time; want at most %d", worst, parallel)
	}
}

// rotten is an export that cannot be read from 1 MiB on.
type rotten struct{ memory }

func (r rotten) ReadAt(b []byte, offset int64) (int, error) {
	if offset+int64(len(b)) > 1<<20 {
		return 0, errors.New("medium error")
	}
	return r.memory.ReadAt(b, offset)
}

func TestReadErrors(t *testing.T) {
	path, _ := noiseFile(t, 2<<20)
	addr := start(t, &Server{Exports: worlds{"rotten": rotten{newMemory(noise(2 << 20))}}})
	fileAddr := start(t, &Server{Exports: files{"": path}})
	conn, _ := dial(t, addr, "rotten")
	if code, _ := ask(t, conn, request{cookie: 1, offset: 1 << 20, length: 512}); code != errIO {
		t.Errorf("READ of a bad block: error %d; want %d", code, errIO)
	}
	if code, _ := ask(t, conn, request{cookie: 2, length: 512}); code != errNone {
		t.Errorf("READ of a good block afterwards: error %d", code)
	}
	endsWithin(t, conn, request{length: 2 << 20})

	conn, _ = dial(t, fileAddr, "")
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	if code, _ := ask(t, conn, request{cookie: 3, offset: 1 << 20, length: 512}); code != errIO {
		t.Errorf("READ where the file was cut off: error %d; want %d", code, errIO)
	}
	endsWithin(t, conn, request{length: 2 << 20})
}

// endsWithin sends a READ whose reply begins well and must end with the
// connection, because there is no data and no way to say so.
func endsWithin(t *testing.T, conn net.Conn, r request) {
	t.Helper()
	if _, err := conn.Write(appendRequest(nil, r)); err != nil {
		t.Fatal(err)
	}
	if code, _, err := readReply(conn); code != errNone || err != nil {
		t.Fatalf("reply: error %d, %v", code, err)
	}
	if n, _ := io.Copy(io.Discard, conn); n >= int64(r.length) {
		t.Errorf("%d bytes came, of which some do not exist", n)
	}
}

// tape is a client all of whose requests are known beforehand.
type tape struct {
	in  *bytes.Reader
	mu  sync.Mutex
	out bytes.Buffer
}

func (t *tape) Read(b []byte) (int, error) { return t.in.Read(b) }
func (t *tape) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.out.Write(b)
}
func (t *tape) Close() error                     { return nil }
func (t *tape) LocalAddr() net.Addr              { return &net.UnixAddr{Name: "tape"} }
func (t *tape) RemoteAddr() net.Addr             { return &net.UnixAddr{Name: "tape"} }
func (t *tape) SetDeadline(time.Time) error      { return nil }
func (t *tape) SetReadDeadline(time.Time) error  { return nil }
func (t *tape) SetWriteDeadline(time.Time) error { return nil }

// play has a session answer a tape.
func play(export Export, requests []byte) ([]byte, error) {
	conn := &tape{in: bytes.NewReader(requests)}
	s := newSession(newRun(&Server{}), conn, bufio.NewReader(conn), "tape", export)
	err := s.serve()
	return conn.out.Bytes(), err
}

// FuzzTransmission: whatever a client says, each request up to the first
// unintelligible one has exactly one reply, the right one.
func FuzzTransmission(f *testing.F) {
	data := noise(100000)
	path := f.TempDir() + "/noise"
	if err := os.WriteFile(path, data, 0o600); err != nil {
		f.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { file.Close() })
	read := appendRequest(nil, request{cookie: 7, offset: 99, length: 4096})
	long := appendRequest(nil, request{cookie: 8, length: 100000})
	write := append(appendRequest(nil, request{kind: cmdWrite, cookie: 9, length: 5}), "hello"...)
	disc := appendRequest(nil, request{kind: cmdDisc})
	f.Add(true, slices.Concat(read, long, write, read, disc))
	f.Add(false, slices.Concat(read, long, write, read, disc, read))
	f.Add(true, slices.Concat(write, write[:30]))
	f.Add(true, slices.Concat(read, read[:27]))
	f.Add(false, slices.Concat(read, []byte("nonsense that is longer than a request")))
	f.Add(true, appendRequest(read, request{kind: cmdWrite, length: math.MaxUint32}))
	f.Add(true, appendRequest(read, request{offset: math.MaxUint64, length: math.MaxUint32}))
	f.Add(true, appendRequest(read, request{kind: 42, flags: 42, length: 42}))
	f.Fuzz(func(t *testing.T, inFile bool, requests []byte) {
		var export Export = newMemory(data)
		if inFile {
			export = NewFileSection(file, 0, int64(len(data)))
		}
		out, err := play(export, requests)
		want, clean := expect(data, requests)
		if clean != (err == nil) {
			t.Fatalf("serve() = %v; a clean end is %v", err, clean)
		}
		var got []string
		for in := bytes.NewReader(out); in.Len() > 0; {
			code, cookie, err := readReply(in)
			if err != nil {
				t.Fatal(err)
			}
			at := slices.IndexFunc(want, func(w answer) bool {
				return w.code == code && w.cookie == cookie && bytes.HasPrefix(out[len(out)-in.Len():], w.data)
			})
			if at < 0 {
				t.Fatalf("a reply nobody asked for: error %d, cookie %d", code, cookie)
			}
			in.Seek(int64(len(want[at].data)), io.SeekCurrent)
			want = slices.Delete(want, at, at+1)
			got = append(got, fmt.Sprint(cookie))
		}
		if len(want) > 0 {
			t.Fatalf("%d requests got no reply, only %v did", len(want), got)
		}
	})
}

type answer struct {
	code   errno
	cookie uint64
	data   []byte
}

// expect is the protocol in the words of a test: the replies that are due, the
// longest first, so that a short one is not taken for its beginning.
func expect(data, in []byte) (want []answer, clean bool) {
	defer func() {
		slices.SortStableFunc(want, func(a, b answer) int { return len(b.data) - len(a.data) })
	}()
	for len(in) >= requestSize {
		r, err := parseRequest(in)
		if err != nil {
			return want, false
		}
		in = in[requestSize:]
		switch {
		case r.kind == cmdDisc:
			return want, true
		case r.kind == cmdWrite && (r.length > maxRequest || int(r.length) > len(in)):
			return want, false
		case r.kind == cmdWrite:
			in = in[r.length:]
			want = append(want, answer{errPerm, r.cookie, nil})
		case r.kind == cmdTrim || r.kind == cmdWriteZeroes:
			want = append(want, answer{errPerm, r.cookie, nil})
		case r.kind == cmdRead && r.flags|1 == 1 && r.offset <= uint64(len(data)) && uint64(r.length) <= uint64(len(data))-r.offset:
			want = append(want, answer{errNone, r.cookie, data[r.offset : r.offset+uint64(r.length)]})
		default:
			want = append(want, answer{errInval, r.cookie, nil})
		}
	}
	return want, false
}

// The hot path makes no garbage: a thousand cached reads allocate next to
// nothing beyond the session itself.
func TestCachedReadsMakeNoGarbage(t *testing.T) {
	path, _ := noiseFile(t, 1<<20)
	export, err := files{"": path}.Open(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer export.Close()
	const reads = 1000
	requests := append(bytes.Repeat(appendRequest(nil, request{length: 16}), reads), appendRequest(nil, request{kind: cmdDisc})...)
	allocs := testing.AllocsPerRun(5, func() {
		if _, err := play(export, requests); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > reads/2 {
		t.Errorf("%.0f allocations for %d reads", allocs, reads)
	}
}

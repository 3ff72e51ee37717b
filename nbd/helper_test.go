package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// TestMain makes the test binary a server of one file if NBD_TEST_SERVE names
// it, so that a benchmark can measure a process that does nothing else.
func TestMain(m *testing.M) {
	if path := os.Getenv("NBD_TEST_SERVE"); path != "" {
		if err := serveFile(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func serveFile(path string) error {
	ln, err := net.Listen("tcp", os.Getenv("NBD_TEST_ADDR"))
	if err != nil {
		return err
	}
	srv := Server{Exports: files{"": path}}
	return srv.Serve(context.Background(), ln)
}

// tool runs a program to its end and returns what it printed.
func tool(t testing.TB, name string, args ...string) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("%s %q: %w\n%s%s", name, args, err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes(), nil
}

// files is a catalogue of whole files.
type files map[string]string

func (f files) Names() []string { return sortedNames(f) }

func (f files) Open(_ context.Context, name string) (Export, error) {
	path, ok := f[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return NewFileSection(file, 0, info.Size()), nil
}

// worlds is a catalogue of prepared exports or errors.
type worlds map[string]any

func (w worlds) Names() []string { return sortedNames(w) }

func (w worlds) Open(_ context.Context, name string) (Export, error) {
	switch world := w[name].(type) {
	case Export:
		return world, nil
	case error:
		return nil, world
	default:
		return nil, fmt.Errorf("looking for %q: %w", name, fs.ErrNotExist)
	}
}

func sortedNames[V any](m map[string]V) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	// Few names: insertion keeps this free of imports.
	for i := range names {
		for j := i; j > 0 && names[j] < names[j-1]; j-- {
			names[j], names[j-1] = names[j-1], names[j]
		}
	}
	return names
}

// memory is an export in memory that counts its closings.
type memory struct {
	*bytes.Reader
	closed *atomic.Int64
}

func newMemory(data []byte) memory { return memory{bytes.NewReader(data), new(atomic.Int64)} }

func (m memory) Close() error { m.closed.Add(1); return nil }

// noise is size bytes that differ everywhere, the same ones for every run.
func noise(size int) []byte {
	b := make([]byte, size)
	seed := [32]byte{1}
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

// noiseFile is a file of noise.
func noiseFile(t testing.TB, size int) (path string, data []byte) {
	t.Helper()
	data = noise(size)
	path = filepath.Join(t.TempDir(), "noise.img")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, data
}

// start serves until the test ends, and has the test fail if Serve does not end
// well. It returns the address.
func start(t testing.TB, srv *Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve() = %v; want nil", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Serve did not return within ten seconds after its context had ended")
		}
	})
	return ln.Addr().String()
}

// dial negotiates and closes the connection when the test ends.
func dial(t testing.TB, addr, export string) (net.Conn, Info) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, info, err := Dial(ctx, addr, export)
	if err != nil {
		t.Fatalf("Dial(%q) = %v", export, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, info
}

// appendRequest appends a request as a client sends it.
func appendRequest(b []byte, r request) []byte {
	b = binary.BigEndian.AppendUint32(b, magicRequest)
	b = binary.BigEndian.AppendUint16(b, r.flags)
	b = binary.BigEndian.AppendUint16(b, r.kind)
	b = binary.BigEndian.AppendUint64(b, r.cookie)
	b = binary.BigEndian.AppendUint64(b, r.offset)
	return binary.BigEndian.AppendUint32(b, r.length)
}

// readReply reads the header of a simple reply.
func readReply(r io.Reader) (code errno, cookie uint64, err error) {
	var b [replySize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, 0, err
	}
	if magic := binary.BigEndian.Uint32(b[:]); magic != magicSimpleReply {
		return 0, 0, fmt.Errorf("reply %#08x %w", magic, errMagic)
	}
	return errno(binary.BigEndian.Uint32(b[4:])), binary.BigEndian.Uint64(b[8:]), nil
}

// ask sends one request and returns its answer.
func ask(t testing.TB, conn net.Conn, r request) (errno, []byte) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(appendRequest(nil, r)); err != nil {
		t.Fatal(err)
	}
	code, cookie, err := readReply(conn)
	if err != nil || cookie != r.cookie {
		t.Fatalf("reply to %+v: cookie %d, err %v", r, cookie, err)
	}
	if code != errNone || r.kind != cmdRead {
		return code, nil
	}
	data := make([]byte, r.length)
	if _, err := io.ReadFull(conn, data); err != nil {
		t.Fatal(err)
	}
	return code, data
}

// launch starts bramble's server, nbdkit or qemu-nbd as a process of its own
// that serves the file path, and waits until it answers.
func launch(t testing.TB, peer, path string) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = ln.Addr().String()
	host, port, _ := net.SplitHostPort(addr)
	ln.Close()
	var cmd *exec.Cmd
	switch peer {
	case "nbdkit":
		cmd = exec.Command("nbdkit", "-f", "-r", "-i", host, "-p", port, "file", path)
	case "qemu-nbd":
		cmd = exec.Command("qemu-nbd", "-r", "-t", "-f", "raw", "-e", "16", "-b", host, "-p", port, path)
	default:
		cmd = exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "NBD_TEST_SERVE="+path, "NBD_TEST_ADDR="+addr)
	}
	launched(t, cmd)
	if _, err := Negotiate(t.Context(), dialTCP(t, addr), ""); err != nil {
		t.Fatal(err)
	}
	return addr
}

// launched starts cmd and ends it with the test.
func launched(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// dialTCP connects to a server that may still be starting.
func dialTCP(t testing.TB, addr string) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody answers at %s: %v", addr, err)
		}
	}
}

package tftp

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// The conversation of a firmware: probe, miss, read. Bytes as in pi-netboot.md sections 2.2 and 6.
func TestConversationOnTheWire(t *testing.T) {
	var seen reports
	fixup := pattern(660, 1)
	addr := start(t, &Server{Tree: memory{"e1ffda08/start.elf": make([]byte, 2965216), "fixup.dat": fixup, "bootcode.bin": []byte("boot")}, Observe: seen.observe})

	rom := newWire(t, addr) // no options: no OACK
	rom.ask(unhex(t, "0001626f6f74636f64652e62696e006f6374657400"))
	rom.want(data(1, "boot"))
	if rom.tid == addr {
		t.Error("the answer comes from the well-known port")
	}
	rom.say(ack(1))
	if got := seen.wait(t, Sent); got.Name != "bootcode.bin" || got.Bytes != 4 || got.Block != 512 || got.Resent != 0 || got.Peer.Addr.Port() == 0 || got.Peer.Local != addr.Addr() {
		t.Errorf("report %+v", got)
	}

	rom.ask(unhex(t, "0001626f6f747369672e62696e006f6374657400"))
	rom.want(unhex(t, "0005000146696c65206e6f7420666f756e6400"))
	if got := seen.wait(t, Missed); got.Name != "bootsig.bin" {
		t.Errorf("report %+v", got)
	}

	probe := newWire(t, addr)
	probe.ask(unhex(t, "000165316666646130382f73746172742e656c66006f63746574007473697a65003000"))
	probe.want(unhex(t, "00067473697a65003239363532313600"))
	probe.say(ack(0))
	probe.want(data(1, string(make([]byte, 512))))
	probe.say(unhex(t, "000500004561726c79207465726d696e61746500"))
	if got := seen.wait(t, Probed); got.Name != "e1ffda08/start.elf" || got.Size != 2965216 || got.Text != "" {
		t.Errorf("report %+v", got)
	}
	if b := probe.hear(150 * time.Millisecond); b != nil {
		t.Errorf("after Early terminate the server still sends %x", b[:4])
	}

	read := newWire(t, addr)
	read.ask(unhex(t, "000166697875702e646174006f63746574007473697a65003000"))
	read.want(appendOACK(nil, pairs("tsize 660")))
	read.say(ack(0))
	read.want(data(1, string(fixup[:512])))
	read.say(ack(1))
	read.want(data(2, string(fixup[512:])))
	read.say(ack(2))
	if b := read.hear(100 * time.Millisecond); b != nil {
		t.Errorf("after the last ACK the server sends %x", b)
	}
	if seen.count(Lost)+seen.count(Failed)+seen.count(Refused) != 0 {
		t.Errorf("a normal conversation left a failure: %+v", seen.all)
	}
}

func TestTriesOnTheWire(t *testing.T) {
	addr := start(t, &Server{Tree: memory{"a": make([]byte, 10000)}})
	w := newWire(t, addr)
	w.ask(rrq("a", "octet", "tsize", "0"))
	for block := range 5 {
		if w.hear(time.Second) == nil {
			t.Fatal("the server is silent")
		}
		w.say(ack(block))
	}
	copies := 0
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		if b := w.hear(time.Until(end)); b != nil && bytes.Equal(b[:4], []byte{0, opDATA, 0, 5}) {
			copies++
		}
	}
	if copies < 8 || copies > 25 {
		t.Errorf("block 5 came %d times within a second; want 8 to 25", copies)
	}
}

func TestRefusals(t *testing.T) {
	var seen reports
	addr := start(t, &Server{Observe: seen.observe, Tree: treeFunc(func(_ context.Context, _ Peer, name string) (File, error) {
		if name == "secret" {
			return nil, &os.PathError{Op: "open", Path: "/srv/secret", Err: os.ErrPermission}
		}
		return nil, &os.PathError{Op: "open", Path: "/srv/" + name, Err: os.ErrNotExist}
	})})
	for name, c := range map[string]struct{ ask, want []byte }{
		"missing":   {rrq("x/y", "octet"), appendERROR(nil, 1, "File not found")},
		"way out":   {rrq("../../../x", "octet"), appendERROR(nil, 1, "File not found")},
		"no name":   {rrq("/", "octet"), appendERROR(nil, 1, "File not found")},
		"not UTF-8": {rrq("\xff", "octet"), appendERROR(nil, 1, "File not found")},
		"no access": {rrq("secret", "octet"), appendERROR(nil, 0, "The server cannot read this file")},
		"write":     {append([]byte{0, opWRQ}, "a\x00octet\x00"...), appendERROR(nil, 2, "This server does not take files")},
		"netascii":  {rrq("x", "netascii"), appendERROR(nil, 1, "File not found")},
	} {
		w := newWire(t, addr)
		w.ask(c.ask)
		if got := w.hear(time.Second); !bytes.Equal(got, c.want) {
			t.Errorf("%s: %q; want %q", name, got, c.want)
		}
	}
	if got := seen.wait(t, Failed); !errors.Is(got.Err, os.ErrPermission) || !strings.Contains(got.Text, "secret") {
		t.Errorf("report %+v", got)
	}
	seen.wait(t, Refused)
}

func TestMalformedIsNotAnswered(t *testing.T) {
	addr := start(t, &Server{Tree: memory{}})
	w := newWire(t, addr)
	for _, b := range []string{"", "\x00", "\x00\x01", "\x00\x01a", "\x00\x01a\x00mail\x00", "\x00\x04\x00\x00", "\x00\x05\x00\x00x\x00", "\x00\x03\x00\x01x", strings.Repeat("a", 3000)} {
		w.ask([]byte(b))
	}
	if got := w.hear(100 * time.Millisecond); got != nil {
		t.Errorf("a malformed datagram was answered: %q", got)
	}
}

func TestOptionsOnTheWire(t *testing.T) {
	addr := start(t, &Server{Tree: memory{"empty": nil, "text": []byte("a\nb\r")}})
	for name, c := range map[string]struct{ ask, want []byte }{
		"upper case":    {rrq("text", "OCTET", "TSIZE", "0", "BLKSIZE", "65464"), appendOACK(nil, pairs("tsize 4 blksize 1468"))},
		"empty file":    {rrq("empty", "octet", "tsize", "0"), appendOACK(nil, pairs("tsize 1"))},
		"empty, plain":  {rrq("empty", "octet"), data(1, "\n")},
		"unknown only":  {rrq("text", "octet", "windowsize", "16", "timeout", "1"), data(1, "a\nb\r")},
		"netascii":      {rrq("text", "netascii", "tsize", "0"), data(1, "a\r\nb\r\x00")},
		"leading slash": {rrq("/text", "octet"), data(1, "a\nb\r")},
	} {
		w := newWire(t, addr)
		w.ask(c.ask)
		if got := w.hear(time.Second); !bytes.Equal(got, c.want) {
			t.Errorf("%s: %q; want %q", name, got, c.want)
		}
		w.say(appendERROR(nil, 0, "enough"))
	}
}

// A request that the network doubles, or that the client repeats at once, does not begin a second transfer.
func TestDuplicateRequest(t *testing.T) {
	var seen reports
	addr := start(t, &Server{Tree: memory{"a": make([]byte, 600)}, Observe: seen.observe})
	w := newWire(t, addr)
	for range 5 {
		w.ask(rrq("a", "octet", "tsize", "0"))
	}
	w.want(appendOACK(nil, pairs("tsize 600")))
	if b := w.hear(30 * time.Millisecond); b != nil {
		t.Errorf("a second answer: %x", b)
	}
	w.say(ack(0))
	for {
		if b := w.hear(time.Second); b == nil {
			t.Fatal("no block 1")
		} else if b[1] == opDATA {
			break
		}
	}
	w.ask(rrq("a", "octet", "tsize", "0")) // late copy
	w.say(ack(1))
	for {
		if b := w.hear(time.Second); b == nil {
			t.Fatal("no block 2")
		} else if b[1] == opDATA && b[3] == 2 {
			break
		} else if b[1] == opOACK {
			t.Fatal("a late copy of the request started over")
		}
	}
	w.say(ack(2))
	seen.wait(t, Sent)
	if n := seen.count(Started); n != 1 {
		t.Errorf("%d transfers were started", n)
	}
}

// The same client port asks for something else: the older transfer ends at once and does not disturb the newer.
func TestReplacedRequest(t *testing.T) {
	var seen reports
	addr := start(t, &Server{Tree: memory{"a": make([]byte, 100_000), "b": []byte("new")}, Observe: seen.observe})
	w := newWire(t, addr)
	w.ask(rrq("a", "octet"))
	for block := 1; block < 4; block++ {
		w.want(data(block, string(make([]byte, 512))))
		w.say(ack(block))
	}
	w.want(data(4, string(make([]byte, 512))))
	first := w.tid
	w.ask(rrq("b", "octet"))
	w.want(data(1, "new"))
	if w.tid == first {
		t.Error("the newer transfer has the older one's port")
	}
	w.say(ack(1))
	if got := seen.wait(t, Lost); got.Name != "a" || !strings.Contains(got.Text, "started over after 1536 of 100000 bytes of a") {
		t.Errorf("report %+v", got)
	}
	if got := seen.wait(t, Sent); got.Name != "b" {
		t.Errorf("report %+v", got)
	}
	if b := w.hear(150 * time.Millisecond); b != nil {
		t.Errorf("the older transfer still sends: %x", b[:4])
	}
}

// A board asks for each file from the next port, as a Pi does. The ERROR that ends its probe is lost; nothing more comes
// to the probe's port once the next file was asked for.
func TestProbeWithoutEnd(t *testing.T) {
	var seen reports
	addr := start(t, &Server{Tree: memory{"a": make([]byte, 100_000), "b": []byte("next")}, Observe: seen.observe})
	probe, next := neighbours(t, addr)
	probe.ask(rrq("a", "octet", "tsize", "0"))
	probe.want(appendOACK(nil, pairs("tsize 100000")))
	probe.say(ack(0))
	probe.want(data(1, string(make([]byte, 512))))
	next.ask(rrq("b", "octet"))
	next.want(data(1, "next"))
	next.say(ack(1))
	for b := probe.hear(0); b != nil; b = probe.hear(0) { // what was sent again before
	}
	if b := probe.hear(300 * time.Millisecond); b != nil {
		t.Errorf("the probe's port still gets %x", b[:4])
	}
	seen.wait(t, Probed)
}

// neighbours are clients whose ports follow each other.
func neighbours(t *testing.T, server netip.AddrPort) (one, next *wire) {
	t.Helper()
	for range 100 {
		one = newWire(t, server)
		at := one.conn.LocalAddr().(*net.UDPAddr)
		if conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: at.IP, Port: at.Port + 1}); err == nil {
			t.Cleanup(func() { conn.Close() })
			return one, &wire{t: t, conn: conn, server: server}
		}
	}
	t.Fatal("no two neighbouring ports are free")
	return nil, nil
}

// A client port that asks for one thing after the other, faster than any is answered, gets the last.
func TestReplacedInAHurry(t *testing.T) {
	var seen reports
	content := make([]byte, 100_000)
	addr := start(t, &Server{Observe: seen.observe, Tree: treeFunc(func(context.Context, Peer, string) (File, error) { return Bytes(content), nil })})
	w := newWire(t, addr)
	for i := range 100 {
		w.ask(rrq(strings.Repeat("x", 1+i%100), "octet"))
	}
	w.ask(rrq("last", "octet", "tsize", "0"))
	for b := w.hear(time.Second); !bytes.Equal(b, appendOACK(nil, pairs("tsize 100000"))); b = w.hear(time.Second) {
		if b == nil {
			t.Fatal("the last request was not answered")
		}
	}
	w.say(appendERROR(nil, 0, "Early terminate"))
	seen.wait(t, Started)
	seen.wait(t, Probed)
	for end := time.Now().Add(5 * time.Second); seen.count(Probed)+seen.count(Lost) < seen.count(Started) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if s, p, l := seen.count(Started), seen.count(Probed), seen.count(Lost); s != p || l != 0 {
		t.Errorf("%d transfers were started, %d ended as probes, %d were lost", s, p, l)
	}
}

// Every answer comes from the address that was asked.
func TestLocalAddress(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", "[::]:0"} {
		port := startAt(t, &Server{Tree: memory{"a": []byte("x")}}, listen).Port()
		asked := []string{"127.0.0.1", "127.0.0.2", "127.0.0.77"}
		if listen == "[::]:0" {
			asked = append(asked, "::1")
		}
		for _, local := range asked {
			server := netip.AddrPortFrom(netip.MustParseAddr(local), port)
			for _, name := range []string{"a", "missing"} {
				conn, err := net.ListenUDP("udp", nil)
				if err != nil {
					t.Fatal(err)
				}
				w := &wire{t: t, conn: conn, server: server}
				w.ask(rrq(name, "octet"))
				if b := w.hear(time.Second); b == nil || w.tid.Addr().Unmap() != server.Addr() {
					t.Errorf("listening on %s and asked for %s at %s, the server answers from %s: %q", listen, name, local, w.tid, b)
				}
				w.say(ack(1))
				conn.Close()
			}
		}
	}
}

func TestServeNeedsATree(t *testing.T) {
	if err := (&Server{}).Serve(t.Context(), nil); err == nil {
		t.Error("Serve without a Tree did not complain")
	}
}

// Requests that lead nowhere leave nothing behind: no file descriptor, no goroutine, no open file.
func TestNothingLeaks(t *testing.T) {
	open := make(chan int, 1)
	open <- 0
	tree := treeFunc(func(_ context.Context, _ Peer, name string) (File, error) {
		if name == "missing" {
			return nil, os.ErrNotExist
		}
		n := <-open
		open <- n + 1
		return counted{Bytes(make([]byte, 300_000)), open}, nil
	})
	addr := start(t, &Server{Tree: tree})
	warm := newWire(t, addr)
	warm.ask(rrq("missing", "octet"))
	warm.hear(time.Second)
	fds, routines := descriptors(t), runtime.NumGoroutine()

	for i := range 250 {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		w := &wire{t: t, conn: conn, server: addr}
		w.ask([]byte("\x00\x01broken"))
		w.ask(rrq("missing", "octet"))
		w.hear(time.Second)
		w.ask(rrq("a", "octet", "tsize", "0"))
		w.hear(time.Second)
		if i%2 == 0 { // the others vanish
			w.say(appendERROR(nil, 0, "Early terminate"))
		}
		conn.Close()
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		n := <-open
		open <- n
		if n == 0 && runtime.NumGoroutine() <= routines && descriptors(t) <= fds {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d files are open, %d goroutines (before: %d), %d descriptors (before: %d)", n, runtime.NumGoroutine(), routines, descriptors(t), fds)
		}
	}
}

type counted struct {
	File
	open chan int
}

func (c counted) Close() error {
	n := <-c.open
	c.open <- n - 1
	return c.File.Close()
}

func descriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// Beyond the bounds requests wait their turn and come through.
func TestQueue(t *testing.T) {
	addr := start(t, &Server{Tree: memory{"a": make([]byte, 2000)}, Transfers: 2, PerClient: 1})
	done := make(chan bool, 20)
	for i := range 20 {
		go func() {
			f := newFirmware(t, addr, uint64(i))
			_, whole, _ := f.read("a", "512")
			done <- whole
		}()
	}
	for range 20 {
		if !<-done {
			t.Fatal("a request that had to wait was given up")
		}
	}
}

// A slow Observer holds nobody up.
func TestSlowObserver(t *testing.T) {
	release := make(chan struct{})
	addr := start(t, &Server{Tree: memory{"a": []byte("x")}, Observe: func(Report) { <-release }})
	t.Cleanup(func() { close(release) })
	for i := range 100 {
		if _, whole, _ := newFirmware(t, addr, uint64(i)).read("a", "512"); !whole {
			t.Fatal("a transfer waited for the Observer")
		}
	}
}

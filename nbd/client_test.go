package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bramble/internal/golden"
)

// script is a server that says its text whatever it hears.
type script struct {
	io.Reader
	heard bytes.Buffer
}

func (s *script) Write(b []byte) (int, error) { return s.heard.Write(b) }

func greeting(flags uint16) []byte {
	b := binary.BigEndian.AppendUint64(nil, magicInit)
	b = binary.BigEndian.AppendUint64(b, magicOption)
	return binary.BigEndian.AppendUint16(b, flags)
}

func rep(kind uint32, data ...byte) []byte { return appendOptionReply(nil, optGo, kind, data) }

var (
	exportInfo = []byte{0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 1, 3}          // 1 MiB, read-only, multi-conn
	blockInfo  = []byte{0, 3, 0, 0, 2, 0, 0, 0, 0x20, 0, 0, 0x40, 0, 0} // 512, 8192, 4 MiB
	plain      = Info{1 << 20, 0x103, 1, 4096, 32 << 20}
)

func scripts() map[string]struct {
	server []byte
	want   Info
	err    string
} {
	type script = struct {
		server []byte
		want   Info
		err    string
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	return map[string]script{
		"plain":                  {join(greeting(3), rep(repInfo, exportInfo...), rep(repAck)), plain, ""},
		"block sizes":            {join(greeting(3), rep(repInfo, exportInfo...), rep(repInfo, blockInfo...), rep(repAck)), Info{1 << 20, 0x103, 512, 8192, 4 << 20}, ""},
		"more info":              {join(greeting(3), rep(repInfo, 0, 1, 'n'), rep(repInfo, exportInfo...), rep(repAck)), plain, ""},
		"old server":             {join(greeting(3), rep(repErrUnsup), exportInfo[2:]), plain, ""},
		"old server with zeroes": {join(greeting(1), rep(repErrUnsup), exportInfo[2:], make([]byte, 124)), plain, ""},
		"old server hangs up":    {join(greeting(3), rep(repErrUnsup)), Info{}, "no such export"},
		"unknown":                {join(greeting(3), rep(repErrUnknown, []byte("no \x1b[2Jsuch\nthing")...)), Info{}, "error 6: no [2Jsuchthing"},
		"policy":                 {join(greeting(3), rep(repErrPolicy)), Info{}, `refuses export "a" with error 2`},
		"not NBD":                {[]byte("HTTP/1.1 400 Bad Request\r\n"), Info{}, "does not speak newstyle"},
		"not fixed":              {greeting(2), Info{}, "fixed newstyle"},
		"says nothing":           {nil, Info{}, "waiting for the greeting"},
		"no size":                {join(greeting(3), rep(repAck)), Info{}, "without telling the export's size"},
		"short size":             {join(greeting(3), rep(repInfo, 0, 0, 1)), Info{}, "no valid length"},
		"short block sizes":      {join(greeting(3), rep(repInfo, 0, 3)), Info{}, "no valid length"},
		"empty info":             {join(greeting(3), rep(repInfo)), Info{}, "does not belong here"},
		"list reply":             {join(greeting(3), rep(repServer, 0, 0, 0, 0)), Info{}, "does not belong here"},
		"wrong option":           {join(greeting(3), appendOptionReply(nil, optList, repAck, nil)), Info{}, "option 3 instead of 7"},
		"bad magic":              {join(greeting(3), make([]byte, optionReplySize)), Info{}, "magic number"},
		"huge reply":             {join(greeting(3), rep(repInfo)[:16], []byte{255, 255, 255, 255}), Info{}, "more than it can have to say"},
		"endless":                {join(greeting(3), bytes.Repeat(rep(repInfo, exportInfo...), 100)), Info{}, "does not stop"},
		"cut":                    {join(greeting(3), rep(repInfo, exportInfo...)), Info{}, "waiting for a reply"},
	}
}

func TestNegotiateTable(t *testing.T) {
	for name, tt := range scripts() {
		t.Run(name, func(t *testing.T) {
			got, err := negotiate(&script{Reader: bytes.NewReader(tt.server)}, "a")
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Fatalf("negotiate() = %v; want an error with %q", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("negotiate() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNegotiateGolden(t *testing.T) {
	for name, server := range map[string]string{"go": "plain", "export-name": "old server"} {
		s := script{Reader: bytes.NewReader(scripts()[server].server)}
		if _, err := negotiate(&s, "root/0001"); err != nil {
			t.Fatal(err)
		}
		golden.Compare(t, "client/"+name+".golden", hex.Dump(s.heard.Bytes()))
	}
}

func TestNegotiateErrors(t *testing.T) {
	_, err := negotiate(&script{Reader: bytes.NewReader(scripts()["unknown"].server)}, "a")
	if !errors.Is(err, ErrUnknownExport) {
		t.Errorf("%v is not ErrUnknownExport", err)
	}
	_, err = negotiate(&script{Reader: bytes.NewReader(scripts()["policy"].server)}, "a")
	var refused *RefusedError
	if errors.Is(err, ErrUnknownExport) || !errors.As(err, &refused) || refused.Code != repErrPolicy {
		t.Errorf("%v is not a RefusedError of policy", err)
	}
	if _, err := Negotiate(t.Context(), nil, strings.Repeat("x", maxName+1)); err == nil {
		t.Error("Negotiate accepts a name longer than the protocol does")
	}
}

// The kernel gets the socket after the handshake: a byte read too much would be
// lost to it.
func TestNegotiateLeavesTheRest(t *testing.T) {
	for _, name := range []string{"plain", "old server", "old server with zeroes"} {
		in := bytes.NewReader(append(scripts()[name].server, "rest"...))
		if _, err := negotiate(&script{Reader: in}, "a"); err != nil {
			t.Fatal(err)
		}
		if rest, _ := io.ReadAll(in); string(rest) != "rest" {
			t.Errorf("%s: %q is left; want %q", name, rest, "rest")
		}
	}
}

func TestNegotiateEndsWithItsContext(t *testing.T) {
	ours, silent := net.Pipe()
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Negotiate(ctx, ours, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Negotiate with a silent server = %v; want the context's error", err)
	}
}

// FuzzHandshakeClient: whatever a server says, the client comes to an end, and
// never with an export whose size it was not told.
func FuzzHandshakeClient(f *testing.F) {
	for _, tt := range scripts() {
		f.Add(tt.server)
	}
	f.Fuzz(func(t *testing.T, server []byte) {
		info, err := negotiate(&script{Reader: bytes.NewReader(server)}, "a")
		if err != nil && info != (Info{}) {
			t.Fatalf("negotiate() = %+v, %v; want one of them", info, err)
		}
		if err == nil && len(server) < greetingSize+10 {
			t.Fatalf("negotiate() = %+v from %d bytes", info, len(server))
		}
	})
}

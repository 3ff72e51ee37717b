package nbd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"

	"bramble/internal/golden"
)

// infoData is the data of GO and INFO.
func infoData(name string, kinds ...uint16) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(kinds)))
	for _, kind := range kinds {
		b = binary.BigEndian.AppendUint16(b, kind)
	}
	return b
}

// say is a client's flags and what follows them.
func say(flags uint32, options ...[]byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, flags), bytes.Join(options, nil)...)
}

func opt(option uint32, data []byte) []byte { return appendOption(nil, option, data) }

// shake runs a handshake with all that the client ever says known beforehand.
func shake(exports Exports, list bool, client []byte) (server []byte, name string, export Export, err error) {
	var out bytes.Buffer
	h := handshake{
		in: bufio.NewReader(bytes.NewReader(client)), out: &out,
		exports: exports, list: list, log: slog.New(slog.DiscardHandler),
	}
	name, export, err = h.run(context.Background())
	return out.Bytes(), name, export, err
}

func shakeWorlds() worlds {
	return worlds{
		"":       newMemory(make([]byte, 512)),
		"a":      newMemory(make([]byte, 1<<20)),
		"ü":      newMemory(nil),
		"secret": fmt.Errorf("not yours: %w", fs.ErrPermission),
		"broken": errors.New("open /srv/secret/path: input/output error"),
	}
}

const both = flagFixedNewstyle | flagNoZeroes

func handshakes() map[string]struct {
	list   bool
	client []byte
} {
	type shake = struct {
		list   bool
		client []byte
	}
	disc := opt(optAbort, nil)
	return map[string]shake{
		"go":                 {false, say(both, opt(optGo, infoData("a", infoBlockSize)))},
		"go-default":         {false, say(both, opt(optGo, infoData("")))},
		"go-all-info":        {false, say(both, opt(optGo, infoData("a", infoExport, infoName, 2, infoBlockSize, infoBlockSize, 99)))},
		"go-empty-device":    {false, say(both, opt(optGo, infoData("ü")))},
		"info-then-go":       {false, say(both, opt(optInfo, infoData("a")), opt(optGo, infoData("a")))},
		"info-then-unknown":  {false, say(both, opt(optInfo, infoData("a")), opt(optGo, infoData("nosuch")), disc)},
		"unknown-then-go":    {false, say(both, opt(optGo, infoData("nosuch")), opt(optGo, infoData("a")))},
		"policy":             {false, say(both, opt(optGo, infoData("secret")), disc)},
		"broken":             {false, say(both, opt(optGo, infoData("broken")), disc)},
		"export-name":        {false, say(both, opt(optExportName, []byte("a")))},
		"export-name-zeroes": {false, say(flagFixedNewstyle, opt(optExportName, []byte("a")))},
		"export-name-oldest": {false, say(0, opt(optExportName, nil))},
		"export-name-none":   {false, say(both, opt(optExportName, []byte("nosuch")))},
		"export-name-long":   {false, say(both, opt(optExportName, bytes.Repeat([]byte("x"), maxName+1)))},
		"list":               {true, say(both, opt(optList, nil), disc)},
		"list-off":           {false, say(both, opt(optList, nil), disc)},
		"list-with-data":     {true, say(both, opt(optList, []byte("x")), disc)},
		"abort":              {false, say(both, disc)},
		"unsupported": {false, say(both,
			opt(4, nil), opt(5, nil), opt(8, nil), opt(9, infoData("a")), opt(10, infoData("a")), opt(11, nil), opt(0xffff, []byte("xyz")),
			opt(optGo, infoData("a")))},
		"bad-lengths": {false, say(both,
			opt(optGo, nil), opt(optGo, []byte{0, 0, 0, 1, 0, 0}), opt(optGo, []byte{255, 255, 255, 255, 0, 0}),
			opt(optGo, append(infoData("a"), 0)), opt(optInfo, []byte{0, 0, 0, 0, 0, 1, 0}), opt(optGo, infoData("a")))},
		"bad-name":          {false, say(both, opt(optGo, infoData("\xff")), opt(optGo, infoData(strings.Repeat("x", maxName+1))), disc)},
		"name-4096":         {false, say(both, opt(optGo, infoData(strings.Repeat("x", maxName))), disc)},
		"option-long":       {false, say(both, opt(99, make([]byte, maxOption+1)), opt(optGo, infoData("a")))},
		"option-too-long":   {false, say(both, append(opt(99, nil)[:12], 0xff, 0xff, 0xff, 0xff))},
		"bad-flags":         {false, say(4, opt(optGo, infoData("a")))},
		"bad-magic":         {false, say(both, []byte("GET / HTTP/1.1\r\n\r\n"))},
		"leaves-at-once":    {false, nil},
		"leaves-after-flag": {false, say(both)},
		"leaves-in-option":  {false, say(both, opt(optGo, infoData("a"))[:20])},
	}
}

func TestHandshakeGolden(t *testing.T) {
	for name, tt := range handshakes() {
		t.Run(name, func(t *testing.T) {
			server, export, _, err := shake(shakeWorlds(), tt.list, tt.client)
			end := fmt.Sprintf("transmission of %q", export)
			if err != nil {
				end = err.Error()
			}
			golden.Compare(t, "handshake/"+name+".golden", hex.Dump(server)+end+"\n")
		})
	}
}

func TestHandshakeClosesWhatItDoesNotUse(t *testing.T) {
	a := newMemory(make([]byte, 10))
	client := say(both, opt(optInfo, infoData("a")), opt(optInfo, infoData("a")), opt(optGo, infoData("nosuch")), opt(optGo, infoData("a")))
	_, name, export, err := shake(worlds{"a": a}, false, client)
	if err != nil || name != "a" || export == nil {
		t.Fatalf("run() = %q, %v, %v; want the export a", name, export, err)
	}
	if got := a.closed.Load(); got != 2 {
		t.Errorf("the export was closed %d times; want 2, once for each INFO", got)
	}
}

func TestHandshakeTellsNoSecrets(t *testing.T) {
	server, _, _, _ := shake(shakeWorlds(), false, say(both, opt(optGo, infoData("broken"))))
	if bytes.Contains(server, []byte("/srv")) {
		t.Errorf("the client was told the server's own error: %q", server)
	}
}

// FuzzHandshakeServer: whatever a client says, the server's words are a
// greeting followed by well-formed replies, of bounded length.
func FuzzHandshakeServer(f *testing.F) {
	for _, tt := range handshakes() {
		f.Add(tt.list, tt.client)
	}
	f.Fuzz(func(t *testing.T, list bool, client []byte) {
		server, name, export, err := shake(shakeWorlds(), list, client)
		if (export != nil) != (err == nil) {
			t.Fatalf("run() = %q, %v, %v; want an export or an error", name, export, err)
		}
		if err == nil && len(name) > maxName {
			t.Fatalf("a name of %d bytes came through", len(name))
		}
		if len(server) < greetingSize {
			t.Fatalf("greeting of %d bytes", len(server))
		}
		in := bytes.NewReader(server[greetingSize:])
		for in.Len() > 0 {
			rest := in.Len()
			if rest == 10 || rest == 134 { // the answer to EXPORT_NAME has no header
				return
			}
			var head [optionReplySize]byte
			if _, err := in.Read(head[:]); err != nil {
				t.Fatal(err)
			}
			in.Seek(-optionReplySize, 1)
			if _, _, err := readOptionReply(in, binary.BigEndian.Uint32(head[8:])); err != nil {
				t.Fatalf("%d bytes before the end: %v\n%s", rest, err, hex.Dump(server))
			}
		}
	})
}

package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Opcodes (RFC 1350 section 5, RFC 2347).
const (
	opRRQ   = 1
	opWRQ   = 2
	opDATA  = 3
	opACK   = 4
	opERROR = 5
	opOACK  = 6
)

// Error codes (RFC 1350 appendix).
const (
	codeUndefined = 0
	codeNotFound  = 1
	codeAccess    = 2
)

// What clients are told. Nothing of the machine reaches the wire.
const (
	textNotFound   = "File not found"
	textReadOnly   = "This server does not take files"
	textUnreadable = "The server cannot read this file"
)

const (
	headerSize   = 4
	defaultBlock = 512
	minBlock     = 8    // RFC 2348
	maxBlock4    = 1468 // fills a 1500-byte frame without a fragment: less 20 for IPv4, 8 for UDP, 4 for TFTP
	maxBlock6    = 1448 // the same less 40 for IPv6
	maxRequest   = 1500 // RFC 2347 says 512; nothing longer than a frame is read
	maxOptions   = 16
)

// request is an RRQ or a WRQ, parsed once.
type request struct {
	write   bool
	name    string // as asked, without leading slashes and dots that lead nowhere
	octet   bool   // else netascii
	options []option
}

// option is one option of RFC 2347, its name in lower case, in the order of the request.
type option struct{ name, value string }

var errNotRequest = errors.New("the datagram is not a well-formed read or write request")

// parseRequest reads what came to the well-known port. Whatever is not a request is errNotRequest and is not
// answered.
func parseRequest(b []byte) (request, error) {
	if len(b) < 2 || len(b) > maxRequest {
		return request{}, errNotRequest
	}
	op := binary.BigEndian.Uint16(b)
	if op != opRRQ && op != opWRQ {
		return request{}, errNotRequest
	}
	name, rest, ok := bytes.Cut(b[2:], []byte{0})
	if !ok || len(name) == 0 {
		return request{}, errNotRequest
	}
	mode, rest, ok := bytes.Cut(rest, []byte{0})
	if !ok {
		return request{}, errNotRequest
	}
	q := request{write: op == opWRQ, name: path.Clean("/" + string(name))[1:]}
	switch strings.ToLower(string(mode)) {
	case "octet":
		q.octet = true
	case "netascii":
	default: // "mail" is obsolete, the rest never was
		return request{}, errNotRequest
	}
	for len(rest) > 0 && len(q.options) < maxOptions {
		var key, value []byte
		if key, rest, ok = bytes.Cut(rest, []byte{0}); !ok {
			break
		}
		if value, rest, ok = bytes.Cut(rest, []byte{0}); !ok {
			break
		}
		q.options = append(q.options, option{strings.ToLower(string(key)), string(value)})
	}
	return q, nil
}

// valid reports whether the name can lead to a file at all: a Tree never sees any other.
func (q request) valid() bool { return q.name != "" && fs.ValidPath(q.name) }

// negotiate answers the options that were asked for and are known, and no others: tsize (RFC 2349), blksize
// (RFC 2348) up to limit. Without any there is no OACK and the block is 512 bytes.
func (q request) negotiate(size int64, limit int) (accepted []option, block int) {
	block = defaultBlock
	seen := map[string]bool{}
	for _, o := range q.options {
		if seen[o.name] {
			continue
		}
		seen[o.name] = true
		switch o.name {
		case "tsize":
			if q.octet { // the length after netascii conversion is not known
				accepted = append(accepted, option{o.name, strconv.FormatInt(size, 10)})
			}
		case "blksize":
			if n, err := strconv.Atoi(o.value); err == nil && n >= minBlock {
				block = min(n, limit)
				accepted = append(accepted, option{o.name, strconv.Itoa(block)})
			}
		}
	}
	return accepted, block
}

// appendOACK writes an OACK.
func appendOACK(b []byte, accepted []option) []byte {
	b = binary.BigEndian.AppendUint16(b, opOACK)
	for _, o := range accepted {
		b = append(append(b, o.name...), 0)
		b = append(append(b, o.value...), 0)
	}
	return b
}

// appendERROR writes an ERROR. text is one of the constants above.
func appendERROR(b []byte, code uint16, text string) []byte {
	b = binary.BigEndian.AppendUint16(b, opERROR)
	b = binary.BigEndian.AppendUint16(b, code)
	return append(append(b, text...), 0)
}

// putDATA writes the header of a DATA in front of its payload.
func putDATA(b []byte, block uint16) {
	binary.BigEndian.PutUint16(b, opDATA)
	binary.BigEndian.PutUint16(b[2:], block)
}

// reply is what a client sends during a transfer. Anything that is neither ACK nor ERROR has op 0.
type reply struct {
	op    int
	value uint16 // block of an ACK, code of an ERROR
	text  string // of an ERROR, cut to what is printable
}

func parseReply(b []byte) reply {
	if len(b) < headerSize {
		return reply{}
	}
	r := reply{op: int(binary.BigEndian.Uint16(b)), value: binary.BigEndian.Uint16(b[2:])}
	switch r.op {
	case opACK:
	case opERROR:
		text, _, _ := bytes.Cut(b[4:], []byte{0})
		r.text = printable(string(text))
	default:
		return reply{}
	}
	return r
}

// printable keeps a stranger's text from playing tricks on a terminal or a page.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
}

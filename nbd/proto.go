package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Magic numbers ("Protocol phases", "Transmission").
const (
	magicInit        uint64 = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption      uint64 = 0x49484156454f5054 // "IHAVEOPT"
	magicOptionReply uint64 = 0x0003e889045565a9
	magicRequest     uint32 = 0x25609513
	magicSimpleReply uint32 = 0x67446698
)

// Handshake flags: the server's 16 bits and the client's 32 bits have the same
// meaning ("Handshake flags", "Client flags").
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

// Option types ("Option types").
const (
	optExportName uint32 = 1
	optAbort      uint32 = 2
	optList       uint32 = 3
	optInfo       uint32 = 6
	optGo         uint32 = 7
)

// Option reply types ("Option reply types"). Errors have the top bit set.
const (
	repAck    uint32 = 1
	repServer uint32 = 2
	repInfo   uint32 = 3

	repErrUnsup   uint32 = 1<<31 + 1
	repErrPolicy  uint32 = 1<<31 + 2
	repErrInvalid uint32 = 1<<31 + 3
	repErrUnknown uint32 = 1<<31 + 6
	repErrTooBig  uint32 = 1<<31 + 9
)

// Information types of INFO and GO ("NBD_OPT_INFO and NBD_OPT_GO").
const (
	infoExport    uint16 = 0
	infoName      uint16 = 1
	infoBlockSize uint16 = 3
)

// Transmission flags ("Transmission flags"), as in [Info.Flags].
const (
	FlagHasFlags     uint16 = 1 << 0
	FlagReadOnly     uint16 = 1 << 1
	FlagCanMultiConn uint16 = 1 << 8
)

// Request types ("Request types").
const (
	cmdRead        uint16 = 0
	cmdWrite       uint16 = 1
	cmdDisc        uint16 = 2
	cmdTrim        uint16 = 4
	cmdWriteZeroes uint16 = 6
)

// cmdFlagFUA is meaningless for a read and must not be refused ("Command flags").
const cmdFlagFUA uint16 = 1 << 0

// Sizes and limits.
const (
	greetingSize    = 18
	optionSize      = 16
	optionReplySize = 20
	requestSize     = 28
	replySize       = 16

	maxName     = 4096     // longest string the protocol allows
	maxOption   = 16 << 10 // longest option data that is read into memory
	maxSkip     = 1 << 20  // longest option data that is read past
	maxRequest  = 32 << 20 // longest READ or WRITE
	blockSmall  = 1
	blockNormal = 4096
)

// errno is an error number of a reply ("Error values").
type errno uint32

const (
	errNone  errno = 0
	errPerm  errno = 1
	errIO    errno = 5
	errInval errno = 22
)

// request is the header of one request.
type request struct {
	flags  uint16
	kind   uint16
	cookie uint64 // the client's mark, returned as it came
	offset uint64
	length uint32
}

var errMagic = errors.New("does not begin with the magic number of its kind: the peer is out of step or does not speak NBD")

// parseRequest reads a request header of requestSize bytes.
func parseRequest(b []byte) (request, error) {
	if magic := binary.BigEndian.Uint32(b); magic != magicRequest {
		return request{}, fmt.Errorf("request %#08x %w", magic, errMagic)
	}
	return request{
		flags:  binary.BigEndian.Uint16(b[4:]),
		kind:   binary.BigEndian.Uint16(b[6:]),
		cookie: binary.BigEndian.Uint64(b[8:]),
		offset: binary.BigEndian.Uint64(b[16:]),
		length: binary.BigEndian.Uint32(b[24:]),
	}, nil
}

// verdict says what a read-only export of size bytes answers to r. Only a READ
// can be answered with errNone.
func (r request) verdict(size int64) errno {
	switch r.kind {
	case cmdWrite, cmdTrim, cmdWriteZeroes:
		return errPerm
	case cmdRead:
	default:
		return errInval
	}
	end := uint64(size)
	if r.flags&^cmdFlagFUA != 0 || r.length > maxRequest || r.offset > end || uint64(r.length) > end-r.offset {
		return errInval
	}
	return errNone
}

// putReply writes a simple reply header of replySize bytes to b.
func putReply(b []byte, code errno, cookie uint64) {
	binary.BigEndian.PutUint32(b, magicSimpleReply)
	binary.BigEndian.PutUint32(b[4:], uint32(code))
	binary.BigEndian.PutUint64(b[8:], cookie)
}

// appendOption appends an option as a client sends it.
func appendOption(b []byte, option uint32, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// appendOptionReply appends a reply to an option as a server sends it.
func appendOptionReply(b []byte, option, kind uint32, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, magicOptionReply)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

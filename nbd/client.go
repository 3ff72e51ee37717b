package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
	"unicode"
)

// Info is what a server tells about an export.
type Info struct {
	Size  uint64 // bytes
	Flags uint16 // transmission flags, FlagHasFlags and the like

	// Block sizes in bytes: what requests must be aligned to, what is best,
	// and the longest request. 1, 4096 and 32 MiB if the server says nothing.
	BlockMin, BlockPreferred, BlockMax uint32
}

// ErrUnknownExport is in the error of a server that has no export of that name.
var ErrUnknownExport = errors.New("the server has no export of that name")

// RefusedError is a server's "no" to an export. Asking again is of use only
// after something has changed at the server.
type RefusedError struct {
	Export string
	Code   uint32 // option reply type, NBD_REP_ERR_*
	Text   string // the server's own words, printable; may be empty
}

func (e *RefusedError) Error() string {
	text := fmt.Sprintf("nbd: the server refuses export %q with error %d", e.Export, e.Code&^(1<<31))
	if e.Text != "" {
		text += ": " + e.Text
	}
	return text
}

// Is makes errors.Is(err, ErrUnknownExport) work.
func (e *RefusedError) Is(target error) bool {
	return target == ErrUnknownExport && e.Code == repErrUnknown
}

// Dial connects to an NBD server at a TCP address and negotiates as
// [Negotiate] does.
func Dial(ctx context.Context, address, export string) (net.Conn, Info, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, Info{}, fmt.Errorf("nbd: %w", err)
	}
	info, err := Negotiate(ctx, conn, export)
	if err != nil {
		conn.Close()
		return nil, Info{}, err
	}
	return conn, info, nil
}

// Negotiate asks the server on conn for an export. Afterwards conn is in the
// transmission phase, no byte has been read beyond the handshake, and no
// deadline is set: the socket can be handed to the kernel. After an error conn
// is of no more use, and the caller closes it. The end of ctx ends the
// negotiation.
func Negotiate(ctx context.Context, conn net.Conn, export string) (Info, error) {
	if len(export) > maxName {
		return Info{}, fmt.Errorf("nbd: an export's name has at most %d bytes, this one %d", maxName, len(export))
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	info, err := negotiate(conn, export)
	if !stop() {
		return Info{}, fmt.Errorf("nbd: negotiating export %q: %w", export, context.Cause(ctx))
	}
	var refused *RefusedError
	if err == nil || errors.As(err, &refused) {
		return info, err
	}
	return Info{}, fmt.Errorf("nbd: negotiating export %q: %w", export, err)
}

func negotiate(conn io.ReadWriter, export string) (Info, error) {
	var greeting [greetingSize]byte
	if _, err := io.ReadFull(conn, greeting[:]); err != nil {
		return Info{}, fmt.Errorf("waiting for the greeting: %w", err)
	}
	if binary.BigEndian.Uint64(greeting[:]) != magicInit || binary.BigEndian.Uint64(greeting[8:]) != magicOption {
		return Info{}, errors.New("the server does not speak newstyle NBD")
	}
	offered := binary.BigEndian.Uint16(greeting[16:])
	if offered&flagFixedNewstyle == 0 {
		return Info{}, errors.New("the server does not speak fixed newstyle NBD, which has been usual since 2012")
	}
	flags := uint32(offered & (flagFixedNewstyle | flagNoZeroes))

	data := binary.BigEndian.AppendUint32(nil, uint32(len(export)))
	data = append(data, export...)
	data = binary.BigEndian.AppendUint16(data, 1)
	data = binary.BigEndian.AppendUint16(data, infoBlockSize)
	hello := appendOption(binary.BigEndian.AppendUint32(nil, flags), optGo, data)
	if _, err := conn.Write(hello); err != nil {
		return Info{}, fmt.Errorf("asking: %w", err)
	}

	info, err := readInfo(conn, export)
	var refused *RefusedError
	if errors.As(err, &refused) && refused.Code == repErrUnsup {
		return oldNegotiate(conn, export, flags&flagNoZeroes != 0)
	}
	return info, err
}

// readInfo reads the replies to GO up to the last one.
func readInfo(conn io.Reader, export string) (Info, error) {
	info := Info{BlockMin: blockSmall, BlockPreferred: blockNormal, BlockMax: maxRequest}
	for range 64 { // a server has three or four things to tell
		kind, data, err := readOptionReply(conn, optGo)
		switch {
		case err != nil:
			return Info{}, err
		case kind == repAck && info.Flags&FlagHasFlags == 0:
			return Info{}, errors.New("the server agreed without telling the export's size")
		case kind == repAck:
			return info, nil
		case kind&(1<<31) != 0:
			return Info{}, &RefusedError{Export: export, Code: kind, Text: printable(data)}
		case kind != repInfo || len(data) < 2:
			return Info{}, fmt.Errorf("the server sent a reply of type %d with %d bytes, which does not belong here", kind, len(data))
		}
		if err := info.learn(binary.BigEndian.Uint16(data), data[2:]); err != nil {
			return Info{}, err
		}
	}
	return Info{}, errors.New("the server does not stop telling about the export")
}

// learn takes one piece of information. Kinds it does not know it leaves.
func (i *Info) learn(kind uint16, data []byte) error {
	switch {
	case kind == infoExport && len(data) == 10:
		i.Size = binary.BigEndian.Uint64(data)
		i.Flags = binary.BigEndian.Uint16(data[8:])
	case kind == infoBlockSize && len(data) == 12:
		i.BlockMin = binary.BigEndian.Uint32(data)
		i.BlockPreferred = binary.BigEndian.Uint32(data[4:])
		i.BlockMax = binary.BigEndian.Uint32(data[8:])
	case kind == infoExport || kind == infoBlockSize:
		return fmt.Errorf("the server sent information of type %d with %d bytes, which is no valid length", kind, len(data))
	}
	return nil
}

// oldNegotiate asks by EXPORT_NAME, for servers without GO.
func oldNegotiate(conn io.ReadWriter, export string, noZeroes bool) (Info, error) {
	if _, err := conn.Write(appendOption(nil, optExportName, []byte(export))); err != nil {
		return Info{}, fmt.Errorf("asking by EXPORT_NAME: %w", err)
	}
	var reply [10 + 124]byte
	answer := reply[:]
	if noZeroes {
		answer = reply[:10]
	}
	if _, err := io.ReadFull(conn, answer); err != nil {
		return Info{}, fmt.Errorf("the server hung up on EXPORT_NAME, which is how it says that it has no such export: %w", err)
	}
	return Info{
		Size: binary.BigEndian.Uint64(answer), Flags: binary.BigEndian.Uint16(answer[8:]),
		BlockMin: blockSmall, BlockPreferred: blockNormal, BlockMax: maxRequest,
	}, nil
}

// readOptionReply reads one reply to option.
func readOptionReply(conn io.Reader, option uint32) (kind uint32, data []byte, err error) {
	var head [optionReplySize]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return 0, nil, fmt.Errorf("waiting for a reply: %w", err)
	}
	if magic := binary.BigEndian.Uint64(head[:]); magic != magicOptionReply {
		return 0, nil, fmt.Errorf("reply %#016x %w", magic, errMagic)
	}
	if to := binary.BigEndian.Uint32(head[8:]); to != option {
		return 0, nil, fmt.Errorf("the server replied to option %d instead of %d", to, option)
	}
	length := binary.BigEndian.Uint32(head[16:])
	if length > maxOption {
		return 0, nil, fmt.Errorf("the server announced a reply of %d bytes, more than it can have to say", length)
	}
	data = make([]byte, length)
	if _, err := io.ReadFull(conn, data); err != nil {
		return 0, nil, fmt.Errorf("reading a reply: %w", err)
	}
	return binary.BigEndian.Uint32(head[12:]), data, nil
}

// printable is a server's text made fit for a console.
func printable(text []byte) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, brief(text))
}

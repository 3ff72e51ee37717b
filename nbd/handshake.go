package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"unicode/utf8"
)

// errAborted is the end of a handshake whose client had no wish to go on: it
// said ABORT, or only looked and left.
var errAborted = errors.New("the client ended the handshake")

// handshake is the server's side of one negotiation.
type handshake struct {
	in       *bufio.Reader
	out      io.Writer
	exports  Exports
	list     bool
	log      *slog.Logger
	noZeroes bool // agreed with the client
}

// run negotiates until the client has chosen an export, which the caller then
// owns, or until the connection is of no more use.
func (h *handshake) run(ctx context.Context) (name string, export Export, err error) {
	if err := h.greet(); err != nil {
		return "", nil, err
	}
	for {
		option, data, err := h.option()
		if err != nil {
			return "", nil, err
		}
		switch option {
		case optExportName:
			export, err := h.exportName(ctx, data)
			return string(data), export, err
		case optGo, optInfo:
			name, export, err := h.info(ctx, option, data)
			if err != nil || export != nil {
				return name, export, err
			}
		case optList:
			err = h.names(data)
		case optAbort:
			err = errors.Join(h.reply(option, repAck, ""), errAborted)
		default:
			err = h.reply(option, repErrUnsup, "this server does not know that option")
		}
		if err != nil {
			return "", nil, err
		}
	}
}

// greet exchanges the greeting and the flags.
func (h *handshake) greet() error {
	b := binary.BigEndian.AppendUint64(nil, magicInit)
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint16(b, flagFixedNewstyle|flagNoZeroes)
	if _, err := h.out.Write(b); err != nil {
		return fmt.Errorf("sending the greeting: %w", err)
	}
	if _, err := io.ReadFull(h.in, b[:4]); err != nil {
		return fmt.Errorf("waiting for the client's flags: %w", err)
	}
	flags := binary.BigEndian.Uint32(b)
	if unknown := flags &^ (flagFixedNewstyle | flagNoZeroes); unknown != 0 {
		return fmt.Errorf("the client set the flags %#x, which no NBD client may", unknown)
	}
	h.noZeroes = flags&flagNoZeroes != 0
	return nil
}

// option reads the next option. Data too long to be of any use is read past and
// answered, so that the client can go on.
func (h *handshake) option() (option uint32, data []byte, err error) {
	for {
		var head [optionSize]byte
		if _, err := io.ReadFull(h.in, head[:]); errors.Is(err, io.EOF) {
			return 0, nil, errAborted
		} else if err != nil {
			return 0, nil, fmt.Errorf("waiting for an option: %w", err)
		}
		if magic := binary.BigEndian.Uint64(head[:]); magic != magicOption {
			return 0, nil, fmt.Errorf("option %#016x %w", magic, errMagic)
		}
		option = binary.BigEndian.Uint32(head[8:])
		length := binary.BigEndian.Uint32(head[12:])
		if length > maxSkip || length > maxOption && option == optExportName {
			return 0, nil, fmt.Errorf("the client announced %d bytes for option %d, more than anybody needs", length, option)
		}
		if length > maxOption {
			if _, err := h.in.Discard(int(length)); err != nil {
				return 0, nil, fmt.Errorf("reading past the data of option %d: %w", option, err)
			}
			if err := h.reply(option, repErrTooBig, "the option's data is too long"); err != nil {
				return 0, nil, err
			}
			continue
		}
		data = make([]byte, length)
		if _, err := io.ReadFull(h.in, data); err != nil {
			return 0, nil, fmt.Errorf("reading the data of option %d: %w", option, err)
		}
		return option, data, nil
	}
}

// exportName answers EXPORT_NAME, which knows no error reply: an export that
// cannot be had ends the connection.
func (h *handshake) exportName(ctx context.Context, name []byte) (Export, error) {
	export, _, refusal, err := h.open(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", refusal, err)
	}
	b := appendExport(nil, export)
	if !h.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	if _, err := h.out.Write(b); err != nil {
		return nil, errors.Join(err, export.Close())
	}
	return export, nil
}

// info answers GO and INFO. The export is nil if the handshake goes on.
func (h *handshake) info(ctx context.Context, option uint32, data []byte) (string, Export, error) {
	name, wanted, ok := parseInfo(data)
	if !ok {
		return "", nil, h.reply(option, repErrInvalid, "the lengths inside the option do not add up")
	}
	export, kind, refusal, err := h.open(ctx, name)
	if err != nil {
		return "", nil, h.reply(option, kind, refusal)
	}
	b := binary.BigEndian.AppendUint16(nil, infoExport)
	out := appendOptionReply(nil, option, repInfo, appendExport(b, export))
	for _, kind := range wanted {
		b := binary.BigEndian.AppendUint16(nil, kind)
		switch kind {
		case infoName:
			out = appendOptionReply(out, option, repInfo, append(b, name...))
		case infoBlockSize:
			b = binary.BigEndian.AppendUint32(b, blockSmall)
			b = binary.BigEndian.AppendUint32(b, blockNormal)
			b = binary.BigEndian.AppendUint32(b, maxRequest)
			out = appendOptionReply(out, option, repInfo, b)
		}
	}
	out = appendOptionReply(out, option, repAck, nil)
	_, err = h.out.Write(out)
	if err != nil || option == optInfo {
		return "", nil, errors.Join(err, export.Close())
	}
	return string(name), export, nil
}

// parseInfo takes the data of GO or INFO apart. Each kind of information is
// wanted once, however often it was asked for.
func parseInfo(data []byte) (name []byte, wanted []uint16, ok bool) {
	if len(data) < 6 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(data)
	data = data[4:]
	if uint64(n)+2 > uint64(len(data)) {
		return nil, nil, false
	}
	name, data = data[:n], data[n:]
	count := int(binary.BigEndian.Uint16(data))
	data = data[2:]
	if len(data) != 2*count {
		return nil, nil, false
	}
	for _, kind := range []uint16{infoName, infoBlockSize} {
		for i := range count {
			if binary.BigEndian.Uint16(data[2*i:]) == kind {
				wanted = append(wanted, kind)
				break
			}
		}
	}
	return name, wanted, true
}

// open opens an export. With an error it also returns the reply's type and the
// sentence the client may read; why it failed is told to the log only.
func (h *handshake) open(ctx context.Context, name []byte) (export Export, kind uint32, refusal string, err error) {
	if len(name) > maxName {
		return nil, repErrTooBig, "a name has at most 4096 bytes", fs.ErrInvalid
	}
	if !utf8.Valid(name) {
		return nil, repErrInvalid, "a name must be UTF-8", fs.ErrInvalid
	}
	export, err = h.exports.Open(ctx, string(name))
	switch {
	case err == nil:
		return export, 0, "", nil
	case errors.Is(err, fs.ErrNotExist):
		kind, refusal = repErrUnknown, "there is no export of that name"
	case errors.Is(err, fs.ErrPermission):
		kind, refusal = repErrPolicy, "that export is not for this client"
	default:
		kind, refusal = repErrUnknown, "that export cannot be opened now; the server's log says why"
	}
	h.log.Warn("nbd: "+refusal, "export", brief(name), "err", err)
	return nil, kind, refusal, err
}

// names answers LIST.
func (h *handshake) names(data []byte) error {
	if len(data) != 0 {
		return h.reply(optList, repErrInvalid, "LIST has no data")
	}
	if !h.list {
		return h.reply(optList, repErrPolicy, "this server does not list its exports")
	}
	var out []byte
	for _, name := range h.exports.Names() {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
		out = appendOptionReply(out, optList, repServer, append(b, name...))
	}
	_, err := h.out.Write(appendOptionReply(out, optList, repAck, nil))
	return err
}

// reply sends a reply with a sentence for people in it.
func (h *handshake) reply(option, kind uint32, text string) error {
	_, err := h.out.Write(appendOptionReply(nil, option, kind, []byte(text)))
	return err
}

// appendExport appends size and transmission flags of an export.
func appendExport(b []byte, export Export) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(export.Size()))
	return binary.BigEndian.AppendUint16(b, FlagHasFlags|FlagReadOnly|FlagCanMultiConn)
}

// brief is a stranger's text, short enough for a log line.
func brief(text []byte) string {
	const enough = 128
	if len(text) > enough {
		return string(text[:enough]) + "..."
	}
	return string(text)
}

// Package talk is a node's side of the wire: the appliance's clock, plan, files and reports. It speaks HTTP/1.0 by
// itself, since net/http would double stage 1, which crosses TFTP.
package talk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxBody bounds what is read of an answer.
const maxBody = 16 << 20

// exchange sends one request and returns the answer's body. Any status but 2xx is an error that carries what the
// server said.
func exchange(ctx context.Context, server, method, target string, body []byte) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	head := fmt.Sprintf("%s %s HTTP/1.0\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", method, target, server, len(body))
	if _, err := conn.Write(append([]byte(head), body...)); err != nil {
		return nil, err
	}
	answer, err := readAnswer(bufio.NewReader(conn))
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return answer, err
}

func readAnswer(r *bufio.Reader) ([]byte, error) {
	status, err := readLine(r)
	if err != nil {
		return nil, fmt.Errorf("no answer: %w", err)
	}
	version, rest, _ := strings.Cut(status, " ")
	word, _, _ := strings.Cut(rest, " ")
	code, err := strconv.Atoi(word)
	if !strings.HasPrefix(version, "HTTP/1.") || err != nil {
		return nil, fmt.Errorf("this is no HTTP server: it says %q", printable(status))
	}
	length, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the answer broke off: %w", err)
	case len(body) > maxBody:
		return nil, fmt.Errorf("the answer is longer than %d bytes", maxBody)
	case length >= 0 && len(body) != length:
		return nil, fmt.Errorf("the answer has %d bytes instead of %d", len(body), length)
	case code < 200 || code > 299:
		return nil, fmt.Errorf("the server answered %d: %s", code, printable(string(body[:min(len(body), 300)])))
	}
	return body, nil
}

// readHeader reads up to the empty line and returns Content-Length, -1 if there is none.
func readHeader(r *bufio.Reader) (length int, err error) {
	length = -1
	for range 100 {
		line, err := readLine(r)
		if err != nil {
			return 0, fmt.Errorf("the answer's header broke off: %w", err)
		}
		if line == "" {
			return length, nil
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "content-length":
			if length, err = strconv.Atoi(value); err != nil || length < 0 {
				return 0, fmt.Errorf("the answer's length is %q", printable(value))
			}
		case "transfer-encoding":
			return 0, fmt.Errorf("the server uses the transfer encoding %q in HTTP/1.0", printable(value))
		}
	}
	return 0, errors.New("the answer's header does not end")
}

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	return strings.TrimRight(string(line), "\r\n"), err
}

// printable is a server's text made fit for a console: one line, no control characters.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return -1
	}, s)
	return strings.TrimSpace(s)
}

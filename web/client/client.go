// Package client asks a bramble appliance over its HTTP API.
package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"bramble/web/api"
)

// Client asks one appliance. It is safe for concurrent use.
type Client struct {
	Base  string       // like http://127.0.0.1:8080
	Token string       // admin token; needed to change things and, on a private appliance, to read over HTTPS
	HTTP  *http.Client // nil: http.DefaultClient; see Pinned
}

// Error is a refusal by the appliance.
type Error struct {
	Status int    // HTTP status
	Detail string // the appliance's sentence
}

// Error is the appliance's sentence.
func (e *Error) Error() string { return e.Detail }

// Pinned returns an HTTP client for an appliance that is known by the SHA-256, in hex, of its certificate or of the CA
// which issued that, as bramble serve logs it. Names are not looked at, nor is this machine's clock.
func Pinned(fingerprint string) *http.Client {
	pin := strings.ReplaceAll(fingerprint, ":", "")
	check := func(certs [][]byte, _ [][]*x509.Certificate) error {
		leaf, err := x509.ParseCertificate(certs[0])
		if err != nil {
			return err
		}
		for i, raw := range certs {
			sum := sha256.Sum256(raw)
			if !strings.EqualFold(hex.EncodeToString(sum[:]), pin) {
				continue
			}
			if i == 0 {
				return nil
			}
			ca, err := x509.ParseCertificate(raw)
			if err != nil {
				return err
			}
			roots := x509.NewCertPool()
			roots.AddCert(ca)
			_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: leaf.NotBefore.Add(time.Second)})
			return err
		}
		return fmt.Errorf("the appliance's certificate has the fingerprint %x, not the expected one; is this the right machine?", sha256.Sum256(certs[0]))
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, VerifyPeerCertificate: check, MinVersion: tls.VersionTLS12}
	return &http.Client{Transport: transport}
}

// Nodes returns all boards, by name.
func (c *Client) Nodes(ctx context.Context) (nodes []api.Node, err error) {
	return nodes, c.get(ctx, "/nodes", &nodes)
}

// Node returns one board by its name, serial number or MAC address.
func (c *Client) Node(ctx context.Context, word string) (d api.Detail, err error) {
	return d, c.get(ctx, "/nodes/"+url.PathEscape(word), &d)
}

// Events returns up to limit events after the seq since, of one board or, with an empty word, of all.
func (c *Client) Events(ctx context.Context, since uint64, word string, limit int) (events []api.Line, err error) {
	q := url.Values{"since": {strconv.FormatUint(since, 10)}, "limit": {strconv.Itoa(limit)}}
	if word != "" {
		q.Set("node", word)
	}
	return events, c.get(ctx, "/events?"+q.Encode(), &events)
}

// Findings returns what the probe and the appliance say, newest first.
func (c *Client) Findings(ctx context.Context) (events []api.Line, err error) {
	return events, c.get(ctx, "/findings", &events)
}

// Images returns the catalogue.
func (c *Client) Images(ctx context.Context) (images []api.Image, err error) {
	return images, c.get(ctx, "/images", &images)
}

// Health tells how the appliance is.
func (c *Client) Health(ctx context.Context) (h api.Health, err error) {
	return h, c.get(ctx, "/healthz", &h)
}

// Forget drops a board's state. It needs the token.
func (c *Client) Forget(ctx context.Context, word string) error {
	answer, err := c.do(ctx, http.MethodPost, "/nodes/"+url.PathEscape(word)+"/forget", nil)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

// Output returns the end of what each step of a board's agent printed.
func (c *Client) Output(ctx context.Context, word string) (all []api.Output, err error) {
	return all, c.get(ctx, "/nodes/"+url.PathEscape(word)+"/output", &all)
}

// Enrolment tells who may join.
func (c *Client) Enrolment(ctx context.Context) (e api.Enrolment, err error) {
	return e, c.get(ctx, "/enrolment", &e)
}

// Approve lets a board join that waits, if code is the one that it shows. It needs the token.
func (c *Client) Approve(ctx context.Context, word, code string) error {
	return c.post(ctx, "/nodes/"+url.PathEscape(word)+"/approve", map[string]any{"code": code})
}

// OpenWindow lets unknown boards join for a time; 0 closes the window. It needs the token.
func (c *Client) OpenWindow(ctx context.Context, open time.Duration) error {
	return c.post(ctx, "/enrolment/window", map[string]any{"seconds": int64(open.Seconds())})
}

func (c *Client) post(ctx context.Context, path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	answer, err := c.do(ctx, http.MethodPost, path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

// New is a value for Follow: begin with what is new.
const New = ^uint64(0)

// Follow calls line for every event after the seq since, as it happens, of one board or, with an empty word, of all.
// It comes back to an appliance that went away, and goes on behind the last event. It ends when ctx does, with nil;
// when line returns an error, with that; or when the appliance refuses.
func (c *Client) Follow(ctx context.Context, since uint64, word string, line func(api.Line) error) error {
	for ctx.Err() == nil {
		err := c.follow(ctx, &since, word, line)
		var refused *Error
		var own *lineError
		switch {
		case errors.As(err, &own):
			return own.error
		case errors.As(err, &refused) && refused.Status < 500:
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

type lineError struct{ error }

func (c *Client) follow(ctx context.Context, since *uint64, word string, line func(api.Line) error) error {
	q := url.Values{}
	if *since != New {
		q.Set("since", strconv.FormatUint(*since, 10))
	}
	if word != "" {
		q.Set("node", word)
	}
	answer, err := c.do(ctx, http.MethodGet, "/events/stream?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		var e api.Line
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("the appliance sent a line that is no event: %w", err)
		}
		if err := line(e); err != nil {
			return &lineError{err}
		}
		if e.Seq != 0 {
			*since = e.Seq
		}
	}
	return lines.Err()
}

func (c *Client) get(ctx context.Context, path string, into any) error {
	answer, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(io.LimitReader(answer.Body, 256<<20)).Decode(into); err != nil {
		return fmt.Errorf("the answer of %s cannot be understood; is it a bramble of the same version? %w", c.Base, err)
	}
	return nil
}

// do asks; any status but success is an *Error.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.Base, "/")+api.Prefix+path, body)
	if err != nil {
		return nil, fmt.Errorf("%q is not the address of an appliance: %w", c.Base, err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("the appliance at %s does not answer; does bramble serve run there? %w", c.Base, err)
	}
	if answer.StatusCode < 300 {
		return answer, nil
	}
	defer answer.Body.Close()
	problem := struct{ Detail string }{}
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err == nil && json.Unmarshal(text, &problem) != nil || problem.Detail == "" {
		problem.Detail = fmt.Sprintf("the appliance answered %s to %s %s", answer.Status, method, path)
	}
	return nil, &Error{Status: answer.StatusCode, Detail: problem.Detail}
}

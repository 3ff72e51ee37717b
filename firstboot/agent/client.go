package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"bramble/firstboot/talk"
)

// client speaks to the appliance's HTTPS server. It believes in one CA, and shows the node's certificate once it has one.
type client struct {
	http   *http.Client
	base   string
	ca     *x509.Certificate
	now    func() time.Time
	ahead  atomic.Int64 // nanoseconds that the appliance's clock is ahead of one that was never set
	mine   atomic.Pointer[tls.Certificate]
	closer func()
}

// refusal is the appliance's "no", in its words.
type refusal struct {
	code int
	text string
}

func (r refusal) Error() string { return r.text }

// newClient reads the CA's certificate and checks that it is the one that the command line pins.
func newClient(caFile string, o Orders, now func() time.Time) (*client, error) {
	if o.Secure == "" || o.Pin == "" {
		return nil, errors.New("the kernel command line names no appliance to enroll with; is enrolment switched off there?")
	}
	if _, _, err := net.SplitHostPort(o.Secure); err != nil {
		return nil, fmt.Errorf("the kernel command line's address for enrolment, %q, is none", o.Secure)
	}
	text, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("the appliance's CA certificate is not there: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is no certificate in PEM", caFile)
	}
	if sum := sha256.Sum256(block.Bytes); hex.EncodeToString(sum[:]) != strings.ToLower(o.Pin) {
		return nil, fmt.Errorf("the CA in %s has the SHA-256 %x, but the kernel command line pins %s: the files and the command line are not of the same appliance", caFile, sum, o.Pin)
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s is no certificate: %w", caFile, err)
	}
	c := &client{base: "https://" + o.Secure, ca: ca, now: now}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	transport := &http.Transport{
		MaxIdleConns: 2, IdleConnTimeout: 2 * time.Minute, TLSHandshakeTimeout: 20 * time.Second,
		DialContext: (&net.Dialer{Timeout: 20 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig: &tls.Config{
			RootCAs: roots, MinVersion: tls.VersionTLS13, Time: c.Now,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if mine := c.mine.Load(); mine != nil {
					return mine, nil
				}
				return &tls.Certificate{}, nil
			},
		},
	}
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	c.closer = transport.CloseIdleConnections
	return c, nil
}

// Now is the time that certificates are judged by. A board has no clock of its own: stage 1 sets it, but a system may set
// it back, and then what the appliance says counts.
func (c *client) Now() time.Time {
	now := c.now()
	if now.Before(c.ca.NotBefore) {
		return now.Add(time.Duration(c.ahead.Load()))
	}
	return now
}

// setClock asks for the time if this system's clock cannot be right.
func (c *client) setClock(ctx context.Context, from talk.Appliance) error {
	now := c.now()
	if !now.Before(c.ca.NotBefore) {
		return nil
	}
	there, err := from.Clock(ctx)
	if err != nil {
		return fmt.Errorf("the clock says %s, and the right time is not to be had: %w", now.UTC().Format(time.DateOnly), err)
	}
	c.ahead.Store(int64(there.Sub(now)))
	return nil
}

// show makes the client show a certificate from now on.
func (c *client) show(mine *tls.Certificate) {
	c.mine.Store(mine)
	c.closer()
}

// patience with a request that is not meant to wait.
const patience = 30 * time.Second

// maxAnswer bounds a JSON answer.
const maxAnswer = 1 << 20

// post sends JSON, or text as it is, and reads a JSON answer if into is not nil.
func (c *client) post(ctx context.Context, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	data, kind := []byte(nil), "text/plain; charset=utf-8"
	if text, ok := body.([]byte); ok {
		data = text
	} else {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return err
		}
		kind = "application/json"
	}
	answer, _, err := c.ask(ctx, http.MethodPost, path, kind, data, maxAnswer)
	if err != nil || into == nil {
		return err
	}
	return decode(answer, into)
}

// get reads an answer of at most limit bytes; the code is 200 or 304.
func (c *client) get(ctx context.Context, path string, query url.Values, limit int64) (answer []byte, code int, err error) {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.ask(ctx, http.MethodGet, path, "", nil, limit)
}

func (c *client) ask(ctx context.Context, method, path, kind string, body []byte, limit int64) ([]byte, int, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	response, err := c.http.Do(r)
	if err != nil {
		return nil, 0, fmt.Errorf("the appliance cannot be asked: %w", cause(ctx, err))
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("the appliance's answer broke off: %w", cause(ctx, err))
	case response.StatusCode == http.StatusNotModified:
		return nil, response.StatusCode, nil
	case response.StatusCode < 200 || response.StatusCode > 299:
		return nil, response.StatusCode, refusal{response.StatusCode, words(response, answer)}
	case int64(len(answer)) > limit:
		return nil, 0, fmt.Errorf("the appliance's answer has more than %d bytes", limit)
	}
	return answer, response.StatusCode, nil
}

// cause says that it took too long in better words than net/http.
func cause(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errors.New("it does not answer in time")
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// words is what a refusal says, made one printable line.
func words(r *http.Response, body []byte) string {
	text := strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(string(body[:min(len(body), 500)]), ""))), " ")
	if text == "" {
		text = "it does not say why"
	}
	return fmt.Sprintf("the appliance says no (%s): %s", r.Status, text)
}

func decode(answer []byte, into any) error {
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("the appliance's answer cannot be read: %w", err)
	}
	return nil
}

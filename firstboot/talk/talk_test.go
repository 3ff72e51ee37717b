package talk

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"bramble/firstboot/wire"
	"bramble/node"
)

var mac = node.MAC{0xb8, 0x27, 0xeb, 1, 2, 3}

// appliance serves h with the real net/http.
func appliance(t *testing.T, h http.HandlerFunc) Appliance {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return Appliance{Server: strings.TrimPrefix(s.URL, "http://"), MAC: mac, Boot: "0badcafe"}
}

func TestConversation(t *testing.T) {
	files := strings.Repeat("tar", 1_000_000)
	sum := sha256.Sum256([]byte(files))
	sha := hex.EncodeToString(sum[:])
	plan := wire.Plan{Name: "pi-1", Root: wire.Block{Addr: "1.2.3.4:10809", Export: "x", FSType: "ext4"}, FilesSHA: sha}
	var report wire.Report
	a := appliance(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.String() {
		case "GET /v1/clock":
			_ = json.NewEncoder(w).Encode(wire.Clock{Now: time.Unix(1_800_000_000, 0)})
		case "GET /v1/stage1/plan?mac=b8:27:eb:01:02:03&boot=0badcafe":
			_ = json.NewEncoder(w).Encode(plan)
		case "GET /v1/stage1/files?mac=b8:27:eb:01:02:03&boot=0badcafe":
			_, _ = w.Write([]byte(files))
		case "POST /v1/stage1/report":
			if err := json.NewDecoder(r.Body).Decode(&report); err != nil {
				t.Error(err)
			}
			w.WriteHeader(http.StatusNoContent)
		default:
			t.Errorf("%s %s", r.Method, r.URL)
			http.NotFound(w, r)
		}
	})
	ctx := context.Background()
	if now, err := a.Clock(ctx); err != nil || now.Unix() != 1_800_000_000 {
		t.Errorf("Clock() = %v, %v", now, err)
	}
	if p, err := a.Plan(ctx); err != nil || p.Root != plan.Root || p.Name != "pi-1" {
		t.Errorf("Plan() = %+v, %v", p, err)
	}
	if got, err := a.Files(ctx, sha); err != nil || string(got) != files {
		t.Errorf("Files() = %d bytes, %v", len(got), err)
	}
	if _, err := a.Files(ctx, strings.Repeat("0", 64)); err == nil || !strings.Contains(err.Error(), "the plan says") {
		t.Errorf("Files() with another sum: %v", err)
	}
	if err := a.Report(ctx, wire.Report{Step: "root", OK: true}); err != nil || report.MAC != mac || report.Boot != "0badcafe" || report.Step != "root" {
		t.Errorf("Report() = %v; arrived as %+v", err, report)
	}
}

func TestTrouble(t *testing.T) {
	ctx := context.Background()
	for want, h := range map[string]http.HandlerFunc{
		"answered 404: who are you? [2J":    func(w http.ResponseWriter, r *http.Request) { http.Error(w, "who are\nyou? \x1b[2J", 404) },
		"names no root":                     func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(`{"name":"x"}`)) },
		"cannot be read: invalid character": func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(`<html>`)) },
		"answered 301": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusMovedPermanently)
		},
	} {
		if _, err := appliance(t, h).Plan(ctx); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Plan() = %v; want an error with %q", err, want)
		}
	}
	a := appliance(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(`{"now":"1970-01-01T00:00:00Z"}`)) })
	if _, err := a.Clock(ctx); err == nil || !strings.Contains(err.Error(), "cannot be") {
		t.Errorf("Clock() = %v", err)
	}
}

// TestSilence: a server that accepts and says nothing is left when the context ends.
func TestSilence(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := (Appliance{Server: ln.Addr().String()}).Plan(ctx); err == nil || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("Plan() = %v", err)
	}
}

func TestReadAnswer(t *testing.T) {
	for text, want := range map[string]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi": "",
		"HTTP/1.0 204 No Content\r\n\r\n":                "",
		"HTTP/1.0 200\n\nhi":                             "",
		"":                                               "no answer",
		"SSH-2.0-x\r\n":                                  "no HTTP server",
		"HTTP/1.1 x OK\r\n\r\n":                          "no HTTP server",
		"HTTP/1.1 200 OK\r\n":                            "broke off",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi":         "2 bytes instead of 3",
		"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nhi":        "length is",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2": "transfer encoding",
		"HTTP/1.1 200 OK\r\n" + strings.Repeat("a: b\r\n", 200):  "does not end",
		"HTTP/1.1 200 OK\r\nx: " + strings.Repeat("long", 10000): "broke off",
	} {
		_, err := readAnswer(bufio.NewReader(strings.NewReader(text)))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("readAnswer(%.60q) = %v; want %q", text, err, want)
		}
	}
}

func FuzzReadAnswer(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
	f.Add("HTTP/1.1 404 \x1b[2J\nContent-Length: 0\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		body, err := readAnswer(bufio.NewReader(strings.NewReader(text)))
		if err == nil && len(body) > len(text) {
			t.Errorf("%d bytes out of %d", len(body), len(text))
		}
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\n\r") {
			t.Errorf("an error that is not fit for a console: %q", err)
		}
	})
}

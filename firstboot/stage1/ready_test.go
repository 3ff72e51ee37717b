package stage1

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

// greeter is a server that says its text to everybody.
func greeter(t *testing.T, text string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(text))
			conn.Close()
		}
	}()
	return ln.Addr().String()
}

func TestBanner(t *testing.T) {
	for text, want := range map[string]string{
		"SSH-2.0-OpenSSH_10.0p2 Debian-7\r\n": "", "HTTP/1.0 400 Bad Request\r\n": "does not speak SSH", "": "EOF",
	} {
		err := Banner(context.Background(), greeter(t, text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Banner of %q: %v, want %q", text, err, want)
		}
	}
	if err := Banner(context.Background(), "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Banner of nobody: %v", err)
	}
}

func TestClockError(t *testing.T) {
	if got := clockError(time.Now().Add(1500 * time.Millisecond)); !strings.HasPrefix(got, "was off by 1.") {
		t.Errorf("a second and a half ahead: %s", got)
	}
	if got := clockError(time.Now().AddDate(-50, 0, 0)); !strings.HasPrefix(got, "thought it was 2") {
		t.Errorf("fifty years behind: %s", got)
	}
}

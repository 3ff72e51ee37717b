package tftp

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	pin "github.com/pin/tftp/v3"
)

// Other people's clients read what was put in, with and without options, over IPv4 and IPv6.
func TestRealClients(t *testing.T) {
	content := pattern(1_000_003, 5)
	tree := memory{"kernel8.img": content, "exact": content[:1468*20], "text": []byte("line\nline\n")}
	clients := map[string]func(server netip.AddrPort, name, to string) *exec.Cmd{
		"tftp": func(s netip.AddrPort, name, to string) *exec.Cmd {
			return exec.Command("tftp", "-m", "binary", s.Addr().String(), fmt.Sprint(s.Port()), "-c", "get", name, to)
		},
		"atftp": func(s netip.AddrPort, name, to string) *exec.Cmd {
			return exec.Command("atftp", "--option", "blksize 1468", "--option", "tsize 0", "-g", "-r", name, "-l", to, s.Addr().String(), fmt.Sprint(s.Port()))
		},
		"curl": func(s netip.AddrPort, name, to string) *exec.Cmd {
			return exec.Command("curl", "-sS", "--tftp-blksize", "1024", "-o", to, "tftp://"+s.String()+"/"+name)
		},
		"curl no options": func(s netip.AddrPort, name, to string) *exec.Cmd {
			return exec.Command("curl", "-sS", "--tftp-no-options", "-o", to, "tftp://"+s.String()+"/"+name)
		},
	}
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		addr := startAt(t, &Server{Tree: tree}, listen)
		for name, client := range clients {
			if name == "tftp" && addr.Addr().Is6() {
				continue // tftp-hpa's command line takes no IPv6 literal
			}
			for file, want := range tree {
				to := filepath.Join(t.TempDir(), "got")
				cmd := client(addr, file, to)
				if _, err := exec.LookPath(cmd.Args[0]); err != nil {
					t.Fatalf("%s is not installed: run lab/setup", cmd.Args[0])
				}
				out, err := cmd.CombinedOutput()
				got, _ := os.ReadFile(to)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s %s from %s: %v, %d of %d bytes: %s", name, file, addr, err, len(got), len(want), out)
				}
			}
		}
	}
}

func TestRealClientsMissing(t *testing.T) {
	addr := start(t, &Server{Tree: memory{}})
	const notFound = 68 // curl's exit status
	cmd := exec.Command("curl", "-s", "-o", os.DevNull, "tftp://"+addr.String()+"/nothing")
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != notFound {
		t.Errorf("curl on a missing file: %v; want exit status %d", err, notFound)
	}
	out, _ := exec.Command("tftp", addr.Addr().String(), fmt.Sprint(addr.Port()), "-c", "get", "nothing", os.DevNull).CombinedOutput()
	if !strings.Contains(string(out), "File not found") {
		t.Errorf("tftp on a missing file says %q", out)
	}
}

// The client of the library beside which this server grew.
func TestPinClient(t *testing.T) {
	content := pattern(300_000, 6)
	addr := start(t, &Server{Tree: memory{"f": content, "lines": []byte("a\nb\n")}})
	for _, block := range []int{512, 1024, 1468, 65464} {
		c, err := pin.NewClient(addr.String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetBlockSize(block)
		c.RequestTSize(true)
		from, err := c.Receive("f", "octet")
		if err != nil {
			t.Fatal(err)
		}
		if size, ok := from.(pin.IncomingTransfer).Size(); !ok || size != int64(len(content)) {
			t.Errorf("block %d: tsize %d, %v", block, size, ok)
		}
		var got bytes.Buffer
		if _, err := from.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), content) {
			t.Errorf("block %d: %v, %d of %d bytes", block, err, got.Len(), len(content))
		}
	}
	c, err := pin.NewClient(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive("missing", "octet"); err == nil || !strings.Contains(err.Error(), "File not found") {
		t.Errorf("a missing file: %v", err)
	}
}

package nbd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bramble/lab"
)

// nbdinfoExport is what this test reads of nbdinfo --json.
type nbdinfoExport struct {
	Name     string `json:"export-name"`
	Size     int64  `json:"export-size"`
	ReadOnly bool   `json:"is_read_only"`
	Multi    bool   `json:"can_multi_conn"`
	Flush    bool   `json:"can_flush"`
	Trim     bool   `json:"can_trim"`
	Zero     bool   `json:"can_zero"`
	FUA      bool   `json:"can_fua"`
	DF       bool   `json:"can_df"`
	Min      int    `json:"block_size_minimum"`
	Best     int    `json:"block_size_preferred"`
	Max      int    `json:"block_size_maximum"`
}

type nbdinfo struct {
	Protocol   string          `json:"protocol"`
	TLS        bool            `json:"TLS"`
	Structured bool            `json:"structured"`
	Exports    []nbdinfoExport `json:"exports"`
}

func TestNbdinfo(t *testing.T) {
	lab.Need(t, "nbdinfo")
	addr := start(t, &Server{Exports: worlds{"a": newMemory(noise(1 << 20)), "b": newMemory(noise(1000))}, List: true})
	export := func(name string, size int64) nbdinfoExport {
		return nbdinfoExport{Name: name, Size: size, ReadOnly: true, Multi: true, Min: 1, Best: 4096, Max: 32 << 20}
	}
	for _, tt := range []struct {
		args []string
		want []nbdinfoExport
	}{
		{[]string{"--json", "nbd://" + addr + "/a"}, []nbdinfoExport{export("a", 1<<20)}},
		{[]string{"--json", "--list", "nbd://" + addr}, []nbdinfoExport{export("a", 1<<20), export("b", 1000)}},
	} {
		out, err := tool(t, "nbdinfo", tt.args...)
		if err != nil {
			t.Fatal(err)
		}
		var got nbdinfo
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(nbdinfo{"newstyle-fixed", false, false, tt.want}, got); diff != "" {
			t.Errorf("nbdinfo %q (-want +got):\n%s", tt.args, diff)
		}
	}
	if _, err := tool(t, "nbdinfo", "nbd://"+addr+"/nosuch"); err == nil || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("nbdinfo of an unknown export: %v; want ENOENT", err)
	}
}

func TestQemuShowsTheSentence(t *testing.T) {
	lab.Need(t, "qemu-img")
	addr := start(t, &Server{Exports: worlds{"a": newMemory(noise(512))}})
	if _, err := tool(t, "qemu-img", "info", "nbd://"+addr+"/nosuch"); err == nil || !strings.Contains(err.Error(), "there is no export of that name") {
		t.Errorf("qemu-img info of an unknown export: %v; want the server's sentence", err)
	}
}

func TestNbdinfoListIsOff(t *testing.T) {
	lab.Need(t, "nbdinfo")
	addr := start(t, &Server{Exports: worlds{"a": newMemory(noise(512))}})
	if out, err := tool(t, "nbdinfo", "--list", "--json", "nbd://"+addr); err == nil && bytes.Contains(out, []byte(`"export-name": "a"`)) {
		t.Errorf("the list is off, and nbdinfo got it: %s", out)
	}
}

// The clients of other people read 256 MiB, alone and all at once.
func TestCopies(t *testing.T) {
	lab.Need(t, "nbdcopy", "qemu-img")
	const size = 256 << 20
	path, data := noiseFile(t, size)
	addr := start(t, &Server{Exports: files{"root": path}})
	uri := "nbd://" + addr + "/root"

	var clients sync.WaitGroup
	for _, args := range [][]string{{"--connections=1"}, {"--connections=8", "--requests=64"}, {"--request-size=33554432"}} {
		clients.Go(func() {
			dest := filepath.Join(t.TempDir(), "copy.img")
			if _, err := tool(t, "nbdcopy", append(args, uri, dest)...); err != nil {
				t.Error(err)
				return
			}
			if got, err := os.ReadFile(dest); err != nil || !bytes.Equal(got, data) {
				t.Errorf("nbdcopy %q: the copy differs (%v)", args, err)
			}
		})
	}
	clients.Go(func() {
		if out, err := tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", path, uri); err != nil || !bytes.Contains(out, []byte("identical")) {
			t.Errorf("qemu-img compare: %s, %v", out, err)
		}
	})
	clients.Wait()

	// The comparison is one that can fail.
	data[size-1] ^= 1
	if err := os.WriteFile(path+".other", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", path+".other", uri); err == nil {
		t.Error("qemu-img compare finds two different images identical")
	}
}

// nbd-client asks for the list as the kernel's helper does.
func TestNbdClientList(t *testing.T) {
	lab.Need(t, "nbd-client")
	addr := start(t, &Server{Exports: worlds{"a": newMemory(noise(512)), "b": newMemory(nil)}, List: true})
	host, port, _ := net.SplitHostPort(addr)
	out, err := tool(t, "nbd-client", "-l", host, port)
	if err != nil || !bytes.Contains(out, []byte("\na\nb\n")) {
		t.Errorf("nbd-client -l: %q, %v; want the names a and b", out, err)
	}
}

// Our client against servers of other people.
func TestDialOtherServers(t *testing.T) {
	lab.Need(t, "nbdkit", "qemu-nbd")
	path, data := noiseFile(t, 1<<20)
	for _, peer := range []string{"nbdkit", "qemu-nbd"} {
		t.Run(peer, func(t *testing.T) {
			addr := launch(t, peer, path)
			conn, info := dial(t, addr, "")
			if info.Size != 1<<20 || info.Flags&(FlagHasFlags|FlagReadOnly) != FlagHasFlags|FlagReadOnly {
				t.Errorf("info %+v; want a read-only export of 1 MiB", info)
			}
			if code, got := ask(t, conn, request{cookie: 1, offset: 512, length: 4096}); code != errNone || !bytes.Equal(got, data[512:512+4096]) {
				t.Errorf("READ: error %d, or wrong data", code)
			}
		})
	}
	t.Run("without GO", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := ln.Addr().(*net.TCPAddr)
		ln.Close()
		cmd := exec.Command("nbdkit", "-f", "-r", "--mask-handshake=0", "-i", "127.0.0.1", "-p", fmt.Sprint(addr.Port), "file", path)
		launched(t, cmd)
		conn := dialTCP(t, addr.String())
		if _, err := Negotiate(t.Context(), conn, ""); err == nil || !strings.Contains(err.Error(), "fixed newstyle") {
			t.Errorf("Negotiate with a server of 2011 = %v; want a sentence about fixed newstyle", err)
		}
	})
}

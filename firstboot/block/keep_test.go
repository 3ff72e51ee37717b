package block

import (
	"context"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bramble/firstboot/wire"
	"bramble/nbd"
)

// disk is an export of a file.
type disk string

func (d disk) Names() []string { return []string{"root"} }

func (d disk) Open(_ context.Context, name string) (nbd.Export, error) {
	if name != "root" {
		return nil, fs.ErrNotExist
	}
	f, err := os.Open(string(d))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return nbd.NewFileSection(f, 0, info.Size()), nil
}

// serve serves a disk of the given size, and returns its address and what stops it.
func serve(t *testing.T, size int64) (wire.Block, func()) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := (&nbd.Server{Exports: disk(file)}).Serve(ctx, ln); err != nil {
			t.Errorf("the server ended: %v", err)
		}
	})
	stop := sync.OnceFunc(func() { cancel(); done.Wait() })
	t.Cleanup(stop)
	return wire.Block{Addr: ln.Addr().String(), Export: "root", FSType: "ext4"}, stop
}

// TestWaitDead: a connection that is alive is waited for, one whose server has gone is not.
func TestWaitDead(t *testing.T) {
	b, stop := serve(t, 1<<20)
	conn, info, err := dial(context.Background(), b)
	if err != nil || info.Size != 1<<20 {
		t.Fatalf("dial() = %+v, %v", info, err)
	}
	defer conn.Close()
	socket, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	dead := make(chan error, 1)
	go func() { dead <- waitDead(context.Background(), socket) }()
	select {
	case err := <-dead:
		t.Fatalf("a live connection is dead: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	stop()
	select {
	case err := <-dead:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("nobody noticed that the server is gone")
	}
}

// TestVigilant: the kernel was told to look after the connection.
func TestVigilant(t *testing.T) {
	b, _ := serve(t, 4096)
	conn, _, err := dial(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		for option, want := range map[int]int{unix.TCP_USER_TIMEOUT: 25_000, unix.TCP_KEEPIDLE: 10, unix.TCP_KEEPINTVL: 5, unix.TCP_KEEPCNT: 3, unix.TCP_NODELAY: 1} {
			if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option); err != nil || got != want {
				t.Errorf("option %d is %d (%v), want %d", option, got, err, want)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSentences(t *testing.T) {
	ctx := context.Background()
	b, stop := serve(t, 8192)
	if _, err := once(ctx, b, 4096); err == nil || !strings.Contains(err.Error(), "another image") {
		t.Errorf("an export of another size: %v", err)
	}
	other := b
	other.Export = "nobody"
	if _, _, err := dial(ctx, other); err == nil || !strings.Contains(err.Error(), `refuses export "nobody"`) {
		t.Errorf("an export that is not there: %v", err)
	}
	stop()
	if _, err := once(ctx, b, 8192); err == nil || !strings.Contains(err.Error(), "the block server "+b.Addr+" does not give the root") {
		t.Errorf("a server that is not there: %v", err)
	}
}

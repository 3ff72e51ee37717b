package tftp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// serveFolder is set in the environment of a copy of the test binary that is the server of TestPeers: each server
// that is compared is a process of its own.
const serveFolder = "BRAMBLE_TFTP_SERVE"

func TestMain(m *testing.M) {
	if folder := os.Getenv(serveFolder); folder != "" {
		if err := serveForBench(folder); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serveForBench(folder string) error {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	fmt.Println(conn.LocalAddr())
	ctx, cancel := context.WithCancel(context.Background())
	go func() { io.Copy(io.Discard, os.Stdin); cancel() }() // the parent's end is ours
	return (&Server{Tree: folderTree(folder)}).Serve(ctx, conn)
}

// folderTree serves the files of a folder.
type folderTree string

func (dir folderTree) Open(_ context.Context, _ Peer, name string) (File, error) {
	f, err := os.OpenInRoot(string(dir), name)
	if err != nil {
		return nil, err
	}
	return FS(f)
}

// BenchmarkPeers prints a table of this server, dnsmasq and tftpd-hpa on the same work, taken in turns.
func BenchmarkPeers(b *testing.B) {
	const rounds = 3
	dir := b.TempDir()
	os.Chmod(dir, 0o755)
	os.Chmod(filepath.Dir(dir), 0o755)
	peers := []struct {
		name  string
		start func(testing.TB, string) netip.AddrPort
	}{{"bramble", startSelf}, {"dnsmasq", startDnsmasq}, {"tftpd-hpa", startHpa}}
	addrs := make([]netip.AddrPort, len(peers))
	for i, p := range peers {
		addrs[i] = p.start(b, dir)
	}
	var table strings.Builder
	fmt.Fprintf(&table, "| clients | blksize | bramble MB/s | dnsmasq MB/s | tftpd-hpa MB/s | to dnsmasq | to tftpd-hpa |\n|---|---|---|---|---|---|---|\n")
	for _, clients := range []int{1, 8, 128} {
		for _, block := range []int{512, 1024, 1468} {
			size := int64(40<<20) / int64(clients) * int64(block) / 1468
			name := fmt.Sprintf("kernel-%d-%d", clients, block)
			if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte{0xd5}, int(size)), 0o644); err != nil {
				b.Fatal(err)
			}
			speed := make([][]float64, len(peers))
			for range rounds {
				for i := range peers {
					took, err := load{addrs[i], name, clients, block, size}.run()
					if err != nil {
						b.Fatalf("%s, %d clients, block %d: %v", peers[i].name, clients, block, err)
					}
					speed[i] = append(speed[i], float64(size)*float64(clients)/1e6/took.Seconds())
				}
			}
			var m [3]float64
			for i := range speed {
				slices.Sort(speed[i])
				m[i] = speed[i][rounds/2]
			}
			fmt.Fprintf(&table, "| %d | %d | %.1f | %.1f | %.1f | %.2fx | %.2fx |\n", clients, block, m[0], m[1], m[2], m[0]/m[1], m[0]/m[2])
		}
	}
	fmt.Print("\nTFTP, median of ", rounds, " runs, each server a process of its own, the same lock-step client over loopback\n\n", table.String(), "\n")
}

func startSelf(t testing.TB, dir string) netip.AddrPort {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveFolder+"="+dir)
	cmd.Stderr = os.Stderr
	in, _ := cmd.StdinPipe()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	var where string
	if _, err := fmt.Fscanln(out, &where); err != nil {
		t.Fatalf("the server did not say where it listens: %v", err)
	}
	return netip.MustParseAddrPort(where)
}

func startDnsmasq(t testing.TB, dir string) netip.AddrPort {
	// dnsmasq's TFTP listens on port 69 only, so it gets a loopback address of its own
	addr := netip.AddrFrom4([4]byte{127, 0, 69, 1})
	startTool(t, "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--enable-tftp", "--tftp-root="+dir,
		"--tftp-max=500", "--listen-address="+addr.String(), "--bind-interfaces", "--user=root", "--log-facility=/dev/null")
	return awaitServer(t, netip.AddrPortFrom(addr, 69))
}

func startHpa(t testing.TB, dir string) netip.AddrPort {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 69, 2}), 69)
	startTool(t, "in.tftpd", "--foreground", "--address", addr.String(), "--user", "root", "--secure", dir)
	return awaitServer(t, addr)
}

func startTool(t testing.TB, tool string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil {
		t.Fatalf("%s is not installed: run lab/setup", tool)
	}
	cmd := exec.Command(path, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
}

// awaitServer waits until a server answers at all, if only that a file is missing.
func awaitServer(t testing.TB, addr netip.AddrPort) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 50 {
		conn.WriteToUDPAddrPort(rrq("nothing", "octet"), addr)
		conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, _, err := conn.ReadFromUDPAddrPort(make([]byte, 600)); err == nil {
			return addr
		}
	}
	t.Fatalf("no TFTP server answers at %s", addr)
	return addr
}

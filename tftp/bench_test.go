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
	"strconv"
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
		start func(testing.TB, string) (netip.AddrPort, int)
	}{{"bramble", startSelf}, {"dnsmasq", startDnsmasq}, {"tftpd-hpa", startHpa}}
	addrs, pids := make([]netip.AddrPort, len(peers)), make([]int, len(peers))
	for i, p := range peers {
		addrs[i], pids[i] = p.start(b, dir)
	}
	var table strings.Builder
	fmt.Fprintf(&table, "| clients | blksize | lost | bramble MB/s | dnsmasq MB/s | tftpd-hpa MB/s | to dnsmasq | to tftpd-hpa | bramble CPU µs/block | dnsmasq CPU µs/block |\n|---|---|---|---|---|---|---|---|---|---|\n")
	row := func(clients, block int, loss float64, total int64) {
		size := total / int64(clients) * int64(block) / 1468
		name := fmt.Sprintf("kernel-%d-%d", clients, block)
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte{0xd5}, int(size)), 0o644); err != nil {
			b.Fatal(err)
		}
		speed := make([][]float64, len(peers))
		used := [2]time.Duration{cpu(b, pids[0]), cpu(b, pids[1])}
		for range rounds {
			for i := range peers {
				took, err := load{addrs[i], name, clients, block, size, loss}.run()
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
		each := func(i int) float64 { // µs of processor time for a block
			return float64((cpu(b, pids[i]) - used[i]).Microseconds()) / float64(rounds*int64(clients)*(size/int64(block)+1))
		}
		fmt.Fprintf(&table, "| %d | %d | %.0f %% | %.1f | %.1f | %.1f | %.2fx | %.2fx | %.1f | %.1f |\n",
			clients, block, loss*100, m[0], m[1], m[2], m[0]/m[1], m[0]/m[2], each(0), each(1))
	}
	for _, clients := range []int{1, 8, 128} {
		for _, block := range []int{512, 1024, 1468} {
			row(clients, block, 0, 60<<20)
		}
	}
	row(128, 1468, 0.01, 10<<20)
	fmt.Printf("\nTFTP, median of %d runs in turns, each server a process of its own, the same lock-step client over loopback; resident memory of bramble's server at its peak %s\n\n%s\n", rounds, peak(b, pids[0]), &table)
}

// peak is the largest resident memory that a process ever had.
func peak(t testing.TB, pid int) string {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// cpu is the processor time that a process has used, in steps of 10 ms.
func cpu(t testing.TB, pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		t.Fatalf("/proc/%d/stat: %v %v", pid, err1, err2)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

func startSelf(t testing.TB, dir string) (addr netip.AddrPort, pid int) {
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
	return netip.MustParseAddrPort(where), cmd.Process.Pid
}

func startDnsmasq(t testing.TB, dir string) (netip.AddrPort, int) {
	// dnsmasq's TFTP listens on port 69 only, so it gets a loopback address of its own
	addr := netip.AddrFrom4([4]byte{127, 0, 69, 1})
	pid := startTool(t, "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--enable-tftp", "--tftp-root="+dir,
		"--tftp-max=500", "--listen-address="+addr.String(), "--bind-interfaces", "--user=root", "--log-facility=/dev/null")
	return awaitServer(t, netip.AddrPortFrom(addr, 69)), pid
}

func startHpa(t testing.TB, dir string) (netip.AddrPort, int) {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 69, 2}), 69)
	pid := startTool(t, "in.tftpd", "--foreground", "--address", addr.String(), "--user", "root", "--secure", dir)
	return awaitServer(t, addr), pid
}

func startTool(t testing.TB, tool string, args ...string) (pid int) {
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
	return cmd.Process.Pid
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

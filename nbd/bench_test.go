package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkPeers has bramble's server, nbdkit and qemu-nbd do the same work in
// turn, each a process of its own serving the same file, and prints the medians
// as lines of a markdown table. It fails if bramble is slower than 0.9 times
// nbdkit. Run it with
//
//	go test ./nbd -run '^$' -bench Peers -benchtime 1x
//
// NBD_BENCH_ROUNDS changes the number of rounds.
func BenchmarkPeers(b *testing.B) {
	need(b, "nbdcopy", "nbdkit", "qemu-nbd")
	const size = 512 << 20
	path, _ := noiseFile(b, size)
	rounds := 7
	if text := os.Getenv("NBD_BENCH_ROUNDS"); text != "" {
		if _, err := fmt.Sscan(text, &rounds); err != nil {
			b.Fatalf("NBD_BENCH_ROUNDS=%q is not a number: %v", text, err)
		}
	}
	peers := []string{"bramble", "nbdkit", "qemu-nbd"}
	addrs := make([]string, len(peers))
	for i, peer := range peers {
		addrs[i] = launch(b, peer, path)
	}
	measures := []struct {
		name, unit string
		run        func(addr string) float64
	}{
		{"nbdcopy 512 MiB to null:", "MiB/s", func(addr string) float64 { return copySpeed(b, addr, size>>20) }},
		{"read 4 KiB, random, depth 1", "reads/s", func(addr string) float64 { return readSpeed(b, addr, size, 4<<10, 1, 20000) }},
		{"read 4 KiB, random, depth 16", "reads/s", func(addr string) float64 { return readSpeed(b, addr, size, 4<<10, 16, 100000) }},
		{"read 128 KiB, random, depth 4", "reads/s", func(addr string) float64 { return readSpeed(b, addr, size, 128<<10, 4, 10000) }},
	}
	for b.Loop() {
		fmt.Printf("\n| NBD, median of %d rounds | %s | to nbdkit | to qemu-nbd |\n|---|%s--:|--:|\n",
			rounds, strings.Join(peers, " | "), strings.Repeat("--:|", len(peers)))
		for _, m := range measures {
			figures := make([][]float64, len(peers))
			for _, addr := range addrs { // warms up page cache and servers
				m.run(addr)
			}
			for range rounds {
				for i, addr := range addrs {
					figures[i] = append(figures[i], m.run(addr))
				}
			}
			us, nbdkit, qemu := median(figures[0]), median(figures[1]), median(figures[2])
			fmt.Printf("| %s, %s | %.0f | %.0f | %.0f | %.2f | %.2f |\n", m.name, m.unit, us, nbdkit, qemu, us/nbdkit, us/qemu)
			if us < 0.9*nbdkit {
				b.Errorf("%s: %.2f times nbdkit; want at least 0.9", m.name, us/nbdkit)
			}
		}
	}
}

// launch starts a peer on path and waits until it answers.
func launch(b *testing.B, peer, path string) (addr string) {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr = ln.Addr().String()
	host, port, _ := net.SplitHostPort(addr)
	ln.Close()
	var cmd *exec.Cmd
	switch peer {
	case "nbdkit":
		cmd = exec.Command("nbdkit", "-f", "-r", "-i", host, "-p", port, "file", path)
	case "qemu-nbd":
		cmd = exec.Command("qemu-nbd", "-r", "-t", "-f", "raw", "-e", "16", "-b", host, "-p", port, path)
	default:
		cmd = exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "NBD_TEST_SERVE="+path, "NBD_TEST_ADDR="+addr)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, _, err := Dial(b.Context(), addr, "")
		if err == nil {
			conn.Close()
			return addr
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s does not answer: %v", peer, err)
		}
	}
}

// copySpeed is what nbdcopy gets out of a server, in MiB a second.
func copySpeed(b *testing.B, addr string, mib float64) float64 {
	begin := time.Now()
	if _, err := tool(b, "nbdcopy", "nbd://"+addr, "null:"); err != nil {
		b.Fatal(err)
	}
	return mib / time.Since(begin).Seconds()
}

// readSpeed is how many random reads a second one connection gets with depth
// requests always under way.
func readSpeed(b *testing.B, addr string, size, length, depth, count int) float64 {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	conn, _, err := Dial(ctx, addr, "")
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReaderSize(conn, 64<<10)
	offsets := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 0, requestSize)
	sent := 0
	send := func() {
		r := request{cookie: uint64(sent), offset: uint64(offsets.IntN(size/length) * length), length: uint32(length)}
		if _, err := conn.Write(appendRequest(buf, r)); err != nil {
			b.Fatal(err)
		}
		sent++
	}
	begin := time.Now()
	for range depth {
		send()
	}
	for range count {
		head, err := in.Peek(replySize)
		if err != nil || binary.BigEndian.Uint32(head) != magicSimpleReply || binary.BigEndian.Uint32(head[4:]) != 0 {
			b.Fatalf("bad reply % x: %v", head, err)
		}
		if _, err := in.Discard(replySize + length); err != nil {
			b.Fatal(err)
		}
		if sent < count {
			send()
		}
	}
	speed := float64(count) / time.Since(begin).Seconds()
	_, _ = io.WriteString(conn, string(appendRequest(buf, request{kind: cmdDisc})))
	return speed
}

func median(figures []float64) float64 {
	slices.Sort(figures)
	return figures[len(figures)/2]
}

package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"bramble/lab"
)

// BenchmarkPeers has bramble's server, nbdkit and qemu-nbd do the same work in
// turn, each a process of its own serving the same file, and prints the medians
// as lines of a markdown table. It fails if bramble is slower than 0.9 times
// nbdkit in a measure that has this target. Run it with
//
//	go test ./nbd -run '^$' -bench Peers -benchtime 1x
//
// NBD_BENCH_ROUNDS changes the number of rounds.
func BenchmarkPeers(b *testing.B) {
	lab.Need(b, "nbdcopy", "nbdkit", "qemu-nbd")
	const size = 512 << 20
	path, _ := noiseFile(b, size)
	rounds := 25
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
		target     bool
		run        func(addr string) float64
	}{
		{"nbdcopy 512 MiB to null:", "MiB/s", true, func(addr string) float64 { return copySpeed(b, addr, size>>20) }},
		{"read 4 KiB, random, depth 1", "reads/s", true, func(addr string) float64 { return readSpeed(b, addr, size, 4<<10, 1, 1500) }},
		{"read 4 KiB, random, depth 16", "reads/s", true, func(addr string) float64 { return readSpeed(b, addr, size, 4<<10, 16, 5000) }},
		{"read 128 KiB, random, depth 4", "reads/s", false, func(addr string) float64 { return readSpeed(b, addr, size, 128<<10, 4, 500) }},
	}
	fmt.Printf("\n| NBD, median of %d rounds | %s | to nbdkit | to qemu-nbd |\n|---|%s--:|--:|\n",
		rounds, strings.Join(peers, " | "), strings.Repeat("--:|", len(peers)))
	for _, m := range measures {
		b.Run(m.name, func(b *testing.B) {
			for b.Loop() {
				ratio := compare(m.name+", "+m.unit, addrs, rounds, m.run)
				if m.target && ratio < 0.9 {
					b.Errorf("%.2f times nbdkit; want at least 0.9", ratio)
				}
			}
		})
	}
}

// compare measures the peers in turn, the first of them being bramble and the
// second nbdkit, prints one line and returns the ratio to nbdkit. A ratio is the median of the rounds'
// ratios: what else the machine does then hits both sides alike.
func compare(title string, addrs []string, rounds int, run func(addr string) float64) (nbdkit float64) {
	speeds, ratios := make([][]float64, len(addrs)), make([][]float64, len(addrs))
	for round := range rounds + 1 {
		now := make([]float64, len(addrs))
		for i := range addrs {
			i = (i + round) % len(addrs)
			now[i] = run(addrs[i])
		}
		if round == 0 { // warms up
			continue
		}
		for i := range addrs {
			speeds[i] = append(speeds[i], now[i])
			ratios[i] = append(ratios[i], now[0]/now[i])
		}
	}
	fmt.Printf("| %s ", title)
	for i := range addrs {
		fmt.Printf("| %.0f ", median(speeds[i]))
	}
	nbdkit = median(ratios[1])
	fmt.Printf("| %.2f | %.2f |\n", nbdkit, median(ratios[2]))
	return nbdkit
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
	_, _ = conn.Write(appendRequest(buf, request{kind: cmdDisc}))
	return speed
}

func median(figures []float64) float64 {
	slices.Sort(figures)
	return figures[len(figures)/2]
}

package tower

import (
	"fmt"
	"os"
	"testing"
	"time"

	"bramble/node"
)

// BenchmarkPeers measures what has no peer: the memory of the appliance at rest and with 128 boards in flight, and one
// board's way from its first DISCOVER. It prints lines of a markdown table; a figure above its target fails. Run it with
//
//	go test ./lab/tower -run '^$' -bench Peers -benchtime 1x
func BenchmarkPeers(b *testing.B) {
	const mostIdle, mostBusy, boards = 40e6, 96e6, 128
	tower, ctx := open(b, "virt", 10*time.Minute)
	memory := func() int64 {
		n, err := tower.Memory()
		must(b, err)
		return n
	}
	time.Sleep(10 * time.Second) // the initramfs is built, its compressor's memory given back
	idle := memory()

	begin := time.Now().Add(-time.Second)
	must(b, tower.PowerOn(0))
	one, err := tower.Ready(ctx, 0, begin)
	must(b, err)
	tower.PowerOff(0)

	storm := make(chan error, 1)
	from := time.Now()
	go func() { storm <- tower.Simulate(ctx, boards) }()
	var peak int64
	for done := false; !done; {
		select {
		case err := <-storm:
			must(b, err)
			done = true
		case <-time.After(200 * time.Millisecond):
		}
		peak = max(peak, memory())
	}
	fmt.Fprintf(os.Stdout, "\n| the appliance, whole | | target |\n|---|--:|--:|\n")
	fmt.Fprintf(os.Stdout, "| memory, resident, at rest | %s | %s |\n", node.Size(idle), node.Size(mostIdle))
	fmt.Fprintf(os.Stdout, "| the same, most while %d boards boot at once (%.0f s) | %s | %s |\n", boards, time.Since(from).Seconds(), node.Size(peak), node.Size(mostBusy))
	fmt.Fprintf(os.Stdout, "| over TFTP for one boot, %d files | %s | |\n", one.Files, node.Size(one.Bytes))
	fmt.Fprintf(os.Stdout, "| from the first DISCOVER to ready (QEMU, virt) | %.1f s | |\n", one.ReadyTime.Sub(one.BootTime).Seconds())
	if idle > mostIdle || peak > mostBusy {
		b.Errorf("the appliance takes %s at rest and %s with %d boards; want at most %s and %s",
			node.Size(idle), node.Size(peak), boards, node.Size(mostIdle), node.Size(mostBusy))
	}
}

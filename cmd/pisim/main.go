// Command pisim powers on Raspberry Pis that exist only in software: it holds the conversation of their boot ROM,
// bootcode.bin and start.elf with whatever DHCP and TFTP servers are on an interface's network, prints each board's
// timeline, and can hand what a board received to QEMU. It exits with 0 only if every board reached its kernel.
//
//	pisim --iface veth0                                  one 3B+
//	pisim --iface veth0 --count 64 --loss 1% --seed 7    a storm on a bad cable
//	pisim --iface veth0 --qemu virt --tap tap0           and then QEMU, with the same Ethernet address
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

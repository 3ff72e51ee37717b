// Package qemu powers on virtual boards. QEMU has no boot ROM and no GPU firmware for Raspberry Pis: a board starts
// with the kernel, device tree, initramfs and command line that somebody else has fetched for it.
package qemu

import (
	"fmt"
	"net"
	"strings"
)

// Machines that a board can be.
const (
	Virt   = "virt"    // fast: virtio network, two Cortex-A53
	Raspi3 = "raspi3b" // faithful: BCM2837, 1 GB, Ethernet over full-speed USB
)

// Board is what is in front of the power switch.
type Board struct {
	Machine string // Virt or Raspi3

	Kernel  string // path of the kernel image, gzipped or not
	DTB     string // path of the device tree; only Raspi3 uses it, since QEMU makes one for Virt
	Initrd  string // path of the initramfs; none if empty
	Cmdline string // as the firmware would hand it to the kernel; console=serial0 becomes the machine's own port

	MAC   net.HardwareAddr
	Tap   string // the tap interface that is the board's network; no network if empty
	NetNS string // path of the network namespace in which Tap is; the current one if empty

	ConsoleFile string            // where the serial console goes, appended to; nowhere if empty
	ConsoleLine func(line string) // called with each line of the console, if not nil
}

// machine is what differs between the machines.
type machine struct {
	args   []string
	nic    string
	serial string // the kernel's name of the serial port
	extra  string // more kernel arguments, so that the port speaks early
}

func (b Board) machine() (machine, error) {
	switch b.Machine {
	case Virt:
		return machine{
			args:   []string{"-M", "virt", "-cpu", "cortex-a53", "-m", "1G", "-smp", "2", "-serial", "stdio"},
			nic:    "virtio-net-pci,netdev=n0,romfile=,mac=",
			serial: "ttyAMA0",
		}, nil
	case Raspi3:
		// The console is the mini UART, the second port.
		return machine{
			args:   []string{"-M", "raspi3b", "-m", "1G", "-smp", "4", "-dtb", b.DTB, "-serial", "null", "-serial", "stdio"},
			nic:    "usb-net,netdev=n0,mac=",
			serial: "ttyS1",
			extra:  "earlycon=uart8250,mmio32,0x3f215040",
		}, nil
	}
	return machine{}, fmt.Errorf("unknown machine %q: it must be %s or %s", b.Machine, Virt, Raspi3)
}

// args are QEMU's arguments.
func (b Board) args() ([]string, error) {
	m, err := b.machine()
	if err != nil {
		return nil, err
	}
	// A guest's reboot ends QEMU: a board that resets begins again in its boot ROM, which is not in here.
	args := append(m.args, "-accel", "tcg,thread=multi", "-display", "none", "-monitor", "none", "-no-reboot",
		"-kernel", b.Kernel, "-append", b.cmdline(m))
	if b.Initrd != "" {
		args = append(args, "-initrd", b.Initrd)
	}
	if b.Tap == "" {
		return append(args, "-nic", "none"), nil
	}
	if len(b.MAC) != 6 {
		return nil, fmt.Errorf("board on %s: a network needs a MAC address of 6 bytes, not %q", b.Tap, b.MAC)
	}
	return append(args, "-netdev", "tap,id=n0,script=no,downscript=no,ifname="+b.Tap, "-device", m.nic+b.MAC.String()), nil
}

// cmdline does what the firmware does with console=serial0.
func (b Board) cmdline(m machine) string {
	words := strings.Fields(b.Cmdline)
	for i, word := range words {
		if rest, ok := strings.CutPrefix(word, "console=serial0"); ok {
			words[i] = "console=" + m.serial + rest
		}
	}
	if m.extra != "" {
		words = append([]string{m.extra}, words...)
	}
	return strings.Join(words, " ")
}

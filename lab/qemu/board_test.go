package qemu

import (
	"net"
	"strings"
	"testing"
)

func TestArgs(t *testing.T) {
	mac := net.HardwareAddr{0xb8, 0x27, 0xeb, 0x69, 0x20, 0x2e}
	for _, test := range []struct {
		name         string
		board        Board
		want, absent []string
		err          string
	}{
		{
			name:   "virt",
			board:  Board{Machine: Virt, Kernel: "/k", DTB: "/d", Initrd: "/i", Cmdline: "console=serial0,115200 console=tty1 quiet", MAC: mac, Tap: "node1"},
			want:   []string{"-M virt", "-kernel /k", "-initrd /i", "-append console=ttyAMA0,115200 console=tty1 quiet", "ifname=node1", "virtio-net-pci,netdev=n0,romfile=,mac=b8:27:eb:69:20:2e"},
			absent: []string{"-dtb"},
		},
		{
			name:   "raspi3b",
			board:  Board{Machine: Raspi3, Kernel: "/k", DTB: "/d", Cmdline: "console=serial0,115200", MAC: mac, Tap: "node1"},
			want:   []string{"-M raspi3b", "-dtb /d", "-append earlycon=uart8250,mmio32,0x3f215040 console=ttyS1,115200", "usb-net,netdev=n0,mac=b8:27:eb:69:20:2e", "-serial null -serial stdio"},
			absent: []string{"-initrd"},
		},
		{name: "no network", board: Board{Machine: Virt, Kernel: "/k"}, want: []string{"-nic none"}, absent: []string{"-netdev"}},
		{name: "no MAC", board: Board{Machine: Virt, Kernel: "/k", Tap: "node1"}, err: "MAC address"},
		{name: "unknown", board: Board{Machine: "vax"}, err: `"vax"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			args, err := test.board.args()
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("error %v, want one with %s", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(args, " ")
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("arguments lack %q: %s", want, got)
				}
			}
			for _, absent := range test.absent {
				if strings.Contains(got, absent) {
					t.Errorf("arguments have %q: %s", absent, got)
				}
			}
		})
	}
}

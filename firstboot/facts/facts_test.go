package facts

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"bramble/node"
)

// The codes are those of the documentation's tables, "Old-style" and "New-style revision codes in use".
func TestDecode(t *testing.T) {
	for code, want := range map[uint32]Board{
		0x0002:     {"Model B Rev 1.0", "1B", "BCM2835", 256 << 20},
		0x000e:     {"Model B Rev 2.0", "1B", "BCM2835", 512 << 20},
		0x1000010:  {"Model B Plus Rev 1.2", "1Bp", "BCM2835", 512 << 20}, // warranty void
		0x0015:     {"Model A Plus Rev 1.1", "1Ap", "BCM2835", 256 << 20},
		0x900021:   {"Model A Plus Rev 1.1", "1Ap", "BCM2835", 512 << 20},
		0x900032:   {"Model B Plus Rev 1.2", "1Bp", "BCM2835", 512 << 20},
		0x9000c1:   {"Zero W Rev 1.1", "ZeroW", "BCM2835", 512 << 20},
		0xa01041:   {"2 Model B Rev 1.1", "2B", "BCM2836", 1 << 30},
		0xa22042:   {"2 Model B Rev 1.2", "2B", "BCM2837", 1 << 30},
		0xa02082:   {"3 Model B Rev 1.2", "3B", "BCM2837", 1 << 30},
		0xa020d3:   {"3 Model B Plus Rev 1.3", "3Bp", "BCM2837", 1 << 30},
		0x2a020d3:  {"3 Model B Plus Rev 1.3", "3Bp", "BCM2837", 1 << 30}, // warranty void
		0x9020e0:   {"3 Model A Plus Rev 1.0", "3Ap", "BCM2837", 512 << 20},
		0xa02100:   {"Compute Module 3 Plus Rev 1.0", "CM3p", "BCM2837", 1 << 30},
		0xa03111:   {"4 Model B Rev 1.1", "4B-1GB", "BCM2711", 1 << 30},
		0xb03115:   {"4 Model B Rev 1.5", "4B-2GB", "BCM2711", 2 << 30},
		0xc03111:   {"4 Model B Rev 1.1", "4B-4GB", "BCM2711", 4 << 30},
		0xd03114:   {"4 Model B Rev 1.4", "4B-8GB", "BCM2711", 8 << 30},
		0x902120:   {"Zero 2 W Rev 1.0", "Zero2W", "BCM2837", 512 << 20},
		0xc03130:   {"400 Rev 1.0", "400", "BCM2711", 4 << 30},
		0xc03141:   {"Compute Module 4 Rev 1.1", "CM4", "BCM2711", 4 << 30},
		0xb04170:   {"5 Model B Rev 1.0", "5", "BCM2712", 2 << 30},
		0xe04171:   {"5 Model B Rev 1.1", "5", "BCM2712", 16 << 30},
		0xd04190:   {"500 Rev 1.0", "500", "BCM2712", 8 << 30},
		0xc041a0:   {"Compute Module 5 Lite Rev 1.0", "CM5L", "BCM2712", 4 << 30},
		0xa020f3:   {"unknown (type 0x0f) Rev 1.3", "", "BCM2837", 1 << 30},
		0xc0ffee5c: {"", "", "", 0},
	} {
		got, err := Decode(code)
		if code == 0xc0ffee5c { // new style, whatever its fields say
			if err != nil || got.Name == "" {
				t.Errorf("Decode(%#x) = %+v, %v", code, got, err)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("Decode(%#x) = %+v, %v; want %+v", code, got, err, want)
		}
	}
	for _, code := range []uint32{0, 1, 0x0a, 0x16, 0x700000} {
		if got, err := Decode(code); err == nil || !strings.Contains(err.Error(), "no revision code") {
			t.Errorf("Decode(%#x) = %+v, %v; want a refusal", code, got, err)
		}
	}
}

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

const cpuinfo = `processor	: 0
BogoMIPS	: 38.40

Hardware	: BCM2835
Revision	: a020d3
Serial		: 00000000d43f1c2e
Model		: Raspberry Pi 3 Model B Plus Rev 1.3
`

func TestRead(t *testing.T) {
	common := fstest.MapFS{
		"proc/meminfo":                           file("MemTotal:         948304 kB\nMemFree: 1 kB\n"),
		"proc/sys/kernel/osrelease":              file("6.12.25+rpt-rpi-v8\n"),
		"proc/sys/kernel/random/boot_id":         file("f00f\n"),
		"sys/class/thermal/thermal_zone0/temp":   file("48312\n"),
		"sys/class/net/lo/address":               file("00:00:00:00:00:00\n"),
		"sys/class/net/docker0/address":          file("02:42:ac:11:00:02\n"),
		"sys/class/net/eth0/address":             file("b8:27:eb:3f:1c:2e\n"),
		"sys/class/net/eth0/device/uevent":       file(""),
		"etc/rpi-issue":                          file("Raspberry Pi reference 2025-05-13\nGenerated using pi-gen\n"),
		"etc/os-release":                         file("PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\n"),
		"proc/device-tree/compatible":            file("raspberrypi,3-model-b-plus\x00brcm,bcm2837\x00"),
		"sys/class/thermal/thermal_zone0/uevent": file(""),
	}
	with := func(more fstest.MapFS) fs.FS {
		all := fstest.MapFS{}
		for _, m := range []fstest.MapFS{common, more} {
			for name, f := range m {
				all[name] = f
			}
		}
		return all
	}
	want := map[string]string{
		"model": "3 Model B Plus Rev 1.3", "suffix": "3Bp", "revision": "a020d3", "serial": "d43f1c2e", "ram": "971063296",
		"kernel": "6.12.25+rpt-rpi-v8", "boot_id": "f00f", "temperature": "48312", "macs": "b8:27:eb:3f:1c:2e",
		"image": "Raspberry Pi reference 2025-05-13",
	}
	for name, more := range map[string]fstest.MapFS{
		"cpuinfo": {"proc/cpuinfo": file(cpuinfo)},
		"device tree": {
			"proc/device-tree/system/linux,revision": file("\x00\xa0\x20\xd3"),
			"proc/device-tree/serial-number":         file("00000000d43f1c2e\x00"),
			"proc/device-tree/model":                 file("Raspberry Pi 3 Model B Plus Rev 1.3\x00"),
		},
	} {
		f := Read(with(more))
		if d := cmp.Diff(want, f.Map()); d != "" {
			t.Errorf("%s: -want +got:\n%s", name, d)
		}
		if got := f.String(); got != "This is a Raspberry Pi 3 Model B Plus Rev 1.3 with 926 MB of RAM, Linux 6.12.25+rpt-rpi-v8." {
			t.Errorf("%s: %s", name, got)
		}
	}
	virt := Read(with(fstest.MapFS{"proc/device-tree/model": file("linux,dummy-virt\x00")}))
	if virt.Board.Name != "linux,dummy-virt" || virt.Board.Suffix != "" || virt.Serial != 0 || virt.Revision != "" {
		t.Errorf("a virtual board: %+v", virt)
	}
	nothing := Read(fstest.MapFS{})
	if len(nothing.Map()) != 0 {
		t.Errorf("out of nothing: %v", nothing.Map())
	}
}

func FuzzRead(f *testing.F) {
	f.Add(cpuinfo, "MemTotal: 1 kB", "\x00\xa0\x20\xd3", "b8:27:eb:3f:1c:2e")
	f.Add("Revision: ffffffff\nSerial:x", "MemTotal: -9 kB", "\xff\xff\xff\xff", "")
	f.Fuzz(func(t *testing.T, cpu, mem, revision, mac string) {
		facts := Read(fstest.MapFS{
			"proc/cpuinfo": file(cpu), "proc/meminfo": file(mem), "proc/device-tree/system/linux,revision": file(revision),
			"sys/class/net/eth0/address": file(mac), "sys/class/net/eth0/device": file(""),
		})
		if facts.RAM < 0 || facts.Board.Memory < 0 || len(facts.MACs) > 1 || len(facts.MACs) == 1 && facts.MACs[0] == (node.MAC{}) {
			t.Errorf("%+v", facts)
		}
	})
}

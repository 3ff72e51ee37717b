package pisim

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustModel(t testing.TB, name string) Model {
	t.Helper()
	m, err := NewModel(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const bookwormConfig = `dtparam=audio=on
camera_auto_detect=1
display_auto_detect=1
auto_initramfs=1
dtoverlay=vc4-kms-v3d
max_framebuffers=2
disable_fw_kms_setup=1
arm_64bit=1
disable_overscan=1
arm_boost=1

[cm4]
otg_mode=1

[cm5]
dtoverlay=dwc2,dr_mode=host

[all]
`

func TestReadConfig(t *testing.T) {
	const serial = 0x8b07bcc6
	files := map[string]string{"extra.txt": "kernel=extra.img\n[pi4]\nkernel=four.img\n", "loop.txt": "include loop.txt\n"}
	include := func(name string) ([]byte, bool) {
		text, ok := files[name]
		return []byte(text), ok
	}
	type want map[string]string // variable to names, joined by spaces
	for name, tc := range map[string]struct {
		model, text string
		want        want
	}{
		"bookworm's": {"3b+", bookwormConfig, want{
			"$start": "start.elf", "$fixup": "fixup.dat", "$kernel": "kernel8.img", "$initramfs": "initramfs8",
			"$dtb": "bcm2710-rpi-3-b-plus.dtb bcm2710-rpi-3-b.dtb", "$overlays": "overlays/vc4-kms-v3d.dtbo",
			"$cmdline": "cmdline.txt", "$armstub": "armstub8.bin", "$recovery": "recovery8.img"}},
		"empty":                    {"3b+", "", want{"$kernel": "kernel7.img", "$initramfs": "", "$armstub": "armstub8-32.bin", "$overlays": ""}},
		"empty, Pi 4":              {"4", "", want{"$kernel": "kernel8.img", "$start": "start4.elf", "$fixup": "fixup4.dat"}},
		"bookworm's, Pi 5":         {"5", bookwormConfig, want{"$kernel": "kernel_2712.img", "$initramfs": "initramfs_2712"}},
		"model sections":           {"3b+", "[pi4]\nkernel=a\n[pi3]\nkernel=b\n[pi3+]\nkernel=c\n[pi5]\nkernel=d", want{"$kernel": "c"}},
		"[pi3+] is not a 3B":       {"3b", "[pi3]\nkernel=b\n[pi3+]\nkernel=c", want{"$kernel": "b"}},
		"own serial":               {"3b+", "[0x8b07bcc6]\nkernel=mine", want{"$kernel": "mine"}},
		"own serial in capitals":   {"3b+", "[0x8B07BCC6]\nkernel=mine", want{"$kernel": "mine"}},
		"another's serial":         {"3b+", "kernel=k\n[0x12345678]\nkernel=other", want{"$kernel": "k"}},
		"model and serial":         {"3b+", "kernel=k\n[pi4]\n[0x8b07bcc6]\nkernel=both", want{"$kernel": "k"}},
		"[all] begins anew":        {"3b+", "[pi4]\n[0x12345678]\n[all]\nkernel=k", want{"$kernel": "k"}},
		"[none]":                   {"3b+", "kernel=k\n[none]\nkernel=n\n[all]\ncmdline=c.txt", want{"$kernel": "k", "$cmdline": "c.txt"}},
		"[tryboot], [gpio4=1]":     {"3b+", "kernel=k\n[tryboot]\nkernel=t\n[all]\n[gpio4=1]\nkernel=g", want{"$kernel": "k"}},
		"include":                  {"3b+", "include extra.txt\ncmdline=after.txt", want{"$kernel": "extra.img", "$cmdline": "cmdline.txt"}},
		"include without end":      {"3b+", "include loop.txt\nkernel=k", want{"$kernel": "k"}},
		"include of nothing":       {"3b+", "include gone.txt\nkernel=k", want{"$kernel": "k"}},
		"initramfs line":           {"3b+", "initramfs a,b followkernel", want{"$initramfs": "a b"}},
		"initramfs with =":         {"3b+", "initramfs=a", want{"$initramfs": ""}},
		"initramfs line and auto":  {"3b+", "auto_initramfs=1\narm_64bit=1\ninitramfs mine followkernel", want{"$initramfs": "mine"}},
		"auto, another kernel":     {"3b+", "auto_initramfs=1\nkernel=vmlinuz", want{"$initramfs": ""}},
		"auto switched off again":  {"3b+", "auto_initramfs=1\nauto_initramfs=0", want{"$initramfs": ""}},
		"gpu_mem=16":               {"3b+", "gpu_mem=16", want{"$start": "start_cd.elf", "$fixup": "fixup_cd.dat"}},
		"gpu_mem_1024 is stronger": {"3b+", "gpu_mem=16\ngpu_mem_1024=64", want{"$start": "start.elf"}},
		"start_x":                  {"4", "start_x=1", want{"$start": "start4_x.elf", "$fixup": "fixup4_x.dat"}},
		"start_debug":              {"3b+", "start_debug=1", want{"$start": "start_db.elf"}},
		"start_file":               {"3b+", "start_file=s.elf\nfixup_file=f.dat\ngpu_mem=16", want{"$start": "s.elf", "$fixup": "f.dat"}},
		"overlays with parameters": {"3b+", "dtoverlay=a,x=1\ndtoverlay=\ndtoverlay=b:y", want{"$overlays": "overlays/a.dtbo overlays/b.dtbo"}},
		"overlay_prefix":           {"3b+", "overlay_prefix=o/\ndtoverlay=a", want{"$overlays": "o/a.dtbo"}},
		"device_tree":              {"3b+", "device_tree=x.dtb", want{"$dtb": "x.dtb"}},
		"no device tree":           {"3b+", "device_tree=", want{"$dtb": ""}},
		"armstub":                  {"3b+", "armstub=RPI_EFI.fd", want{"$armstub": "RPI_EFI.fd"}},
		"comments and Windows":     {"3b+", "#kernel=c\r\n  kernel=k  \r\n", want{"$kernel": "k"}},
		"spaces around =":          {"3b+", "kernel = k", want{"$kernel": "kernel7.img"}},
		"beyond 4096 bytes":        {"3b+", strings.Repeat("#234567\n", 512) + "kernel=late", want{"$kernel": "kernel7.img"}},
		"just within 4096 bytes":   {"3b+", strings.Repeat("#234567\n", 510) + "kernel=justabout", want{"$kernel": "justabout"}},
		"beyond 98 columns":        {"3b+", "kernel=" + strings.Repeat("k", 95), want{"$kernel": strings.Repeat("k", 91)}},
	} {
		t.Run(name, func(t *testing.T) {
			m := mustModel(t, tc.model)
			s := ReadConfig([]byte(tc.text), m, serial, include)
			got := want{}
			for v := range tc.want {
				got[v] = strings.Join(s.files(m, v), " ")
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestReadConfigWithoutIncludes(t *testing.T) {
	s := ReadConfig([]byte("include a.txt\nkernel=k"), mustModel(t, "3b+"), 0, nil)
	if s.Values["kernel"] != "k" {
		t.Errorf("an include that bootcode.bin does not know spoilt the rest: %v", s.Values)
	}
}

func TestCommandLine(t *testing.T) {
	mac := MAC{0xb8, 0x27, 0xeb, 7, 0xbc, 0xc6}
	m := mustModel(t, "3b+")
	s := ReadConfig([]byte("enable_uart=1"), m, 0, nil)
	got := commandLine(m, firmwareArgs(m, mac, s), []byte("console=serial0,115200 console=tty1  ip=dhcp\nignored"))
	for _, want := range []string{"8250.nr_uarts=1 ", "smsc95xx.macaddr=B8:27:EB:07:BC:C6 ", " console=ttyS0,115200 console=tty1 ip=dhcp"} {
		if !strings.Contains(got, want) {
			t.Errorf("command line %q lacks %q", got, want)
		}
	}
	if strings.Contains(got, "ignored") {
		t.Errorf("command line %q has the second line of cmdline.txt", got)
	}
	s = ReadConfig([]byte("disable_commandline_tags=2"), m, 0, nil)
	if got := commandLine(m, firmwareArgs(m, mac, s), []byte("a b")); got != "a b" {
		t.Errorf("with disable_commandline_tags the command line is %q", got)
	}
}

func FuzzReadConfig(f *testing.F) {
	f.Add(bookwormConfig, uint32(0x8b07bcc6))
	f.Add("[0x8b07bcc6]\ninclude x\ninitramfs a,b 0x100\n[none]\n", uint32(1))
	model := mustModel(f, "3b+")
	f.Fuzz(func(t *testing.T, text string, serial uint32) {
		s := ReadConfig([]byte(text), model, serial, func(string) ([]byte, bool) { return []byte(text), true })
		for _, v := range vars {
			for _, name := range s.files(model, v) {
				if len(name) > 2*maxConfigLine {
					t.Fatalf("%s has a name of %d bytes", v, len(name))
				}
			}
		}
		// What stands behind the cap changes nothing.
		padded := (text + "\n[all]\n" + strings.Repeat("#\n", maxConfig))[:max(len(text)+7, maxConfig)]
		with := ReadConfig([]byte(padded+"\nkernel=behind\n"), model, serial, nil)
		if with.Values["kernel"] == "behind" && !strings.Contains(text, "behind") {
			t.Fatal("a setting behind the cap was used")
		}
	})
}

func TestOrders(t *testing.T) {
	for _, name := range Models() {
		m := mustModel(t, name)
		for _, s := range m.Stages {
			if len(s.Steps) == 0 {
				t.Errorf("model %s, stage %s: no requests", name, s.Name)
			}
		}
	}
	for _, build := range Builds() {
		if _, err := mustModel(t, "3b+").WithBuild(build); err != nil {
			t.Error(err)
		}
	}
	if _, err := mustModel(t, "5").WithBuild("bullseye-2022"); err == nil {
		t.Error("a Pi 5 took the firmware of a 3")
	}
	for text, why := range map[string]string{
		"read a":               "no stage",
		"stage s\nread":        "no name",
		"stage s\nwrite a":     "unknown verb",
		"stage s\nread $x":     "unknown variable",
		"stage s\nread a !x":   "unknown flag",
		"stage s\nread a led=": "no number",
	} {
		if _, err := ParseOrder(text); err == nil {
			t.Errorf("%s was accepted: %q", why, text)
		}
	}
}

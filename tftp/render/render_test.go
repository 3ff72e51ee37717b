package render

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bramble/internal/golden"
)

var spec = Spec{
	Initramfs: "bramble-stage1",
	Config:    []string{"gpu_mem=16"},
	Cmdline:   []string{"bramble.server=192.168.1.2:8080", "bramble.boot=1f2e3d4c", "cgroup_enable=memory", "console=tty1"},
}

// The files that pi-gen ships in the images of 2025-05-13 (bookworm) and 2026-06-18 (trixie).
func TestGolden(t *testing.T) {
	for _, image := range []string{"bookworm", "trixie"} {
		config, w1, err := Config(read(t, image+".config.txt"), spec)
		if err != nil {
			t.Fatal(err)
		}
		cmdline, w2, err := Cmdline(read(t, image+".cmdline.txt"), spec)
		if err != nil {
			t.Fatal(err)
		}
		if len(w1)+len(w2) > 0 {
			t.Errorf("%s: the image's own files warn: %v %v", image, w1, w2)
		}
		golden.Compare(t, image+".config.golden", config)
		golden.Compare(t, image+".cmdline.golden", cmdline+"\n")
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]struct {
		image string
		spec  Spec
		want  string
	}{
		"empty image":       {"", Spec{}, "\n[all]\narm_64bit=1\nenable_uart=1\n"},
		"own initramfs":     {"initramfs initramfs8 followkernel\nauto_initramfs=1\nramfsfile=x\n", Spec{Initramfs: "s1"}, "\n[all]\narm_64bit=1\nenable_uart=1\ninitramfs s1 followkernel\n"},
		"moved files":       {"os_prefix=slot2/\ncmdline=other.txt\ndtparam=audio=on", Spec{}, "dtparam=audio=on\n\n[all]\narm_64bit=1\nenable_uart=1\n"},
		"kernel stays":      {"kernel=kernel8-rt.img\n", Spec{}, "kernel=kernel8-rt.img\n\n[all]\narm_64bit=1\nenable_uart=1\n"},
		"kernel replaced":   {"kernel=kernel8-rt.img\n", Spec{Kernel: "kernel8.img"}, "\n[all]\narm_64bit=1\nenable_uart=1\nkernel=kernel8.img\n"},
		"filters closed":    {"[pi4]\narm_boost=1\n", Spec{}, "[pi4]\narm_boost=1\n\n[all]\narm_64bit=1\nenable_uart=1\n"},
		"windows line ends": {"\xef\xbb\xbfa=1\r\n  Auto_Initramfs = 1\r\n#c\r\n", Spec{}, "a=1\n#c\n\n[all]\narm_64bit=1\nenable_uart=1\n"},
		"a comment stays":   {"#initramfs initramfs8 followkernel\n", Spec{}, "#initramfs initramfs8 followkernel\n\n[all]\narm_64bit=1\nenable_uart=1\n"},
	} {
		got, _, err := Config([]byte(c.image), c.spec)
		if diff := cmp.Diff(c.want, string(got)); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
}

func TestConfigTooLong(t *testing.T) {
	comments := strings.Repeat("# a comment of forty characters, or so it is\n", 100)
	got, _, err := Config([]byte(comments+"dtparam=audio=on\n"), spec)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) > MaxConfig || !bytes.Contains(got, []byte("dtparam=audio=on")) || bytes.Contains(got, []byte("#")) {
		t.Errorf("Config kept %d bytes:\n%s", len(got), got)
	}
	settings := strings.Repeat("dtparam=i2c_arm=on\n", 300)
	if _, _, err := Config([]byte(settings), spec); err == nil || !strings.Contains(err.Error(), "take at least") {
		t.Errorf("Config took %d bytes of settings: %v", len(settings), err)
	}
}

func TestConfigWarnings(t *testing.T) {
	image := "a=1\ninclude more.txt\ndtoverlay=" + strings.Repeat("x", 90) + "\n# " + strings.Repeat("c", 120) + "\n"
	_, warnings, err := Config([]byte(image), Spec{})
	if err != nil {
		t.Fatal(err)
	}
	var where []int
	for _, w := range warnings {
		where = append(where, w.Line)
		if w.Text == "" || w.Remedy == "" || w.File != "config.txt" {
			t.Errorf("warning without a sentence: %+v", w)
		}
	}
	if !slices.Equal(where, []int{2, 3}) {
		t.Errorf("Config warned of lines %v; want 2 and 3: %v", where, warnings)
	}
	if _, _, err := Config(nil, Spec{Config: []string{"a=1\nkernel=evil.img"}}); err == nil {
		t.Error("Config took a profile line with a line break")
	}
}

func TestCmdline(t *testing.T) {
	for name, c := range map[string]struct {
		image string
		add   []string
		want  string
	}{
		"order stays":    {"console=serial0,115200 a b=c console=tty1", nil, "console=serial0,115200 a b=c console=tty1"},
		"card":           {"root=PARTUUID=1-02 rootfstype=ext4 rootflags=noatime rootwait=10 fsck.repair=yes resize", nil, ""},
		"first run":      {"a systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target", nil, "a"},
		"other unit":     {"systemd.unit=rescue.target", nil, "systemd.unit=rescue.target"},
		"cloud-init":     {"ds=nocloud;i=rpi-imager-1 cfg80211.ieee80211_regdom=DE", nil, "cfg80211.ieee80211_regdom=DE"},
		"nfs":            {"root=/dev/nfs nfsroot=1.2.3.4:/x,vers=3 ip=dhcp rw", nil, "rw"},
		"quoted":         {`a="b root=x" init=/bin/sh dyndbg="file x +p"`, nil, `a="b root=x" dyndbg="file x +p"`},
		"once":           {"console=tty1", []string{"console=tty1", "x"}, "console=tty1 x"},
		"second line":    {"a\nb\n", []string{"c"}, "a c"},
		"trailing blank": {"a \t \n\n", nil, "a"},
	} {
		got, warnings, err := Cmdline([]byte(c.image), Spec{Cmdline: c.add})
		if err != nil || got != c.want {
			t.Errorf("%s: Cmdline(%q) = %q, %v; want %q", name, c.image, got, err, c.want)
		}
		if (name == "second line") != (len(warnings) == 1) {
			t.Errorf("%s: warnings %v", name, warnings)
		}
	}
	for _, bad := range []string{"", "a b", "a\nb", " a", "a\x00"} {
		if got, _, err := Cmdline(nil, Spec{Cmdline: []string{bad}}); err == nil {
			t.Errorf("Cmdline took the word %q: %q", bad, got)
		}
	}
	if _, _, err := Cmdline([]byte(strings.Repeat("x ", MaxCmdline)), Spec{}); err == nil {
		t.Error("Cmdline took a line that the kernel would cut")
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("[pi4]\ninitramfs x y\r\nauto_initramfs=1\nkernel=a\n"), "dtparam=x=on")
	f.Add([]byte("\xef\xbb\xbf INITRAMFS\tx"), "")
	f.Fuzz(func(t *testing.T, image []byte, line string) {
		got, _, err := Config(image, Spec{Initramfs: "s1", Config: []string{line}})
		if err != nil {
			return
		}
		if len(got) > MaxConfig {
			t.Fatalf("%d bytes", len(got))
		}
		for _, l := range strings.Split(string(got), "\n") {
			if s := settingOf(l); slices.Contains(notOverTheNetwork, s) && l != "initramfs s1 followkernel" && l != line {
				t.Fatalf("the line %q got through", l)
			}
		}
	})
}

func FuzzCmdline(f *testing.F) {
	f.Add([]byte("console=tty1 root=PARTUUID=x init=/bin/sh \"a b\"\nsecond"), "bramble.boot=1")
	f.Fuzz(func(t *testing.T, image []byte, word string) {
		got, _, err := Cmdline(image, Spec{Cmdline: []string{word}})
		if err != nil {
			return
		}
		if len(got) > MaxCmdline || strings.ContainsAny(got, "\n") {
			t.Fatalf("%d bytes: %q", len(got), got)
		}
		for _, w := range words(got) {
			if name, _, _ := strings.Cut(w, "="); slices.Contains(ownRoot, name) && w != word {
				t.Fatalf("the word %q got through", w)
			}
		}
	})
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

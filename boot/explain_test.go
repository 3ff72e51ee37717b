package boot

import (
	"strings"
	"testing"
	"time"

	"bramble/node"
)

func TestExplain(t *testing.T) {
	at := func(stage node.Stage, silent time.Duration, last node.Event) node.State {
		last.Time = now.Add(-silent)
		return node.State{MAC: mac, Stage: stage, Model: node.Pi3, Boot: "b1", Last: last, LastFile: last.File}
	}
	with := func(s node.State, change func(*node.State)) node.State { change(&s); return s }
	offered, sent, missed, lost := node.Event{Kind: node.Offered}, node.Event{Kind: node.FileSent}, node.Event{Kind: node.FileMissed}, node.Event{Kind: node.FileLost}
	file := func(e node.Event, name string) node.Event { e.File = name; return e }
	probe := []string{"Nobody gives out addresses on eth0."}
	for _, test := range []struct {
		name     string
		s        node.State
		findings []string
		want     []string // parts; nil: nothing is wrong
		not      string
	}{
		{"never seen", node.State{}, nil, nil, ""},
		{"just asked", at(node.StageROM, 2*time.Second, offered), probe, nil, ""},
		{"refused", with(at(node.StageROM, time.Second, node.Event{Kind: node.BootRefused}), func(s *node.State) { s.Problem = "The image is gone." }), nil, []string{"The image is gone."}, ""},
		{"no OFFER", at(node.StageROM, 15*time.Second, node.Event{Kind: node.BootStarted}), nil, []string{"15 seconds ago and no OFFER"}, "given up"},
		{"OFFERs, no file", with(at(node.StageROM, time.Second, offered), func(s *node.State) { s.Offers = 3 }), nil, []string{"3 OFFERs were sent", "main DHCP server", "option 66"}, "given up"},
		{"the probe knows", with(at(node.StageROM, time.Second, offered), func(s *node.State) { s.Offers = 4 }), probe, []string{"4 OFFERs", "Nobody gives out addresses on eth0."}, "option 66"},
		{"ROM sleeps", with(at(node.StageROM, time.Minute, offered), func(s *node.State) { s.Offers = 5 }), nil, []string{"given up", "Cycle the power"}, ""},
		{"a Pi 4 does not sleep", with(at(node.StageROM, time.Minute, offered), func(s *node.State) { s.Offers, s.Model = 5, node.Pi4 }), nil, []string{"5 OFFERs"}, "given up"},
		{"a 3B", with(at(node.StageROM, 20*time.Second, offered), func(s *node.State) { s.Offers, s.Model = 1, node.Pi3B }), nil, []string{"One OFFER was sent", "A 3B often misses"}, ""},
		{"no bootcode.bin", at(node.StageROM, 20*time.Second, file(missed, "bootcode.bin")), nil, []string{"image has none"}, "OFFER"},
		{"bootcode.bin lost", at(node.StageROM, 20*time.Second, file(lost, "bootcode.bin")), nil, []string{"while it read bootcode.bin", "cable"}, ""},

		{"bootcode.bin runs", at(node.StageBootcode, 3*time.Second, file(sent, "bootcode.bin")), nil, nil, ""},
		{"bootcode.bin mute", at(node.StageBootcode, 12*time.Second, file(sent, "bootcode.bin")), nil, []string{"12 seconds ago", "neither a DISCOVER"}, ""},
		{"bootcode.bin offered", with(at(node.StageBootcode, 12*time.Second, offered), func(s *node.State) { s.Offers = 2 }), nil, []string{"has not asked for start.elf", "ARP"}, ""},
		{"no start.elf", at(node.StageBootcode, 12*time.Second, file(missed, "8b07bcc6/start.elf")), nil, []string{"four flashes"}, ""},

		{"firmware reads", at(node.StageFirmware, 5*time.Second, file(sent, "8b07bcc6/start.elf")), nil, nil, ""},
		{"start.elf mute", at(node.StageFirmware, 20*time.Second, file(sent, "8b07bcc6/start.elf")), nil, []string{"start.elf was sent 20 seconds ago", "fixup.dat"}, ""},
		{"no kernel", at(node.StageFirmware, 20*time.Second, file(missed, "8b07bcc6/kernel8.img")), nil, []string{"kernel8.img is not in the image", "seven flashes"}, ""},
		{"no device tree", at(node.StageFirmware, 20*time.Second, file(missed, "bcm2710-rpi-3-b.dtb")), nil, []string{"does not know this board"}, ""},
		{"lost in a file", with(at(node.StageFirmware, time.Second, file(lost, "initramfs8")), func(s *node.State) { s.Problem, s.Resent = "gone", 17 }), nil, []string{"while it read initramfs8", "17 blocks"}, ""},
		{"stops between", at(node.StageFirmware, 3*time.Minute, file(sent, "config.txt")), nil, []string{"stopped after config.txt", "3 minutes"}, ""},

		{"stops at a warning", at(node.StageFirmware, time.Minute, node.Event{Kind: node.Warning, Text: "kernel8.img could not be read."}), nil, []string{"kernel8.img could not be read."}, "loss"},
		{"a warning in passing", at(node.StageFirmware, 3*time.Second, node.Event{Kind: node.Warning, Text: "A line is long."}), nil, nil, ""},

		{"kernel starts", at(node.StageKernel, 20*time.Second, file(sent, "kernel8.img")), nil, nil, ""},
		{"kernel mute", at(node.StageKernel, 70*time.Second, file(sent, "kernel8.img")), nil, []string{"kernel was sent 70 seconds ago", "serial console"}, ""},
		{"stage 1 fails", with(at(node.StageStage1, time.Second, node.Event{Kind: node.StepFailed}), func(s *node.State) { s.Problem = "The root cannot be attached." }), nil, []string{"The root cannot be attached. Stage 1 goes on"}, ""},
		{"stage 1 mute", at(node.StageStage1, 61*time.Second, node.Event{Kind: node.StepDone, Step: "clock"}), nil, []string{"for 61 seconds after the step clock"}, ""},
		{"systemd hangs", at(node.StageRoot, 5*time.Hour, node.Event{Kind: node.StepDone, Step: "handover"}), nil, []string{"5 hours ago", "log in"}, ""},
		{"ready for days", at(node.StageReady, 90*time.Hour, node.Event{Kind: node.Ready}), probe, nil, ""},
		{"ready but root lost", with(at(node.StageReady, time.Hour, node.Event{Kind: node.RootClosed}), func(s *node.State) { s.Problem = "The root is gone." }), nil, []string{"The root is gone."}, ""},
	} {
		got := Explain(test.s, now, test.findings)
		if test.want == nil && got != "" {
			t.Errorf("%s: %q, want nothing", test.name, got)
		}
		for _, part := range test.want {
			if !strings.Contains(got, part) {
				t.Errorf("%s: %q lacks %q", test.name, got, part)
			}
		}
		if test.not != "" && strings.Contains(got, test.not) {
			t.Errorf("%s: %q must not say %q", test.name, got, test.not)
		}
	}
}

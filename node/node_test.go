package node

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var (
	power = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	mac   = MAC{0xb8, 0x27, 0xeb, 0x69, 0x20, 0x2e}
)

func after(s float64, e Event) Event {
	e.Node, e.Time = mac, power.Add(time.Duration(s*float64(time.Second)))
	return e
}

// One boot of a 3B+, as the servers report it.
func oneBoot(id BootID) []Event {
	return []Event{
		after(0, Event{Kind: BootStarted, Boot: id, Serial: 0x4c69202e, Model: Pi3, Name: "pi-4c69202e", Image: "img1", Commit: "c1", Text: "because"}),
		after(0, Event{Kind: Offered}),
		after(0.1, Event{Kind: FileSent, File: "bootcode.bin", Bytes: 52476, Addr: netip.MustParseAddr("10.0.0.50")}),
		after(0.1, Event{Kind: FileMissed, File: "bootsig.bin"}),
		after(0.2, Event{Kind: Offered}),
		after(3, Event{Kind: FileSent, File: "4c69202e/start.elf", Bytes: 2981056, Resent: 3}),
		after(9, Event{Kind: FileSent, File: "4c69202e/kernel8.img", Bytes: 9_000_000}),
		after(20, Event{Kind: StepDone, Step: "network", Addr: netip.MustParseAddr("10.0.0.51")}),
		after(22, Event{Kind: StepFailed, Step: "root", Text: "The root does not answer."}),
		after(23, Event{Kind: StepDone, Step: "root"}),
		after(24, Event{Kind: StepDone, Step: "handover"}),
		after(50, Event{Kind: Ready}),
	}
}

func TestOneBoot(t *testing.T) {
	want := []struct {
		stage   Stage
		problem string
	}{
		{StageROM, ""}, {StageROM, ""}, {StageBootcode, ""}, {StageBootcode, ""}, {StageBootcode, ""}, {StageFirmware, ""},
		{StageKernel, ""}, {StageStage1, ""}, {StageStage1, "The root does not answer."}, {StageStage1, ""}, {StageRoot, ""}, {StageReady, ""},
	}
	var s State
	for i, e := range oneBoot("b1") {
		s = Apply(s, e)
		if s.Stage != want[i].stage || s.Problem != want[i].problem {
			t.Errorf("after %s %s%s: stage %v, problem %q; want %v, %q", e.Kind, e.File, e.Step, s.Stage, s.Problem, want[i].stage, want[i].problem)
		}
	}
	if s.Files != 3 || s.Bytes != 52476+2981056+9_000_000 || s.Resent != 3 || s.Boots != 1 || s.Addr.String() != "10.0.0.51" {
		t.Errorf("folded to %+v", s)
	}
	if s.ReadyTime.Sub(s.BootTime) != 50*time.Second {
		t.Errorf("ready after %v; want 50s", s.ReadyTime.Sub(s.BootTime))
	}
	for _, e := range oneBoot("b2") {
		s = Apply(s, e)
	}
	if s.Boots != 2 || s.Boot != "b2" || s.Files != 3 {
		t.Errorf("a second boot folded to boots %d, boot %s, files %d; want 2, b2, 3", s.Boots, s.Boot, s.Files)
	}
	if s = Apply(s, after(99, Event{Kind: Forgotten})); s != (State{MAC: mac}) {
		t.Errorf("forgotten, it is still %+v", s)
	}
}

func TestStageOf(t *testing.T) {
	for file, want := range map[string]Stage{
		"bootcode.bin": StageBootcode, "start.elf": StageFirmware, "8b07bcc6/start4.elf": StageFirmware, "config.txt": StageFirmware,
		"8b07bcc6/kernel8.img": StageKernel, "kernel_2712.img": StageKernel, "kernel7.img": StageKernel, "overlays/x.dtbo": StageFirmware,
	} {
		if got := stageOf(file); got != want {
			t.Errorf("stageOf(%s) = %v; want %v", file, got, want)
		}
	}
}

// A 3B's own ROM says what bootcode.bin on it hides.
func TestRefine(t *testing.T) {
	s := Apply(State{}, after(0, Event{Kind: Offered, Model: Pi3B}))
	if s = Apply(s, after(1, Event{Kind: Offered, Model: Pi3})); s.Model != Pi3B {
		t.Errorf("model = %s; want %s", s.Model, Pi3B)
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{"b8:27:eb:69:20:2e": "b8:27:eb:69:20:2e", "B8-27-EB-69-20-2E": "b8:27:eb:69:20:2e", "": "error", "b8:27": "error", "00:00:00:00:fe:80:00:00": "error"} {
		got := "error"
		if m, err := ParseMAC(in); err == nil {
			got = m.String()
		}
		if got != want {
			t.Errorf("ParseMAC(%q) = %s; want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{"8b07bcc6": "8b07bcc6", "0660cd37": "0660cd37", "100000008B07BCC6": "8b07bcc6", "0x8b07bcc6": "8b07bcc6", "": "error", "123": "error", "8b07bcc": "error", "zzzzzzzz": "error"} {
		got := "error"
		if s, err := ParseSerial(in); err == nil {
			got = s.String()
		}
		if got != want {
			t.Errorf("ParseSerial(%q) = %s; want %s", in, got, want)
		}
	}
}

// What goes into the journal comes out the same.
func TestEventJSON(t *testing.T) {
	for _, e := range oneBoot("b1") {
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var back Event
		if err := json.Unmarshal(text, &back); err != nil || back != e {
			t.Errorf("%s came back as %+v, %v", text, back, err)
		}
	}
	var s State
	for _, e := range oneBoot("b1") {
		s = Apply(s, e)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back State
	if err := json.Unmarshal(text, &back); err != nil || back != s {
		t.Errorf("%s came back as %+v, %v", text, back, err)
	}
}

func TestRegistry(t *testing.T) {
	r := NewRegistry()
	for _, e := range oneBoot("b1") {
		r.Apply(e)
	}
	r.Apply(Event{Kind: Finding, Text: "about no board"})
	for _, word := range []string{"pi-4c69202e", "PI-4C69202E", "4c69202e", "b8:27:eb:69:20:2e"} {
		if s, ok := r.Find(word); !ok || s.MAC != mac {
			t.Errorf("Find(%s) = %v, %v", word, s.MAC, ok)
		}
	}
	if _, ok := r.Find("nobody"); ok || len(r.All()) != 1 {
		t.Errorf("found nobody, or %d nodes instead of one", len(r.All()))
	}
	// the router gives the address to another board: it is that board's now
	other := mac
	other[5]++
	r.Apply(Event{Kind: StepDone, Node: other, Addr: netip.MustParseAddr("10.0.0.51"), Time: power})
	if s, ok := r.ByAddr(netip.MustParseAddr("10.0.0.51")); !ok || s.MAC != other {
		t.Errorf("10.0.0.51 belongs to %v; want %v", s.MAC, other)
	}
	r.Apply(Event{Kind: Forgotten, Node: mac})
	if _, ok := r.Get(mac); ok {
		t.Error("forgotten, and still there")
	}
}

// A flood of made-up boards does not push out those that really booted, and costs bounded memory.
func TestRegistryBound(t *testing.T) {
	r := NewRegistry()
	for _, e := range oneBoot("b1") {
		r.Apply(e)
	}
	for i := range 3 * MaxNodes {
		m := MAC{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}
		r.Apply(Event{Kind: BootStarted, Node: m, Boot: BootID(fmt.Sprint(i)), Time: power.Add(time.Duration(i) * time.Second)})
	}
	if n := len(r.All()); n != MaxNodes {
		t.Errorf("%d nodes; want %d", n, MaxNodes)
	}
	if _, ok := r.Get(mac); !ok {
		t.Error("the board that booted was pushed out")
	}
}

func FuzzFold(f *testing.F) {
	f.Add("tftp.sent", "8b07bcc6/kernel8.img", int64(7))
	f.Add("stage1.done", "handover", int64(0))
	f.Fuzz(func(t *testing.T, kind, word string, n int64) {
		before := Apply(State{}, after(0, Event{Kind: BootStarted, Boot: "b"}))
		s := Apply(before, after(1, Event{Kind: Kind(kind), File: word, Step: word, Bytes: n}))
		if s.Stage < before.Stage && Kind(kind) != Forgotten && Kind(kind) != BootStarted {
			t.Errorf("%s %q took the stage back to %v", kind, word, s.Stage)
		}
	})
}

// An alarm is not forgotten because the boot goes on; the next boot starts without it.
func TestAlarmStays(t *testing.T) {
	mac := MAC{0xb8, 0x27, 0xeb, 1, 2, 3}
	s := Apply(State{}, Event{Kind: BootStarted, Node: mac, Boot: "b1"})
	s = Apply(s, Event{Kind: Alarm, Node: mac, Text: "Another key came with the token."})
	s = Apply(s, Event{Kind: Login, Node: mac})
	if s.Stage != StageLogin || !s.Frozen || s.Problem != "Another key came with the token." {
		t.Errorf("after the login: %+v", s)
	}
	if s = Apply(s, Event{Kind: BootStarted, Node: mac, Boot: "b2"}); s.Frozen || s.Problem != "" {
		t.Errorf("after the next power-on: %+v", s)
	}
}

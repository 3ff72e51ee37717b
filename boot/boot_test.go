package boot

import (
	"reflect"
	"sync"
	"testing"
	"time"

	"bramble/node"
)

var (
	now   = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	mac   = node.MAC{0xb8, 0x27, 0xeb, 0x69, 0x20, 0x2e}
	rules = Rules{
		Commit:  "c2",
		Default: Profile{Image: "lite", User: "pi", Keys: []string{"k1"}, Overlay: "50%", Cmdline: []string{"a=1"}},
		Images:  map[string]string{"lite": "id-lite", "full": "id-full"},
		Nodes: []NodeRule{
			{Serial: 0x8b07bcc6, Name: "alpha", Profile: Profile{Image: "full", Keys: []string{"k2"}, Cmdline: []string{"b=2"}}},
			{MAC: node.MAC{2, 2, 2, 2, 2, 2}, Ignore: true},
			{Serial: 0x11111111, Profile: Profile{Image: "gone"}},
		},
	}
)

func TestDecide(t *testing.T) {
	running := node.State{MAC: mac, Serial: 0x4c69202e, Boot: "b1", Image: "id-old", Commit: "c1", Reason: "before", Stage: node.StageFirmware,
		Last: node.Event{Time: now.Add(-time.Second)}}
	for _, test := range []struct {
		name string
		q    Request
		n    node.State
		want Plan // Profile and Boot are looked at elsewhere
	}{
		{"a board never seen", Request{Step: Discover, MAC: mac, Serial: 0x4c69202e}, node.State{},
			Plan{Serve: true, Begins: true, Name: "pi-4c69202e", Image: "id-lite", Commit: "c2", Reason: "pi-4c69202e boots lite: it is the default for boards without a rule."}},
		{"a 3B's ROM tells no serial", Request{Step: Discover, MAC: mac}, node.State{},
			Plan{Serve: true, Begins: true, Name: "pi-69202e", Image: "id-lite", Commit: "c2", Reason: "pi-69202e boots lite: it is the default for boards without a rule."}},
		{"a file before any DISCOVER was seen", Request{Step: File, MAC: mac, Serial: 0x4c69202e}, node.State{},
			Plan{Serve: true, Begins: true, Name: "pi-4c69202e", Image: "id-lite", Commit: "c2", Reason: "pi-4c69202e boots lite: it is the default for boards without a rule."}},
		{"a rule by serial", Request{Step: Discover, MAC: mac, Serial: 0x8b07bcc6}, node.State{},
			Plan{Serve: true, Begins: true, Name: "alpha", Image: "id-full", Commit: "c2", Reason: "alpha boots full: a rule of the configuration names this board."}},
		{"an ignored board", Request{Step: Discover, MAC: node.MAC{2, 2, 2, 2, 2, 2}}, node.State{},
			Plan{Reason: "The configuration says to ignore 02:02:02:02:02:02."}},
		{"an image that is not there", Request{Step: Discover, MAC: mac, Serial: 0x11111111}, node.State{},
			Plan{Reason: `The image "gone" is not in the catalogue; add it with bramble image add gone.`}},
		{"in the middle of a boot, the rules change", Request{Step: File, MAC: mac}, running,
			Plan{Serve: true, Name: "pi-4c69202e", Image: "id-old", Commit: "c1", Reason: "before"}},
		{"stage 1 of the same boot", Request{Step: Stage1, MAC: mac}, running,
			Plan{Serve: true, Name: "pi-4c69202e", Image: "id-old", Commit: "c1", Reason: "before"}},
		{"power cycled", Request{Step: Discover, MAC: mac, Serial: 0x4c69202e}, running,
			Plan{Serve: true, Begins: true, Name: "pi-4c69202e", Image: "id-lite", Commit: "c2", Reason: "pi-4c69202e boots lite: it is the default for boards without a rule."}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.q.Now = now
			got := Decide(test.q, test.n, rules)
			if got.Serve && got.Boot == "" {
				t.Error("a boot without a name")
			}
			got.Profile, got.Boot, got.MAC = Profile{}, "", node.MAC{}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func TestProfileMerge(t *testing.T) {
	got := Decide(Request{Step: Discover, MAC: mac, Serial: 0x8b07bcc6, Now: now}, node.State{}, rules).Profile
	want := Profile{Image: "full", User: "pi", Overlay: "50%", Keys: []string{"k1", "k2"}, Cmdline: []string{"a=1", "b=2"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// Which DISCOVER is a power cycle (pi-netboot.md 1.2: bootcode.bin asks again during the same boot).
func TestBegins(t *testing.T) {
	at := func(stage node.Stage, ago time.Duration) node.State {
		return node.State{Boot: "b1", Stage: stage, Last: node.Event{Time: now.Add(-ago)}}
	}
	for _, test := range []struct {
		name string
		step Step
		n    node.State
		want bool
	}{
		{"never seen", Discover, node.State{}, true},
		{"the ROM asks again", Discover, at(node.StageROM, 5*time.Second), false},
		{"the ROM asks the fifth time", Discover, at(node.StageROM, 25*time.Second), false},
		{"the ROM after a long silence", Discover, at(node.StageROM, time.Minute), true},
		{"bootcode.bin asks", Discover, at(node.StageBootcode, 100*time.Millisecond), false},
		{"long after bootcode.bin", Discover, at(node.StageBootcode, time.Minute), true},
		{"power cut while start.elf loads", Discover, at(node.StageFirmware, time.Second), true},
		{"power cut while it runs", Discover, at(node.StageReady, time.Hour), true},
		{"a file never begins a known boot", File, at(node.StageReady, time.Hour), false},
	} {
		if got := Begins(Request{Step: test.step, Now: now}, test.n); got != test.want {
			t.Errorf("%s: %v; want %v", test.name, got, test.want)
		}
	}
}

// Many packets of one board at once open one boot.
func TestDeskBeginsOnce(t *testing.T) {
	nodes := node.NewRegistry()
	var mu sync.Mutex
	var events []node.Event
	desk := &Desk{Nodes: nodes, Rules: func() Rules { return rules }, Now: func() time.Time { return now }, Record: func(e node.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
		nodes.Apply(e)
	}}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { desk.Ask(Request{Step: Discover, MAC: mac, Serial: 0x4c69202e}) })
	}
	wg.Wait()
	if len(events) != 1 || events[0].Kind != node.BootStarted || events[0].Image != "id-lite" {
		t.Errorf("recorded %+v; want one boot.started", events)
	}
	for range 3 {
		desk.Ask(Request{Step: Discover, MAC: node.MAC{9}, Serial: 0x11111111})
	}
	if len(events) != 2 || events[1].Kind != node.BootRefused {
		t.Errorf("recorded %+v; want one boot.refused more", events)
	}
}

// A boot under way keeps the rules of its commit; the next one, and a commit that nobody knows, get the present ones.
func TestDeskPins(t *testing.T) {
	nodes := node.NewRegistry()
	old := Rules{Commit: "c1", Default: Profile{Image: "lite", Cmdline: []string{"old=1"}, Roles: []string{"old"}}, Images: rules.Images}
	desk := &Desk{Nodes: nodes, Rules: func() Rules { return rules }, Now: func() time.Time { return now }, Record: nodes.Apply,
		At: func(commit string) (Rules, bool) { return old, commit == "c1" }}
	for _, test := range []struct {
		name, commit string
		step         Step
		stage        node.Stage
		want         string
	}{
		{"under way", "c1", File, node.StageFirmware, "old=1"},
		{"bootcode.bin asks in the same boot", "c1", Discover, node.StageBootcode, "old=1"},
		{"power cycled", "c1", Discover, node.StageReady, "a=1"},
		{"a commit that is gone", "c0", File, node.StageFirmware, "a=1"},
		{"the present commit", "c2", File, node.StageFirmware, "a=1"},
	} {
		nodes.Restore([]node.State{{MAC: mac, Boot: "b1", Image: "id-lite", Commit: test.commit, Stage: test.stage, Last: node.Event{Time: now}}})
		q := Request{Step: test.step, MAC: mac}
		for _, p := range []Plan{desk.Peek(q), desk.Ask(q)} {
			if len(p.Cmdline) != 1 || p.Cmdline[0] != test.want {
				t.Errorf("%s: command line %v; want %s", test.name, p.Cmdline, test.want)
			}
		}
	}
}

func TestNames(t *testing.T) {
	name, err := ParseTemplate("rack-{{serial}}.{{mac}}", NameFields()...)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		r      Rules
		serial node.Serial
		want   string
	}{
		{Rules{}, 0, "pi-69202e"},
		{Rules{NameWith: "node-"}, 0x8b07bcc6, "node-8b07bcc6"},
		{Rules{NameWith: "node-", Name: name}, 0x8b07bcc6, "rack-8b07bcc6.69202e"},
		{Rules{Name: name}, 0, "rack-69202e.69202e"},
	} {
		if got := test.r.name(Request{MAC: mac}, node.State{Serial: test.serial}, NodeRule{}); got != test.want {
			t.Errorf("got %q; want %q", got, test.want)
		}
	}
}

func TestOver(t *testing.T) {
	base := Profile{Image: "lite", Roles: []string{"base", "worker"}, Layers: []string{"salt"}}
	got := Profile{Roles: []string{"worker", "db"}, Layers: []string{"salt", "docker"}}.Over(base)
	want := Profile{Image: "lite", Roles: []string{"base", "worker", "db"}, Layers: []string{"salt", "docker"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func FuzzDecide(f *testing.F) {
	f.Add(0, uint32(0x8b07bcc6), 3, int64(100))
	f.Fuzz(func(t *testing.T, step int, serial uint32, stage int, ago int64) {
		n := node.State{Boot: "b", Image: "id-old", Reason: "r", Stage: node.Stage(stage), Last: node.Event{Time: now.Add(-time.Duration(ago))}}
		p := Decide(Request{Step: Step(step), MAC: mac, Serial: node.Serial(serial), Now: now}, n, rules)
		if p.Reason == "" || p.Serve && (p.Image == "" || p.Boot == "" || p.Name == "") {
			t.Errorf("no reason, or half a plan: %+v", p)
		}
		if p.Serve && !p.Begins && p.Image != "id-old" {
			t.Errorf("one boot mixes two images: %+v", p)
		}
	})
}

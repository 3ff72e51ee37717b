package node

import (
	"net/netip"
	"strings"
	"testing"
)

func TestSentence(t *testing.T) {
	for _, test := range []struct {
		e    Event
		want string
	}{
		{Event{Kind: BootStarted, Text: "alpha boots lite: it is the default."}, "Power on: the boot ROM asks for an address. alpha boots lite: it is the default."},
		{Event{Kind: BootRefused, Text: "No image is chosen"}, "Not served. No image is chosen."},
		{Event{Kind: Offered, File: "rom"}, "OFFER sent to the boot ROM."},
		{Event{Kind: Offered, File: "bootcode"}, "OFFER sent to bootcode.bin."},
		{Event{Kind: Offered}, "OFFER sent to the board."},
		{Event{Kind: Leased, Addr: netip.MustParseAddr("10.0.0.7")}, "Address 10.0.0.7 given."},
		{Event{Kind: FileSent, File: "bootcode.bin", Bytes: 52460}, "bootcode.bin sent, 52.5 kB."},
		{Event{Kind: FileSent, File: "8b07bcc6/start.elf", Bytes: 2_973_536, Resent: 1}, "8b07bcc6/start.elf sent, 3.0 MB, one block twice."},
		{Event{Kind: FileSent, File: "kernel8.img", Bytes: 9_437_184, Resent: 12}, "kernel8.img sent, 9.4 MB, 12 blocks again."},
		{Event{Kind: FileMissed, File: "8b07bcc6/recovery.elf"}, "8b07bcc6/recovery.elf is not there, which is normal."},
		{Event{Kind: FileMissed, File: "kernel8.img"}, "kernel8.img was asked for and is not there."},
		{Event{Kind: FileLost, File: "start.elf"}, "The board fell silent while it read start.elf."},
		{Event{Kind: StepDone, Step: "root"}, "The root is attached, read-only."},
		{Event{Kind: StepDone, Step: "overlay", Text: "512 MB in RAM"}, "The RAM overlay is on top of the root. 512 MB in RAM."},
		{Event{Kind: StepDone, Step: "tea"}, "Step tea is done."},
		{Event{Kind: StepFailed, Step: "root", Text: "connection refused"}, "Stage 1 failed at the step root. connection refused."},
		{Event{Kind: RootOpened}, "The root's block connection is open."},
		{Event{Kind: RootClosed, Text: "timed out"}, "The root's block connection is closed. timed out."},
		{Event{Kind: Ready}, "Ready: one can log in."},
		{Event{Kind: Forgotten}, "Forgotten on request."},
		{Event{Kind: Started}, "The appliance started."},
		{Event{Kind: Finding, Text: "Nobody gives out\n addresses."}, "Nobody gives out addresses."},
		{Event{Kind: "later.kind", Text: "Something"}, "later.kind. Something."},
	} {
		if got := Sentence(test.e); got != test.want {
			t.Errorf("%s: got %q, want %q", test.e.Kind, got, test.want)
		}
	}
}

// TestSentenceIsTotal: an event with nothing but its kind is a sentence, too.
func TestSentenceIsTotal(t *testing.T) {
	for _, kind := range []Kind{BootStarted, BootRefused, Offered, Leased, FileSent, FileMissed, FileLost, StepDone, StepFailed,
		RootOpened, RootClosed, Ready, Forgotten, Started} {
		if got := Sentence(Event{Kind: kind}); !strings.HasSuffix(got, ".") || strings.Contains(got, "  ") {
			t.Errorf("%s: %q is no sentence", kind, got)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 2_900_000_000: "2.9 GB"} {
		if got := Size(n); got != want {
			t.Errorf("Size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestRestore(t *testing.T) {
	r := NewRegistry()
	r.Apply(Event{Kind: BootStarted, Node: MAC{1}})
	r.Restore([]State{{MAC: MAC{2}, Name: "b"}, {MAC: MAC{3}, Name: "a"}})
	all := r.All()
	if len(all) != 2 || all[0].Name != "a" || all[1].Name != "b" {
		t.Errorf("after Restore: %+v; want a and b only", all)
	}
}

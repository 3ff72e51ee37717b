package house

import (
	"context"
	"errors"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"bramble/internal/golden"
	"bramble/lab"
	"bramble/lab/pisim"
	"bramble/lab/wire"
	"bramble/node"
)

const (
	router  = "10.77.0.1 gives out addresses on eth0."
	rivals  = "10.77.0.7 answers Raspberry Pis too, with a boot menu of its own (option 43): boards boot from there or from here, as chance has it. Stop that server (piserver, LTSP, dnsmasq with pxe-service, another bramble), or keep it off this network."
	nobody  = "Nobody gives out addresses on eth0, and without an address no Raspberry Pi boots. Connect the router (or whatever is the DHCP server) to this switch, or let bramble give out addresses: --dhcp=authoritative --range FIRST-LAST."
	slow    = "The switch on eth0 speaks the old spanning tree protocol and keeps a port shut for 30 s after a board's power comes on; a boot ROM gives up after 25 s. Set the boards' ports to PortFast (edge port), or the switch to RSTP."
	astray  = `10.77.0.1 sends boards to another TFTP server: "10.77.0.66" in option 66. Of two servers that answer, a Raspberry Pi believes the last. Remove option 66 there (routers call it network boot, PXE, TFTP server or next server), or set it to 10.77.0.2.`
	gaveUp  = "The boot ROM has given up by now: it asks five times in 25 seconds. Cycle the power."
	unheard = "The board was never heard of."
	fell    = "The board fell silent while it read "
	lossy   = " Packet loss does that: bootcode.bin gives a file up one second after a lost block. Try another cable or switch port, and look whether the board lost its power."
	booted  = "8b07bcc6/kernel8.img sent, 800.0 kB."
	patched = "8b07bcc6/kernel8.img sent, 800.0 kB, some blocks again."
)

// rival is a second proxyDHCP server.
func rival(args ...string) lab.RouterConfig {
	return lab.RouterConfig{Name: "rival", Addr: netip.MustParsePrefix("10.77.0.7/24"), Proxy: "Raspberry Pi Boot", Args: args}
}

// rows are sorted by how long they take.
var rows = []struct {
	name    string
	routers []lab.RouterConfig // beside bramble
	model   string             // default "3b+"
	tune    func(*pisim.Model)
	cable   wire.Faults              // between the board and the switch
	ours    wire.Faults              // between bramble and the switch
	segment func(*lab.Segment) error // before the board's power comes on
	cutAt   string                   // the cable is pulled out when this file was sent
	want    pisim.Outcome            // how the boot ends
	sees    []string                 // all that the owner reads
	golden  bool                     // the conversation is compared
}{
	{
		name: "the link drops the first 30 s, and a 3B+ does not wait", routers: []lab.RouterConfig{{}},
		tune: patient, cable: wire.Faults{DropFirst: 30 * time.Second},
		want: pisim.NoOffer, sees: []string{router, unheard},
	}, {
		name: "the link drops the first 30 s, and a 4 waits", routers: []lab.RouterConfig{{}},
		model: "4", cable: wire.Faults{DropFirst: 30 * time.Second},
		want: pisim.Kernel, sees: []string{router, booted},
	}, {
		name: "the switch speaks the old spanning tree protocol", routers: []lab.RouterConfig{{}},
		tune: patient, segment: spanningTree,
		want: pisim.NoOffer, sees: []string{router, slow, unheard},
	}, {
		name: "the router offers nothing", routers: []lab.RouterConfig{{NoOffers: true}},
		want: pisim.NoOffer, sees: []string{nobody, "5 OFFERs were sent, but the board never asked for a file. " + nobody + " " + gaveUp},
	}, {
		name: "no router",
		want: pisim.NoOffer, sees: []string{nobody, "5 OFFERs were sent, but the board never asked for a file. " + nobody + " " + gaveUp},
	}, {
		name: "the router names another TFTP server", routers: []lab.RouterConfig{{TFTPServer: "10.77.0.66"}},
		want: pisim.NoARP, sees: []string{router, astray, "One OFFER was sent, but the board never asked for a file. " + router + " " + astray + " " + gaveUp},
	}, {
		name: "a second proxyDHCP server answers first", routers: []lab.RouterConfig{{}, rival()}, ours: wire.Faults{Delay: 100 * time.Millisecond},
		want: pisim.MissingFile, sees: []string{router, rivals, "One OFFER was sent, but the board never asked for a file. " + router + " " + rivals + " " + gaveUp},
	}, {
		name: "a second proxyDHCP server answers later", routers: []lab.RouterConfig{{}, rival("--dhcp-reply-delay=1")},
		want: pisim.Kernel, sees: []string{router, rivals, booted},
	}, {
		name: "the cable is pulled out while the kernel crosses", routers: []lab.RouterConfig{{}},
		tune: paced, cutAt: "cmdline.txt",
		want: pisim.MissingFile, sees: []string{router, fell + "8b07bcc6/kernel8.img." + lossy},
	}, {
		name: "every frame comes twice, and the firmware cannot bear it", routers: []lab.RouterConfig{{}},
		tune: strict, cable: wire.Faults{Dup: 1},
		want: pisim.Hung, sees: []string{router, fell + "bootcode.bin." + lossy},
	}, {
		name: "1 % loss", routers: []lab.RouterConfig{{}}, cable: wire.Faults{Loss: 0.01, Seed: 1},
		want: pisim.Kernel, sees: []string{router, patched},
	}, {
		name: "5 % come twice", routers: []lab.RouterConfig{{}}, cable: wire.Faults{Dup: 0.05, Seed: 1},
		want: pisim.Kernel, sees: []string{router, booted},
	}, {
		name: "5 % come late", routers: []lab.RouterConfig{{}}, cable: wire.Faults{Reorder: 0.05, Seed: 1},
		want: pisim.Kernel, sees: []string{router, booted},
	}, {
		name: "nothing is wrong", routers: []lab.RouterConfig{{}}, golden: true,
		want: pisim.Kernel, sees: []string{router, booted},
	},
}

// A 3B+ by default, that asks as an RFC 1350 client does and has less patience than a real one, which changes how long
// a row takes and not how it ends.
func board(t *testing.T, name string, tune func(*pisim.Model)) pisim.Board {
	t.Helper()
	if name == "" {
		name = "3b+"
	}
	m, err := pisim.NewModel(name)
	if err != nil {
		t.Fatal(err)
	}
	m = m.WithRFC1350()
	if m.Name == "3b+" {
		for i := range m.Stages {
			m.Stages[i].TFTP.Wait = 2 * time.Second
			if d := m.Stages[i].DHCP; d != nil {
				d.Interval = time.Second
			}
		}
	}
	if tune != nil {
		tune(&m)
	}
	return pisim.Board{Model: m, Serial: 0x8b07bcc6}
}

// patient asks as slowly as a real boot ROM.
func patient(m *pisim.Model) { m.Stages[0].DHCP.Interval = 5 * time.Second }

// paced takes half a second for the kernel.
func paced(m *pisim.Model) { m.Stages[2].TFTP.Pace = time.Millisecond }

// strict stops at a packet that comes twice.
func strict(m *pisim.Model) {
	for i := range m.Stages {
		m.Stages[i].TFTP.RFC1350 = false
		m.Stages[i].TFTP.DupOACKBreaks, m.Stages[i].TFTP.DupDataBreaks = true, true
	}
}

// spanningTree makes the bridge the switch of the story: whoever is there already is let through, whoever comes must
// wait for 30 s.
func spanningTree(s *lab.Segment) error {
	tree := func(forward string) error {
		return s.Run("ip", "link", "set", "dev", "bridge", "type", "bridge", "stp_state", "1", "forward_delay", forward)
	}
	err := tree("200") // hundredths of a second, twice
	time.Sleep(5 * time.Second)
	return errors.Join(err, tree("1500"))
}

func TestHouse(t *testing.T) {
	lab.Need(t, "ip", "dnsmasq")
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			seg := lab.NewSegment(t)
			for _, r := range row.routers {
				seg.HouseRouter(r)
			}
			host := seg.HostBehind(row.ours, "bramble", "10.77.0.2/24")
			if row.segment != nil {
				if err := row.segment(seg.Segment); err != nil {
					t.Fatal(err)
				}
			}
			var cut func()
			a := start(t, host, func(e node.Event) {
				if row.cutAt != "" && e.Kind == node.FileSent && path.Base(e.File) == row.cutAt {
					cut()
				}
			})
			plug := seg.HostBehind(row.cable, "boards")
			cut = func() { cutWithin(t.Context(), plug.Wire, 100) }
			b := board(t, row.model, row.tune)
			ears := listen(t, plug)
			r := b.Boot(t.Context(), seg.Boards(plug))
			if r.Outcome != row.want {
				t.Errorf("%s; want %s", r, row.want)
			}
			blocks := ""
			if row.cable.Loss > 0 {
				blocks = ", some blocks again"
			}
			if sees := a.waitPage(node.MAC(b.Address()), row.sees, blocks); !slices.Equal(sees, row.sees) {
				t.Errorf("the owner reads\n  %s\nwant\n  %s", strings.Join(sees, "\n  "), strings.Join(row.sees, "\n  "))
			}
			if row.golden {
				golden.Compare(t, "conversation.golden", ears.conversation(r))
			}
			if t.Failed() {
				for _, e := range r.Timeline {
					t.Log(e)
				}
				for _, e := range a.all() {
					t.Log(e.Kind, node.Sentence(e))
				}
			}
		})
	}
}

// cutWithin cuts a wire when so many frames more have come over it, within the next file.
func cutWithin(ctx context.Context, w *wire.Wire, frames uint64) {
	sent := func() uint64 { up, _ := w.Stats(); return up.Sent }
	for end := sent() + frames; sent() < end && ctx.Err() == nil; time.Sleep(time.Millisecond) {
	}
	w.Cut()
}

// again is what a sentence says of blocks that were sent again. Where no frame is lost it is chance: the machine was
// busy for longer than the server waits.
var again = regexp.MustCompile(`, (one block twice|\d+ blocks again)`)

// waitPage waits until the page says that, and returns what it says in the end.
func (a *appliance) waitPage(board node.MAC, want []string, blocks string) (says []string) {
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		says = nil
		for _, s := range a.page(board) {
			says = append(says, again.ReplaceAllString(s, blocks))
		}
		if slices.Equal(says, want) {
			break
		}
	}
	return says
}

package tree

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"bramble/boot"
	"bramble/node"
	"bramble/tftp"
)

type shelf map[string]fstest.MapFS

func (s shelf) Boot(id string) (fs.FS, error) {
	if s[id] == nil {
		return nil, errors.New("no such image")
	}
	return s[id], nil
}

func (s shelf) Stage1(_ context.Context, id string) ([]byte, error) {
	return []byte("stage1 of " + id), nil
}

var (
	mac  = node.MAC{0xb8, 0x27, 0xeb, 7, 0xbc, 0xc6}
	pi   = netip.MustParseAddrPort("10.0.0.50:49153")
	self = netip.MustParseAddr("10.0.0.2")
)

func newTree(known ...node.MAC) (*Tree, *[]node.Event) {
	nodes, events := node.NewRegistry(), &[]node.Event{}
	record := func(e node.Event) { *events = append(*events, e); nodes.Apply(e) }
	for _, m := range known {
		record(node.Event{Kind: node.BootStarted, Node: m, Boot: "b1", Serial: 0x8b07bcc6, Image: "old", Time: time.Unix(1, 0)})
	}
	image := func(name string) fstest.MapFS {
		return fstest.MapFS{
			"config.txt":           {Data: []byte("auto_initramfs=1\ndtparam=audio=on\n")},
			"cmdline.txt":          {Data: []byte("console=serial0,115200 root=PARTUUID=1-02 rootwait quiet init=/x\n")},
			"kernel8.img":          {Data: []byte("kernel of " + name)},
			"overlays/x.dtbo":      {Data: []byte("overlay")},
			"deadbeef/kernel8.img": {Data: []byte("not reached")},
		}
	}
	return &Tree{
		Desk: &boot.Desk{Nodes: nodes, Record: record, Now: func() time.Time { return time.Unix(2, 0) }, Rules: func() boot.Rules {
			return boot.Rules{Default: boot.Profile{Image: "lite", Cmdline: []string{"extra=1"}}, Images: map[string]string{"lite": "new"}}
		}},
		Shelf: shelf{"old": image("old"), "new": image("new")},
		MAC:   func(a netip.Addr) (node.MAC, bool) { return mac, a == pi.Addr() },
		HTTP:  8080,
	}, events
}

func read(t *testing.T, tree *Tree, from netip.AddrPort, name string) string {
	t.Helper()
	f, err := tree.Open(t.Context(), tftp.Peer{Addr: from, Local: self}, name)
	if errors.Is(err, fs.ErrNotExist) {
		return "missing"
	}
	if err != nil {
		return "error: " + err.Error()
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestOpen(t *testing.T) {
	stranger := netip.MustParseAddrPort("10.0.0.99:2000")
	for _, test := range []struct {
		what  string
		known bool
		from  netip.AddrPort
		name  string
		want  string // part of the content
	}{
		{"a board in the middle of a boot keeps its image", true, pi, "8b07bcc6/kernel8.img", "kernel of old"},
		{"without its prefix as well", true, pi, "kernel8.img", "kernel of old"},
		{"an overlay", true, pi, "8b07bcc6/overlays/x.dtbo", "overlay"},
		{"stage 1 of the same image", true, pi, "8b07bcc6/" + Stage1, "stage1 of old"},
		{"config.txt is rendered", true, pi, "8b07bcc6/config.txt", "initramfs " + Stage1 + " followkernel"},
		{"cmdline.txt is rendered", true, pi, "cmdline.txt", "bramble.server=10.0.0.2:8080 bramble.boot=b1 bramble.mac=b8:27:eb:07:bc:c6 extra=1"},
		{"a miss", true, pi, "8b07bcc6/recovery.elf", "missing"},
		{"a folder is no file", true, pi, "overlays", "missing"},
		{"a board that never sent a DISCOVER to us", false, pi, "8b07bcc6/kernel8.img", "kernel of new"},
		{"a stranger gets the default", false, stranger, "kernel8.img", "kernel of new"},
		{"a stranger's command line names no boot", false, stranger, "cmdline.txt", "bramble.server=10.0.0.2:8080 extra=1"},
	} {
		t.Run(test.what, func(t *testing.T) {
			tree, _ := newTree()
			if test.known {
				tree, _ = newTree(mac)
			}
			if got := read(t, tree, test.from, test.name); !strings.Contains(got, test.want) {
				t.Errorf("%s = %q; want %q in it", test.name, got, test.want)
			}
		})
	}
}

// Strangers are never remembered; a board that names itself is.
func TestMemory(t *testing.T) {
	tree, events := newTree()
	for range 100 {
		read(t, tree, netip.MustParseAddrPort("10.0.0.99:2000"), "kernel8.img")
		read(t, tree, netip.MustParseAddrPort("10.0.0.99:2000"), "8b07bcc6/kernel8.img")
		read(t, tree, pi, "bootcode.bin")
	}
	if len(*events) != 0 {
		t.Errorf("strangers left %d events: %+v", len(*events), (*events)[0])
	}
	read(t, tree, pi, "8b07bcc6/start.elf")
	read(t, tree, pi, "8b07bcc6/fixup.dat")
	if len(*events) != 1 || (*events)[0].Kind != node.BootStarted || (*events)[0].Node != mac {
		t.Errorf("a board that names itself left %+v; want one boot.started", *events)
	}
}

func TestEvent(t *testing.T) {
	for _, test := range []struct {
		outcome tftp.Outcome
		name    string
		want    node.Kind // empty: none
	}{
		{tftp.Sent, "8b07bcc6/start.elf", node.FileSent},
		{tftp.Lost, "8b07bcc6/start.elf", node.FileLost},
		{tftp.Failed, "kernel8.img", node.Warning},
		{tftp.Missed, "8b07bcc6/kernel8.img", node.FileMissed},
		{tftp.Missed, "8b07bcc6/recovery.elf", ""},
		{tftp.Probed, "8b07bcc6/start.elf", ""},
		{tftp.Started, "8b07bcc6/start.elf", ""},
	} {
		tree, _ := newTree(mac)
		e, ok := tree.Event(tftp.Report{Outcome: test.outcome, Name: test.name, Peer: tftp.Peer{Addr: pi}, Bytes: 7})
		if ok != (test.want != "") || ok && (e.Kind != test.want || e.Node != mac || e.Boot != "b1") {
			t.Errorf("%s of %s gives %v %+v; want %q", test.outcome, test.name, ok, e, test.want)
		}
	}
	tree, _ := newTree()
	if e, ok := tree.Event(tftp.Report{Outcome: tftp.Sent, Name: "kernel8.img", Peer: tftp.Peer{Addr: pi}}); ok {
		t.Errorf("a board that nobody knows leaves %+v", e)
	}
}

// What the firmware would take differently than its author thinks stands on the timeline, once in a boot.
func TestWarnings(t *testing.T) {
	tree, events := newTree(mac)
	long := "dtparam=" + strings.Repeat("x", 91)
	image := tree.Shelf.(shelf)["old"]
	image["config.txt"].Data = append(image["config.txt"].Data, long...)
	image["cmdline.txt"].Data = append(image["cmdline.txt"].Data, "quiet"...)
	for range 3 {
		read(t, tree, pi, "8b07bcc6/config.txt")
		read(t, tree, pi, "8b07bcc6/cmdline.txt")
	}
	want := []string{
		"config.txt:2: The line has 99 characters and the firmware reads 98 of them. Split it, for example into one dtparam line for each parameter.",
		"cmdline.txt:2: The image's command line has more than one line and the firmware reads the first. Put all words into the first line.",
	}
	got := warnings(*events)
	if !slices.Equal(got, want) {
		t.Errorf("the timeline has %q; want %q", got, want)
	}
	tree.Desk.Record(node.Event{Kind: node.BootStarted, Node: mac, Boot: "b2", Image: "old"})
	read(t, tree, pi, "8b07bcc6/config.txt")
	if got := warnings(*events); len(got) != 3 {
		t.Errorf("after a second boot the timeline has %q", got)
	}
	stranger := netip.MustParseAddrPort("10.0.0.99:49153")
	read(t, tree, stranger, "config.txt")
	if got := warnings(*events); len(got) != 3 {
		t.Errorf("a stranger leaves %q", got)
	}

	// over 4096 bytes there is no file, and the timeline says why, once
	image["config.txt"].Data = []byte(strings.Repeat("dtparam=a\n", 500))
	_, err := tree.Open(t.Context(), tftp.Peer{Addr: pi, Local: self}, "8b07bcc6/config.txt")
	if err == nil || !strings.Contains(err.Error(), "over the network the firmware reads 4096") {
		t.Errorf("config.txt that is too long gives %v", err)
	}
	failed := tftp.Report{Outcome: tftp.Failed, Name: "config.txt", Peer: tftp.Peer{Addr: pi}, Text: "It is too long."}
	for i := range 2 {
		if e, ok := tree.Event(failed); ok != (i == 0) || ok && (e.Kind != node.Warning || e.Text != failed.Text) {
			t.Errorf("failed time %d: %v %+v", i+1, ok, e)
		}
	}
}

func warnings(events []node.Event) (texts []string) {
	for _, e := range events {
		if e.Kind == node.Warning && e.Node == mac {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

// A board that loses its power within its first file is gone from the neighbour table before it is given up.
func TestEventWithoutPower(t *testing.T) {
	tree, _ := newTree(mac)
	read(t, tree, pi, "kernel8.img")
	tree.MAC = func(netip.Addr) (node.MAC, bool) { return node.MAC{}, false }
	e, ok := tree.Event(tftp.Report{Outcome: tftp.Lost, Name: "bootcode.bin", Peer: tftp.Peer{Addr: pi}})
	if !ok || e.Kind != node.FileLost || e.Node != mac {
		t.Errorf("got %v %+v; want that %s fell silent", ok, e, mac)
	}
}

func FuzzNames(f *testing.F) {
	for _, name := range []string{"8b07bcc6/start.elf", "dc-a6-32-01-36-c2/start4.elf", "overlays/x.dtbo", "00000000/x", "/", "8b07bcc6/", "000000000000/"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		who, rest := split(name)
		if len(rest) > len(name) || who.serial == 0 && who.mac.IsZero() && rest != name {
			t.Errorf("split(%q) = %+v, %q", name, who, rest)
		}
		if fs.ValidPath(name) && !fs.ValidPath(rest) && rest != "" {
			t.Errorf("split(%q) leaves the invalid %q", name, rest)
		}
		tree, _ := newTree(mac)
		if f, err := tree.Open(t.Context(), tftp.Peer{Addr: pi, Local: self}, path.Clean(name)); err == nil {
			f.Close()
		}
	})
}

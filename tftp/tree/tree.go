// Package tree is what a board finds on the TFTP server: who asks, what the plan is, and the file that follows.
// The files of the image come straight out of its FAT partition; config.txt and cmdline.txt are rendered for the
// board; stage 1 is added.
package tree

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"sync"

	"bramble/boot"
	"bramble/firstboot/wire"
	"bramble/node"
	"bramble/tftp"
	"bramble/tftp/render"
)

// Stage1 is the name of the initramfs that config.txt asks the firmware for.
const Stage1 = "bramble-stage1"

// Shelf has the images, by the IDs that plans name.
type Shelf interface {
	Boot(id string) (fs.FS, error)                               // the FAT partition
	Stage1(ctx context.Context, id string) (b []byte, err error) // the initramfs for the image's kernel
}

// Tree answers tftp.Server. All fields are required.
type Tree struct {
	Desk  *boot.Desk
	Shelf Shelf
	MAC   func(netip.Addr) (node.MAC, bool) // the kernel's neighbour table
	HTTP  int                               // port of stage 1's HTTP server

	mu   sync.Mutex
	said map[saying]bool         // warnings that the journal has
	seen map[netip.Addr]node.MAC // what MAC said before: a board without power is soon gone from the neighbour table
}

// Open finds a file; see tftp.Tree.
func (t *Tree) Open(ctx context.Context, peer tftp.Peer, name string) (tftp.File, error) {
	prefix, name := split(name)
	plan := t.plan(peer.Addr.Addr(), prefix)
	if !plan.Serve {
		return nil, fmt.Errorf("%s: %w", plan.Reason, fs.ErrNotExist)
	}
	image, err := t.Shelf.Boot(plan.Image)
	if err != nil {
		return nil, err
	}
	switch name {
	case "config.txt":
		return t.rendered(image, plan, name, func(text []byte) ([]byte, []render.Warning, error) {
			return render.Config(text, t.spec(plan, peer.Local))
		})
	case "cmdline.txt":
		return t.rendered(image, plan, name, func(text []byte) ([]byte, []render.Warning, error) {
			line, warnings, err := render.Cmdline(text, t.spec(plan, peer.Local))
			return []byte(line + "\n"), warnings, err
		})
	case Stage1:
		b, err := t.Shelf.Stage1(ctx, plan.Image)
		return tftp.Bytes(b), err
	}
	f, err := image.Open(name)
	if err != nil {
		return nil, err
	}
	return tftp.FS(f)
}

// rendered makes a file of the image's own text; an image without one has an empty one.
func (t *Tree) rendered(image fs.FS, plan boot.Plan, name string, render func([]byte) ([]byte, []render.Warning, error)) (tftp.File, error) {
	text, _ := fs.ReadFile(image, name)
	b, warnings, err := render(text)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be rendered: %w", name, err)
	}
	for _, w := range warnings {
		if s := (saying{plan.MAC, plan.Boot, w.String()}); !plan.MAC.IsZero() && t.first(s) {
			t.Desk.Record(node.Event{Kind: node.Warning, Node: s.mac, Boot: s.boot, File: name, Text: s.text})
		}
	}
	return tftp.Bytes(b), nil
}

// saying is a warning in one boot. Firmware reads config.txt five times, and the timeline has the warning once.
type saying struct {
	mac  node.MAC
	boot node.BootID
	text string
}

func (t *Tree) first(s saying) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.said[s] {
		return false
	}
	if t.said == nil || len(t.said) >= node.MaxNodes {
		t.said = map[saying]bool{}
	}
	t.said[s] = true
	return true
}

func (t *Tree) spec(p boot.Plan, self netip.Addr) render.Spec {
	words := []string{wire.ServerWord + "=" + net.JoinHostPort(self.String(), strconv.Itoa(t.HTTP))}
	if !p.MAC.IsZero() {
		words = append(words, wire.BootWord+"="+string(p.Boot), wire.MACWord+"="+p.MAC.String())
	}
	return render.Spec{Initramfs: Stage1, Config: p.Config, Cmdline: append(words, p.Cmdline...)}
}

// plan finds out who asks, and asks the desk. A stranger gets the default without being remembered: only a board that
// sent a DISCOVER, or that names itself by its prefix, is recorded (a router's option 66 works without a DISCOVER to us).
func (t *Tree) plan(addr netip.Addr, prefix who) boot.Plan {
	q := boot.Request{Step: boot.File, Serial: prefix.serial}
	mac, found := t.asker(addr, prefix)
	n, known := t.Desk.Nodes.Get(mac)
	if found && (known || prefix.serial != 0) {
		q.MAC = mac
		if n.Serial != 0 {
			q.Serial = n.Serial
		}
		return t.Desk.Ask(q)
	}
	return t.Desk.Peek(q)
}

// asker is the board behind an address: the neighbour table knows, or the prefix says it, or it was known before.
func (t *Tree) asker(addr netip.Addr, prefix who) (node.MAC, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if mac, ok := t.MAC(addr); ok {
		if t.seen == nil || len(t.seen) >= node.MaxNodes {
			t.seen = map[netip.Addr]node.MAC{}
		}
		t.seen[addr] = mac
		return mac, true
	}
	if !prefix.mac.IsZero() {
		return prefix.mac, true
	}
	if n, ok := t.Desk.Nodes.BySerial(prefix.serial); ok {
		return n.MAC, true
	}
	if mac, ok := t.seen[addr]; ok {
		return mac, true
	}
	n, ok := t.Desk.Nodes.ByAddr(addr)
	return n.MAC, ok
}

// who is what a prefix says: a serial number, or a MAC address with TFTP_PREFIX=2 on a 4 (pi-netboot 2.3).
type who struct {
	serial node.Serial
	mac    node.MAC
}

// split takes a board's prefix off a name. A folder of the image, such as overlays, is no prefix.
func split(name string) (who, string) {
	first, rest, ok := strings.Cut(name, "/")
	if !ok {
		return who{}, name
	}
	if len(first) == 8 {
		if serial, err := node.ParseSerial(first); err == nil && serial != 0 {
			return who{serial: serial}, rest
		}
	}
	if mac, err := node.ParseMAC(first); err == nil && !mac.IsZero() {
		return who{mac: mac}, rest
	}
	return who{}, name
}

// normal are the files that firmware asks for and nobody has (pi-netboot 2.4): not worth a line.
var normal = map[string]bool{
	"bootsig.bin": true, "autoboot.txt": true, "recovery.elf": true, "recover4.elf": true, "dt-blob.bin": true, "bootcfg.txt": true,
	"recovery8.img": true, "recovery7.img": true, "recovery8-32.img": true, "armstub8.bin": true, "armstub8-32.bin": true,
	"overlay_map.dtb": true, "pieeprom.sig": true, "recovery.bin": true, "vl805.sig": true, "tryboot.txt": true,
}

// Event is what the journal should hear of a transfer; ok is false for what is normal, and for strangers.
func (t *Tree) Event(r tftp.Report) (e node.Event, ok bool) {
	addr := r.Peer.Addr.Addr()
	prefix, name := split(r.Name)
	mac, found := t.asker(addr, prefix)
	n, known := t.Desk.Nodes.Get(mac)
	if !found || !known {
		return e, false
	}
	e = node.Event{Node: mac, Boot: n.Boot, Serial: prefix.serial, Addr: addr, File: r.Name, Bytes: r.Bytes, Took: r.Took, Resent: r.Resent, Text: r.Text}
	switch r.Outcome {
	case tftp.Sent:
		e.Kind = node.FileSent
	case tftp.Missed:
		e.Kind = node.FileMissed
		return e, !normal[path.Base(name)]
	case tftp.Lost:
		e.Kind = node.FileLost
	case tftp.Failed:
		e.Kind = node.Warning
		return e, t.first(saying{mac, n.Boot, r.Text})
	default:
		return e, false
	}
	return e, true
}

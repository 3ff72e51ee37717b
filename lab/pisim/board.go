package pisim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// Keep says which files stay in memory; all are hashed.
type Keep int

// What to keep. config.txt and cmdline.txt are always kept.
const (
	KeepAll    Keep = iota
	KeepHashes      // hundreds of boards of 40 MB each fit into memory
)

// Board is one Raspberry Pi.
type Board struct {
	Model  Model
	Serial uint32
	MAC    MAC    // zero: the model's OUI and the low half of the serial
	Seed   uint64 // of what it leaves to chance; mixed with the serial
	Faults Faults // of its cable, both directions
	Keep   Keep
	Log    func(Event) // called for each line of the timeline, if not nil

	// HandOver is called with a complete boot, if not nil: QEMU takes over, say. It may wait; Outcome stays Kernel
	// if it returns nil.
	HandOver func(ctx context.Context, r Report) error
}

// Address is the board's Ethernet address.
func (b Board) Address() MAC {
	if b.MAC != (MAC{}) {
		return b.MAC
	}
	o := b.Model.OUI
	return MAC{o[0], o[1], o[2], byte(b.Serial >> 16), byte(b.Serial >> 8), byte(b.Serial)}
}

// SerialName is the serial as the board names it in requests: eight hexadecimal digits.
func (b Board) SerialName() string { return fmt.Sprintf("%08x", b.Serial) }

// Boot powers the board on, plugged into the segment, and returns when it has reached the kernel, has halted, or
// ctx ends.
func (b Board) Boot(ctx context.Context, s *Segment) Report {
	mac := b.Address()
	seed := b.Seed ^ uint64(b.Serial)<<32
	everyone := false
	for _, st := range b.Model.Stages {
		everyone = everyone || st.DHCP != nil && st.DHCP.NeedsNextFrame
	}
	run := &run{
		Board: b, ctx: ctx, power: time.Now(), dice: rand.New(rand.NewPCG(seed, 2)),
		id:       identity{mac: mac, serial: b.Serial, revision: b.Model.RevisionCode, tag: b.Model.Tag},
		nic:      newNIC(s, mac, b.Faults.Impair(seed, 0), b.Faults.Impair(seed, 1), everyone),
		prefix:   b.SerialName() + "/",
		settings: Settings{Values: map[string]string{}},
		report:   Report{Name: b.Model.Name, MAC: mac, Serial: b.SerialName(), Files: map[string]File{}},
	}
	defer run.nic.port.Unplug()
	run.finish(run.stages())
	if run.report.Outcome == Kernel && b.HandOver != nil {
		run.nic.port.Unplug() // whoever takes over has the same Ethernet address
		if err := b.HandOver(ctx, run.report); err != nil {
			run.report.Outcome, run.report.Reason = NotHanded, err.Error()
			run.say("not handed over: %v", err)
		}
	}
	return run.report
}

// halt is the end of a boot before the kernel.
type halt struct {
	outcome Outcome
	reason  string
	led     int
}

func (h *halt) Error() string { return h.reason }

// run is a boot under way.
type run struct {
	Board
	ctx   context.Context
	power time.Time
	dice  *rand.Rand
	id    identity
	nic   *nic

	stage    Stage
	net      network
	hop      MAC    // of the TFTP server, or the gateway
	nextPort uint16 // of the next request
	late     func() // an abort that is sent after the next request
	last     *transfer
	lastPort uint16

	prefix     string
	osPrefix   string
	osOverlays bool // os_prefix holds for overlays, too
	settings   Settings
	report     Report
}

func (r *run) stages() error {
	for _, r.stage = range r.Model.Stages {
		r.nic.deaf = false
		r.nextPort = r.stage.TFTP.FirstPort
		if r.stage.DHCP != nil {
			if err := r.discover(*r.stage.DHCP); err != nil {
				return err
			}
		}
		if err := r.findServer(); err != nil {
			return err
		}
		r.nic.deaf = !r.stage.AnswersARP
		for _, step := range r.stage.Steps {
			if err := r.step(step); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish turns how the boot ended into the report's fields.
func (r *run) finish(err error) {
	rep := &r.report
	rep.Stage, rep.Took, rep.Prefix = r.stage.Name, time.Since(r.power), r.prefix
	if r.net.addr.IsValid() {
		rep.Address = r.net.addr.String()
	}
	if r.net.server.IsValid() {
		rep.Server = r.net.server.String()
	}
	if err == nil {
		rep.Outcome, rep.Stage = Kernel, "kernel"
		r.gather()
		r.say("the kernel starts: %s", rep.Boot.CommandLine)
		rep.Reason = "the firmware has all that it needs and starts the kernel"
		return
	}
	var h *halt
	if !errors.As(err, &h) {
		h = &halt{outcome: Cancelled, reason: err.Error()}
	}
	rep.Outcome, rep.Reason, rep.LED = h.outcome, h.reason, h.led
	r.say("halted: %s", h.reason)
}

// gather collects what the kernel gets.
func (r *run) gather() {
	read := func(variable string) (data []byte) {
		for _, name := range r.settings.files(r.Model, variable) {
			data = append(data, r.report.Files[r.full(name)].Data...)
		}
		return data
	}
	boot := &r.report.Boot
	boot.Kernel, boot.DTB, boot.Initramfs = read("$kernel"), read("$dtb"), read("$initramfs")
	boot.Overlays = map[string][]byte{}
	for _, name := range r.settings.files(r.Model, "$overlays") {
		if f, ok := r.report.Files[r.full(name)]; ok {
			boot.Overlays[name] = f.Data
		}
	}
	boot.CmdlineTxt = string(read("$cmdline"))
	boot.FirmwareArgs = firmwareArgs(r.Model, r.id.mac, r.settings)
	boot.CommandLine = commandLine(r.Model, boot.FirmwareArgs, []byte(boot.CmdlineTxt))
	boot.Settings = r.settings
}

// say adds a line to the timeline.
func (r *run) say(format string, args ...any) {
	e := Event{At: time.Since(r.power), Stage: r.stage.Name, Text: fmt.Sprintf(format, args...)}
	r.report.Timeline = append(r.report.Timeline, e)
	if r.Log != nil {
		r.Log(e)
	}
}

func (r *run) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.report.Warnings = append(r.report.Warnings, text)
	r.say("warning: %s", text)
}

// findServer asks for the server's Ethernet address, as each stage does.
func (r *run) findServer() error {
	ip := r.net.nextHop(r.stage.Gateway)
	hop, ok := r.nic.resolve(r.ctx, ip, r.stage.ARPTries)
	if r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	if !ok {
		return &halt{outcome: NoARP, reason: fmt.Sprintf("nobody answered ARP for %s, the way to the TFTP server: it is down, or an OFFER named a wrong one", ip)}
	}
	r.hop = hop
	return nil
}

// send sends a datagram to the TFTP server's port.
func (r *run) send(from uint16, to netip.AddrPort, payload []byte) {
	r.nic.port.Send(udpFrame(r.hop, r.nic.mac, netip.AddrPortFrom(r.nic.addr, from), to, payload))
}

// xid is the transaction id of a stage: constant, but for the EEPROM's.
func (r *run) xid(form Form) uint32 {
	if form == FormEEPROM {
		return cmp.Or(r.dice.Uint32(), 1)
	}
	return romXID
}

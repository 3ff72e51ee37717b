package pisim

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	tftpPort     = 69
	askAgainMost = 8 // times
)

// step does one line of the request order.
func (r *run) step(s Step) error {
	if s.Verbs[0] == "osprefix" {
		return r.findOSPrefix()
	}
	names := s.Names
	var all bool // every one of them, not the first that is there
	if variable := names[0]; strings.HasPrefix(variable, "$") {
		names = r.settings.files(r.Model, variable)
		all = variable == "$overlays" || variable == "$initramfs"
	}
	found, why := false, Absent
	for _, name := range names {
		t, err := r.group(s, name)
		if err != nil {
			return err
		}
		ok := t.result == Read || t.result == Exists
		found = found || ok
		r.learn(s, t, ok)
		if t.result != Absent {
			why = t.result
		}
		if ok && s.has("never") {
			return &halt{outcome: Elsewhere, reason: fmt.Sprintf("the server has %s: the firmware would start that instead of the kernel", name)}
		}
		if ok && !all {
			break
		}
	}
	switch {
	case found || len(names) == 0:
	case s.has("prefix"):
		r.say("%s is not below %s: no prefix from now on", strings.Join(s.Names, " and "), r.prefix)
		r.prefix = ""
		if s.has("config") {
			return r.step(Step{Verbs: s.Verbs, Names: s.Names, Flags: []string{"config"}})
		}
	case s.has("needed"):
		return &halt{outcome: MissingFile, led: s.LED, reason: fmt.Sprintf("%s was not received (%s): the board halts%s",
			strings.Join(names, " or "), why, leds(s.LED))}
	case s.has("config"):
		r.warn("%s was not received (%s): the firmware's defaults hold", s.Names[0], why)
	case strings.HasPrefix(s.Names[0], "$") && slices.Contains(s.Verbs, "read") && s.Names[0] != "$armstub" && s.Names[0] != "$fixup":
		r.warn("%s was not received (%s): the boot goes on without", strings.Join(names, " and "), why)
	}
	return nil
}

func leds(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", its LED flashes %d times", n)
}

// group does the verbs for one name, until one fails.
func (r *run) group(s Step, name string) (t *transfer, err error) {
	full := r.full(name)
	if s.has("root") {
		full = name
	}
	for _, verb := range s.Verbs {
		t, err = r.fetch(full, verb == "probe", s.counts())
		if err != nil || t.result != Read && t.result != Exists {
			break
		}
	}
	return t, err
}

// learn takes the settings out of a config.txt. What was not received counts as empty.
func (r *run) learn(s Step, t *transfer, ok bool) {
	if !s.has("config") && !s.has("start") && !s.has("overlays") {
		return
	}
	var text []byte
	if ok && t.data != nil {
		text = t.data.Bytes()
	}
	if len(text) > maxConfig {
		r.warn("%s has %d bytes: the firmware ignores all after %d", t.name, len(text), maxConfig)
	}
	var include includer
	if s.has("config") {
		include = func(name string) ([]byte, bool) {
			t, err := r.fetch(r.full(name), false, true)
			if err != nil || t.result != Read {
				return nil, false
			}
			return t.data.Bytes(), true
		}
	}
	settings := ReadConfig(text, r.Model, r.Serial, include)
	if s.has("overlays") {
		r.settings.Overlays, r.settings.Params = settings.Overlays, settings.Params
		return
	}
	r.settings = settings
}

// full is the name with the prefixes in force.
func (r *run) full(name string) string {
	if r.osPrefix != "" && r.belowOSPrefix(name) {
		name = r.osPrefix + name
	}
	return r.prefix + name
}

func (r *run) belowOSPrefix(name string) bool {
	variables := []string{"$kernel", "$initramfs", "$dtb", "$cmdline"}
	if r.osOverlays {
		variables = append(variables, "$overlays")
	}
	return slices.ContainsFunc(variables, func(v string) bool {
		return slices.Contains(r.settings.files(r.Model, v), name)
	})
}

// findOSPrefix uses os_prefix only if kernel and device tree are below it, and for overlays only if their README is
// there, too (§3.1).
func (r *run) findOSPrefix() error {
	r.osPrefix, r.osOverlays = "", false
	prefix := r.settings.or("os_prefix", "")
	if prefix == "" {
		return nil
	}
	for _, names := range [][]string{r.settings.files(r.Model, "$kernel"), r.settings.files(r.Model, "$dtb")} {
		there, err := r.anyThere(prefix, names)
		if err != nil {
			return err
		}
		if !there {
			r.warn("os_prefix %s is not used: %s is not below it", prefix, strings.Join(names, " or "))
			return nil
		}
	}
	overlays, err := r.anyThere(prefix, []string{r.settings.or("overlay_prefix", "overlays/") + "README"})
	r.osPrefix, r.osOverlays = prefix, overlays
	return err
}

// anyThere probes for names below a prefix until one is there.
func (r *run) anyThere(prefix string, names []string) (bool, error) {
	for _, name := range names {
		t, err := r.fetch(r.prefix+prefix+name, true, true)
		if err != nil || t.result == Exists {
			return err == nil, err
		}
	}
	return false, nil
}

// fetch makes one request and waits for its end. The error is only for the end of the boot.
func (r *run) fetch(name string, probe, counts bool) (*transfer, error) {
	k := r.stage.TFTP
	t := &transfer{knobs: k, name: name, probe: probe, size: -1, chunk: defaultBlock, sum: sha256.New()}
	if r.Keep == KeepAll || strings.HasSuffix(name, ".txt") {
		t.data = &bytes.Buffer{}
	}
	port := r.nextPort
	if !k.SamePort {
		r.nextPort++
	}
	began := time.Now()
	asked := r.transfer(t, port)
	if err := r.ctx.Err(); err != nil {
		return t, err
	}
	r.record(t, Exchange{Probe: probe, Counts: counts, Asked: asked, At: began.Sub(r.power), Took: time.Since(began)})
	if t.result == Confused {
		return t, &halt{outcome: Hung, reason: fmt.Sprintf("a duplicate packet broke the transfer of %s after %s", name, t.progressLine())}
	}
	return t, nil
}

// transfer carries the packets of one request, and returns how often it asked.
func (r *run) transfer(t *transfer, port uint16) (asked int) {
	k, server := t.knobs, netip.AddrPortFrom(r.net.server, tftpPort)
	r.send(port, server, t.request())
	asked = 1
	if r.late != nil {
		r.late()
		r.late = nil
	}
	giveUp, again := time.Now().Add(k.Wait), time.Time{}
	if k.RFC1350 && k.AskAgain > 0 {
		again = time.Now().Add(k.AskAgain)
	}
	for t.result == Pending {
		until := giveUp
		if !again.IsZero() {
			until = earlier(until, again)
		}
		f, ok := r.nic.next(r.ctx, until)
		switch {
		case ok:
			if r.packet(t, port, f) {
				giveUp, again = time.Now().Add(k.Wait), time.Time{}
			}
		case r.ctx.Err() != nil || !time.Now().Before(giveUp):
			t.giveUp()
		case !again.IsZero() && asked < askAgainMost:
			r.send(port, server, t.request())
			asked++
			again = time.Now().Add(k.AskAgain)
		default:
			again = time.Time{}
		}
	}
	r.last, r.lastPort = t, port
	if t.probe && t.oack && t.result == Exists {
		r.abortProbe(t, port)
	}
	return asked
}

// packet handles a datagram, and reports whether it brought anything new.
func (r *run) packet(t *transfer, port uint16, f frame) bool {
	if f.kind != etherIPv4 || f.to.Addr() != r.nic.addr || f.from.Addr() != r.net.server {
		return false
	}
	switch {
	case f.to.Port() == port:
		reply, progress := t.receive(f.from, f.payload)
		if progress && t.knobs.Pace > 0 {
			time.Sleep(t.knobs.Pace)
		}
		if reply != nil {
			r.send(port, f.from, reply)
		}
		return progress
	case r.last != nil && f.to.Port() == r.lastPort && t.knobs.RFC1350:
		// The last block of the file before: its acknowledgement was lost.
		if reply, _ := r.last.receive(f.from, f.payload); reply != nil && r.last.result == Read {
			r.send(r.lastPort, f.from, reply)
		}
	}
	return false
}

// abortProbe tells the server that the size was all that was wanted; at times only after the next request (§2.2).
func (r *run) abortProbe(t *transfer, port uint16) {
	abort := func() { r.send(port, t.server, errorPacket(errNotDefined, earlyTerminate)) }
	if t.knobs.LateAbort && r.dice.IntN(2) == 0 {
		r.late = abort
		return
	}
	abort()
}

// record puts a finished request into the report and the timeline.
func (r *run) record(t *transfer, e Exchange) {
	e.Stage, e.Name, e.Result, e.Options = r.stage.Name, t.name, t.result, t.oack
	e.Blocks, e.BlockSize, e.Duplicates, e.Size = t.block, t.chunk, t.dups, t.bytes
	if t.probe {
		e.Size = t.size
	}
	rep := &r.report
	rep.Exchanges = append(rep.Exchanges, e)
	rep.Bytes += t.bytes
	rep.Duplicates += t.dups
	if t.result == Read {
		f := File{Size: t.bytes, SHA256: hex.EncodeToString(t.sum.Sum(nil))}
		if t.data != nil {
			f.Data = t.data.Bytes()
		}
		rep.Files[t.name] = f
	}
	r.say("%s", e.line(t))
}

func (e Exchange) line(t *transfer) string {
	verb := "read"
	if e.Probe {
		verb = "probe"
	}
	s := fmt.Sprintf("%s %s: %s", verb, e.Name, e.Result)
	switch e.Result {
	case Read:
		s += fmt.Sprintf(", %d bytes in %.3f s", e.Size, e.Took.Seconds())
	case GaveUp, Confused, TooBig:
		s += fmt.Sprintf(" after %s and %.1f s", t.progressLine(), e.Took.Seconds())
	case Absent:
		s += fmt.Sprintf(" (%s)", t.said)
	}
	if e.Duplicates > 0 {
		s += fmt.Sprintf(", %d duplicates", e.Duplicates)
	}
	if e.Asked > 1 {
		s += fmt.Sprintf(", asked %d times", e.Asked)
	}
	return s
}

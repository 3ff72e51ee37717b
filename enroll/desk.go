package enroll

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"bramble/firstboot/wire"
	"bramble/node"
)

const (
	tokenLife = 15 * time.Minute // from the boot's first DISCOVER, by the appliance's clock
	askAgain  = 5 * time.Second  // for a node that waits for the admin
)

// Desk decides about every request to join, and records what it decided. Fields are required unless they say otherwise.
type Desk struct {
	Authority *Authority
	Nodes     *node.Registry
	Record    func(node.Event)            // appends to the journal and folds into Nodes before it returns
	Events    func(node.MAC) []node.Event // of the board's present boot, oldest first
	Now       func() time.Time
	Policy    Policy
	Started   time.Time                         // of the appliance: the window is open for FirstWindow from then; zero: it is closed
	Neighbour func(netip.Addr) (node.MAC, bool) // the kernel's neighbour table: whose address is it
	Named     func(node.MAC, node.Serial) bool  // whether the configuration names a board; nil: it names none

	// Minion has a node's Salt minion accepted at the master, by its public key (PEM). nil: there is no master.
	Minion func(s node.State, key string) error

	mu       sync.Mutex
	until    time.Time // when the window closes that the admin opened
	shut     bool      // the admin closed it
	waiting  map[node.MAC]application
	refusals bucket
}

// application is a key that waits for the admin. It is kept whole, since a code is only 40 bits of it; after a restart the
// next who asks with the same code takes its place.
type application struct {
	boot     node.BootID
	print    [32]byte
	approved bool
}

// Refusal is a "no" with its reason.
type Refusal struct{ Why string }

// Error is the reason.
func (r *Refusal) Error() string { return r.Why }

// Refused is the reason too: whoever has it may tell it to the node.
func (r *Refusal) Refused() string { return r.Why }

func no(format string, args ...any) error { return &Refusal{fmt.Sprintf(format, args...)} }

// Enroll answers a request that shows a token. The error is a *Refusal, with a sentence for the node, or the failure to
// make a certificate.
func (d *Desk) Enroll(peer netip.Addr, r wire.EnrollRequest) (wire.EnrollAnswer, error) {
	p, err := read(r)
	if err != nil {
		return wire.EnrollAnswer{}, no("%s", err)
	}
	peer = peer.Unmap().WithZone("")
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.Nodes.Get(r.MAC)
	if !ok || s.Boot == "" {
		return wire.EnrollAnswer{}, no("No boot of %s is known here. Cycle its power, and boot it from this appliance.", r.MAC)
	}
	now := d.Now()
	if err := d.checkToken(s, peer, r, now); err != nil {
		return wire.EnrollAnswer{}, err
	}
	if err := d.checkBoard(s, peer, r); err != nil {
		return wire.EnrollAnswer{}, err
	}
	switch {
	case s.Frozen:
		return wire.EnrollAnswer{}, no("Nobody can join as %s in this boot any more: %s Cycle the board's power.", s.Name, s.Problem)
	case s.Enrolled:
		if !d.issued(s.MAC, p) {
			return wire.EnrollAnswer{}, d.alarm(s, peer, "The token was used a second time, with another key.")
		}
		// an answer that was lost is no attack
		return d.Authority.issue(s, p, peer, now)
	}
	wait, why := d.decide(s, now)
	if why != "" {
		return wire.EnrollAnswer{}, d.refuse(s, peer, why)
	}
	if wait || s.Waiting != "" {
		if answer, err := d.wait(s, peer, p); err != nil || answer.Wait > 0 {
			return answer, err
		}
	}
	answer, err := d.Authority.issue(s, p, peer, now)
	if err != nil {
		return answer, err
	}
	delete(d.waiting, s.MAC)
	d.record(node.Enrolled, s, peer, p.fingerprint())
	return answer, nil
}

// checkToken lets the token of the present boot through, in its time.
func (d *Desk) checkToken(s node.State, peer netip.Addr, r wire.EnrollRequest, now time.Time) error {
	switch {
	case !d.Authority.tokenIs(r.Token, s.MAC, s.Boot):
		return d.foreign(s, peer, r)
	case r.Boot != s.Boot:
		return d.refuse(s, peer, "The request is for another boot than its token.")
	case !s.Enrolled && s.Waiting == "" && now.Sub(s.BootTime) > tokenLife:
		return d.refuse(s, peer, fmt.Sprintf("The token of this boot has expired: it is good for %d minutes from power-on. Cycle the board's power.", int(tokenLife.Minutes())))
	}
	return nil
}

// foreign refuses a token that is not of this boot. What proves nothing freezes nothing, or everybody could stop every
// node; but whoever shows the living token of another board has listened, and that board's slot is not safe any more.
func (d *Desk) foreign(s node.State, peer netip.Addr, r wire.EnrollRequest) error {
	if r.Boot != s.Boot && d.Authority.tokenIs(r.Token, s.MAC, r.Boot) {
		return d.refuse(s, peer, "The token is of another boot of this board. Cycle the board's power.")
	}
	for _, other := range d.Nodes.All() {
		if other.MAC != s.MAC && other.Boot != "" && d.Authority.tokenIs(r.Token, other.MAC, other.Boot) {
			_ = d.alarm(other, netip.Addr{}, fmt.Sprintf("%s has this board's token, and tried to join as %s with it.", peer, s.Name))
			return d.refuse(s, peer, "The token is of another board.")
		}
	}
	return d.refuse(s, peer, "The token is not of this appliance.")
}

// checkBoard holds a request with a good token against what is known of its sender.
func (d *Desk) checkBoard(s node.State, peer netip.Addr, r wire.EnrollRequest) error {
	if r.Serial != 0 && s.Serial != 0 && r.Serial != s.Serial {
		return d.alarm(s, peer, fmt.Sprintf("The token came from a board with the serial number %s; the one that booted has %s.", r.Serial, s.Serial))
	}
	switch at, ok := d.Neighbour(peer); {
	case ok && at != s.MAC:
		return d.alarm(s, peer, fmt.Sprintf("The token came from another machine, %s with the address %s.", at, peer))
	case !ok && peer != s.Addr:
		return d.refuse(s, peer, fmt.Sprintf("Whether %s is this board cannot be seen from here: it is not on this network segment.", peer))
	}
	return nil
}

// issued tells whether it was this key that enrolled in the present boot.
func (d *Desk) issued(mac node.MAC, p applicant) bool {
	events := d.Events(mac)
	for i := len(events) - 1; i >= 0 && events[i].Kind != node.BootStarted; i-- {
		if events[i].Kind == node.Enrolled {
			return events[i].Text == p.fingerprint()
		}
	}
	return false
}

// wait keeps a key for the admin. The answer is empty when the admin has approved it.
func (d *Desk) wait(s node.State, peer netip.Addr, p applicant) (wire.EnrollAnswer, error) {
	if d.waiting == nil {
		d.waiting = map[node.MAC]application{}
	}
	mine, ok := d.waiting[s.MAC]
	ok = ok && mine.boot == s.Boot
	switch {
	case s.Waiting != "" && s.Waiting != p.code(), ok && mine.print != p.print:
		return wire.EnrollAnswer{}, d.alarm(s, peer, "Its token was used with another key while it waits for approval.")
	case !ok:
		d.tidy()
		d.waiting[s.MAC] = application{boot: s.Boot, print: p.print}
	case mine.approved:
		return wire.EnrollAnswer{}, nil
	}
	if s.Waiting == "" {
		d.record(node.Waiting, s, peer, p.code())
	}
	return wire.EnrollAnswer{Name: s.Name, Code: p.code(), Wait: askAgain}, nil
}

// tidy drops what waited in boots that are over.
func (d *Desk) tidy() {
	for mac, a := range d.waiting {
		if s, ok := d.Nodes.Get(mac); !ok || s.Boot != a.boot {
			delete(d.waiting, mac)
		}
	}
}

// Approve lets the node join whose code it is; it gets its certificate when it asks again.
func (d *Desk) Approve(mac node.MAC, code string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, _ := d.Nodes.Get(mac)
	a, ok := d.waiting[mac]
	switch {
	case s.Frozen:
		return no("Nobody can join as %s in this boot any more: %s", s.Name, s.Problem)
	case s.Waiting == "":
		return no("%s does not wait for approval.", orMAC(s, mac))
	case plain(code) != plain(s.Waiting):
		return no("The code of %s is not %s. If it is the board's console that shows %[2]s, another machine wants to join in its place: do not approve, and cycle the board's power.", s.Name, strings.ToUpper(code))
	case !ok || a.boot != s.Boot:
		return no("The appliance was restarted since %s asked. It asks again every few seconds: try once more.", s.Name)
	}
	a.approved = true
	d.waiting[mac] = a
	return nil
}

func plain(code string) string {
	return strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(code))
}

func orMAC(s node.State, mac node.MAC) string {
	if s.Name != "" {
		return s.Name
	}
	return mac.String()
}

// OpenWindow lets unknown boards join for a time, under the policy Window; 0 closes the window.
func (d *Desk) OpenWindow(open time.Duration) error {
	if open < 0 || open > MaxWindow {
		return no("The window can be opened for at most %d days.", int(MaxWindow.Hours()/24))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Policy != Window {
		return no("There is no window: the policy for enrolment is %s.", d.Policy)
	}
	d.until, d.shut = d.Now().Add(open), open == 0
	return nil
}

// Status is the policy, and when the window closes (zero: it is closed).
func (d *Desk) Status() (policy string, until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if closes := d.closes(); d.Policy == Window && d.Now().Before(closes) {
		until = closes
	}
	return string(d.Policy), until
}

// Admit says whose request over mutual TLS this is, and whether it may go on. A key lives in its board's RAM and dies with
// the boot: one of an earlier boot that still speaks means that there are two machines.
func (d *Desk) Admit(mac node.MAC, boot node.BootID, peer netip.Addr) (node.State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.admit(mac, boot, peer)
}

func (d *Desk) admit(mac node.MAC, boot node.BootID, peer netip.Addr) (node.State, error) {
	s, ok := d.Nodes.Get(mac)
	switch {
	case !ok || s.Boot == "":
		return s, no("No boot of %s is known here. Cycle its power.", mac)
	case s.Boot != boot:
		return s, d.alarm(s, netip.Addr{}, fmt.Sprintf("Two machines are this board: %s still runs an earlier boot, and another has booted with the same addresses.", peer))
	case s.Frozen:
		return s, no("The certificates of this boot of %s are not good any more: %s Cycle the board's power.", s.Name, s.Problem)
	case !s.Enrolled:
		return s, no("%s has not joined in this boot. Cycle the board's power.", s.Name)
	}
	return s, nil
}

// Renew answers a request over mutual TLS of the node and boot that its certificate names.
func (d *Desk) Renew(mac node.MAC, boot node.BootID, peer netip.Addr, r wire.EnrollRequest) (wire.EnrollAnswer, error) {
	p, err := read(r)
	if err != nil {
		return wire.EnrollAnswer{}, no("%s", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := d.admit(mac, boot, peer)
	if err != nil {
		return wire.EnrollAnswer{}, err
	}
	if r.Minion != "" {
		if err := d.accept(s, r.Minion); err != nil {
			return wire.EnrollAnswer{}, err
		}
	}
	return d.Authority.issue(s, p, peer.Unmap().WithZone(""), d.Now())
}

// accept hands on a minion's key, if it is one.
func (d *Desk) accept(s node.State, key string) error {
	if d.Minion == nil {
		return no("This appliance has no salt-master that it could make a minion known to.")
	}
	if err := checkMinion(key); err != nil {
		return no("%s", err)
	}
	return d.Minion(s, key)
}

// refuse says no, on the timeline too, once and not too often: anybody can ask.
func (d *Desk) refuse(s node.State, peer netip.Addr, why string) error {
	text := why
	if peer.IsValid() {
		text = fmt.Sprintf("%s asked. %s", peer, why)
	}
	if s.Problem != text && !s.Frozen && d.refusals.take(d.Now()) {
		d.record(node.Refused, s, netip.Addr{}, text)
	}
	return &Refusal{why}
}

// alarm freezes a slot until the next boot.
func (d *Desk) alarm(s node.State, peer netip.Addr, what string) error {
	if !s.Frozen {
		text := what
		if peer.IsValid() {
			text = fmt.Sprintf("%s It came from %s.", what, peer)
		}
		d.record(node.Alarm, s, netip.Addr{}, text)
		delete(d.waiting, s.MAC)
	}
	return no("Nobody can join as %s in this boot any more: %s Cycle the board's power.", s.Name, what)
}

func (d *Desk) record(kind node.Kind, s node.State, addr netip.Addr, text string) {
	d.Record(node.Event{Time: d.Now(), Kind: kind, Node: s.MAC, Boot: s.Boot, Addr: addr, Text: text})
}

// bucket bounds how often something is done. The zero value is full.
type bucket struct{ next time.Time }

const (
	burst = 32
	every = 2 * time.Second
)

func (b *bucket) take(now time.Time) bool {
	if b.next.Before(now) {
		b.next = now
	}
	if b.next.Sub(now) >= burst*every {
		return false
	}
	b.next = b.next.Add(every)
	return true
}

// Package boot is the whole boot policy in one function. Decide is pure and total: the DHCP, TFTP, block and HTTP
// servers ask it the same question with what they know, get the same answer, and none of them keeps a session.
package boot

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"bramble/node"
)

// Step is the place in a boot at which a server asks.
type Step int

// The questions that servers ask.
const (
	Discover Step = iota // a DISCOVER came: answer it, and does it open a new boot?
	File                 // a file is wanted over TFTP
	Stage1               // stage 1 wants its plan over HTTP
)

// Request is one question, parsed once from whatever came over the wire.
type Request struct {
	Step   Step
	MAC    node.MAC
	Serial node.Serial // zero when not known yet
	Model  node.Model
	Now    time.Time
}

// Profile is what a board gets. Empty fields take the default profile's.
type Profile struct {
	Image   string   // name in the catalogue
	User    string   // login to be made, or to be unlocked when the image has it
	Keys    []string // authorized_keys lines for User
	Config  []string // lines added to config.txt
	Cmdline []string // words added to the kernel command line
	Overlay string   // size limit of the RAM overlay as tmpfs takes it, such as "50%" or "600m"
}

// NodeRule is what the owner says of one board, found by serial number or MAC.
type NodeRule struct {
	Serial node.Serial
	MAC    node.MAC
	Name   string
	Ignore bool // never answer this board
	Profile
}

// Rules is the owner's policy: an immutable snapshot.
type Rules struct {
	Commit   string            // of the configuration that the rules come from; empty when they come from flags
	Default  Profile           //
	Nodes    []NodeRule        //
	Images   map[string]string // catalogue: name → ID of the image that it means now
	NameWith string            // prefix of the names of boards without a rule; "pi-" when empty
}

// Plan is the answer. Reason is always one sentence.
type Plan struct {
	Serve  bool
	Begins bool // this request opens a new boot: record node.BootStarted
	Reason string
	MAC    node.MAC
	Boot   node.BootID
	Name   string // host name
	Image  string // ID in the catalogue
	Commit string
	Profile
}

// Decide says what a board gets, and why. n is the board's state so far (the zero State for a board never seen).
func Decide(q Request, n node.State, rules Rules) Plan {
	rule, named := rules.rule(q, n)
	if rule.Ignore {
		return Plan{Reason: fmt.Sprintf("The configuration says to ignore %s.", q.MAC)}
	}
	p := Plan{
		Serve:   true,
		MAC:     q.MAC,
		Begins:  Begins(q, n),
		Boot:    n.Boot,
		Name:    rules.name(q, n, rule),
		Profile: merge(rule.Profile, rules.Default),
	}
	if !p.Begins && n.Image != "" {
		// A boot keeps the image and the commit of its first offer (design rule 1).
		p.Image, p.Commit, p.Reason = n.Image, n.Commit, n.Reason
		return p
	}
	if p.Begins {
		p.Boot = bootID(q)
	}
	id, ok := rules.Images[p.Profile.Image]
	if !ok {
		return Plan{Reason: noImage(p.Profile.Image)}
	}
	p.Image, p.Commit = id, rules.Commit
	p.Reason = because(p, named)
	return p
}

func noImage(name string) string {
	if name == "" {
		return "No image is chosen; start bramble serve with --image NAME."
	}
	return fmt.Sprintf("The image %q is not in the catalogue; add it with bramble image add %s.", name, name)
}

func because(p Plan, named bool) string {
	if named {
		return fmt.Sprintf("%s boots %s: a rule of the configuration names this board.", p.Name, p.Profile.Image)
	}
	return fmt.Sprintf("%s boots %s: it is the default for boards without a rule.", p.Name, p.Profile.Image)
}

// settle is how long after its last sign of life a boot can still be the same boot when a DISCOVER comes:
// the ROM asks five times in 25 s, and bootcode.bin asks a tenth of a second after it was loaded (FW#1078).
const settle = 40 * time.Second

// Begins reports whether a request opens a new boot of a board in state n. Only a DISCOVER can. It continues the
// present boot while the ROM repeats itself and when bootcode.bin sends its own; once the firmware has asked for a
// file, or stage 1 has spoken, a DISCOVER from the netboot client means that the power was cycled.
func Begins(q Request, n node.State) bool {
	if n.Boot == "" {
		return true
	}
	if q.Step != Discover {
		return false
	}
	if n.Stage > node.StageBootcode {
		return true
	}
	return q.Now.Sub(n.Last.Time) > settle
}

// bootID names a boot; it follows from the question, so that two servers asking at once agree.
func bootID(q Request) node.BootID {
	h := sha256.Sum256(fmt.Appendf(nil, "%s %d", q.MAC, q.Now.UnixNano()))
	return node.BootID(hex.EncodeToString(h[:4]))
}

func (r Rules) rule(q Request, n node.State) (NodeRule, bool) {
	serial := q.Serial
	if serial == 0 {
		serial = n.Serial
	}
	for _, rule := range r.Nodes {
		if rule.Serial != 0 && rule.Serial == serial || !rule.MAC.IsZero() && rule.MAC == q.MAC {
			return rule, true
		}
	}
	return NodeRule{}, false
}

func (r Rules) name(q Request, n node.State, rule NodeRule) string {
	prefix := r.NameWith
	if prefix == "" {
		prefix = "pi-"
	}
	switch {
	case rule.Name != "":
		return rule.Name
	case q.Serial != 0:
		return prefix + q.Serial.String()
	case n.Serial != 0:
		return prefix + n.Serial.String()
	}
	// The low half of the MAC is what a board without a known serial can be told by.
	return prefix + hex.EncodeToString(q.MAC[3:])
}

// merge fills a's empty fields from b; added lines come after the default's.
func merge(a, b Profile) Profile {
	pick := func(x, y string) string {
		if x != "" {
			return x
		}
		return y
	}
	m := Profile{
		Image: pick(a.Image, b.Image), User: pick(a.User, b.User), Overlay: pick(a.Overlay, b.Overlay),
		Config:  append(append([]string{}, b.Config...), a.Config...),
		Cmdline: append(append([]string{}, b.Cmdline...), a.Cmdline...),
		Keys:    append(append([]string{}, b.Keys...), a.Keys...),
	}
	return m
}

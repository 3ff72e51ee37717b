// Package boot is the whole boot policy in one function. Decide is pure and total: the DHCP, TFTP, block and HTTP
// servers ask it the same question with what they know, get the same answer, and none of them keeps a session.
package boot

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
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
	Roles   []string // what the board is for: Salt's grain "roles"
	Layers  []string // names of read-only layers above the image's root
}

// NodeRule is what the owner says of one board, found by serial number or MAC.
type NodeRule struct {
	Serial node.Serial
	MAC    node.MAC
	Name   string
	Ignore bool // never answer this board
	Line   int  // where the rule stands in its file; 0 when it does not come from one
	Profile
}

// Rules is the owner's policy: an immutable snapshot.
type Rules struct {
	Commit   string            // of the configuration that the rules come from; empty when they come from flags
	Default  Profile           //
	Nodes    []NodeRule        //
	Images   map[string]string // catalogue: name → ID of the image that it means now
	NameWith string            // prefix of the names of boards without a rule; "pi-" when empty
	Name     Template          // in the place of NameWith: names of boards without a rule, with NameFields
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
	rule, named := rules.For(q.MAC, known(q, n))
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

// known is the board's serial number as far as the question or its history tells it.
func known(q Request, n node.State) node.Serial {
	if q.Serial != 0 {
		return q.Serial
	}
	return n.Serial
}

// For is the first rule that names a board by its MAC address or its serial number (zero when not known).
func (r Rules) For(mac node.MAC, serial node.Serial) (NodeRule, bool) {
	for _, rule := range r.Nodes {
		if rule.Serial != 0 && rule.Serial == serial || !rule.MAC.IsZero() && rule.MAC == mac {
			return rule, true
		}
	}
	return NodeRule{}, false
}

func (r Rules) name(q Request, n node.State, rule NodeRule) string {
	if rule.Name != "" {
		return rule.Name
	}
	// The low half of the MAC is what a board without a known serial can be told by.
	low := hex.EncodeToString(q.MAC[3:])
	id := low
	if serial := known(q, n); serial != 0 {
		id = serial.String()
	}
	switch {
	case !r.Name.IsZero():
		return r.Name.Expand(map[string]string{"serial": id, "mac": low})
	case r.NameWith != "":
		return r.NameWith + id
	}
	return "pi-" + id
}

// merge fills a's empty fields from b; added lines, keys, roles and layers come after the default's.
func merge(a, b Profile) Profile {
	return Profile{
		Image: cmp.Or(a.Image, b.Image), User: cmp.Or(a.User, b.User), Overlay: cmp.Or(a.Overlay, b.Overlay),
		Config:  slices.Concat(b.Config, a.Config),
		Cmdline: slices.Concat(b.Cmdline, a.Cmdline),
		Keys:    slices.Concat(b.Keys, a.Keys),
		Roles:   union(b.Roles, a.Roles),
		Layers:  union(b.Layers, a.Layers),
	}
}

// union is a and then what b adds to it.
func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, word := range b {
		if !slices.Contains(all, word) {
			all = append(all, word)
		}
	}
	return all
}

// Over is p where p says something, and base elsewhere.
func (p Profile) Over(base Profile) Profile { return merge(p, base) }

// Package policy reads bramble.yaml, the part of the configuration's repository that is about the boards: profiles,
// nodes, layers, users, and how Salt runs. Reading is strict: what is not understood is a Finding with file and line,
// and a file with a finding is no Policy. The package is pure.
package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"bramble/boot"
	"bramble/firstboot/wire"
	"bramble/node"
)

// File is the name of the policy's file, at the top of the first repository.
const File = "bramble.yaml"

// Finding is one thing that is wrong with a configuration.
type Finding struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"` // from 1; 0: the file as a whole
	Text string `json:"text"`           // what is wrong, and what to write instead
}

// String is file:line: text, as compilers say it.
func (f Finding) String() string {
	if f.Line == 0 {
		return f.File + ": " + f.Text
	}
	return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text)
}

// Join is all findings in one text, a line each.
func Join(all []Finding) string {
	lines := make([]string, len(all))
	for i, f := range all {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Policy is a checked bramble.yaml. It is never changed after Parse.
type Policy struct {
	Name    boot.Template // of boards without a name of their own; zero: what the settings say
	Default boot.Profile
	Nodes   []boot.NodeRule // each with its profile merged in
	Layers  []Layer
	Users   []wire.LoginUser
	Salt    Salt
}

// Layer is a read-only layer above the image's root, made of packages of an apt repository.
type Layer struct {
	Name       string
	Repository string // URL
	Suite      string
	Component  string
	Packages   []string // name or name=version
	Keyring    string   // file in this repository with the keys that sign the apt repository
	Mount      string   // where it is mounted; empty: stacked above the root
}

// Ways of getting Salt onto a node, and modes of running it.
const (
	Layered, Apt, Wheel           = "layer", "apt", "wheel"
	Masterless, Master, SSH, None = "masterless", "master", "ssh", "off"
)

// SaltLayer is the layer that every node has when Salt comes by layer.
const SaltLayer = "salt"

// Salt says how Salt runs on the nodes, and where its files come from.
type Salt struct {
	Mode, Way, Env string
	ID             boot.Template // minion id, with the fields of IDFields
	Master, Finger string
	Grains         map[string]any
	Every          time.Duration // Unset: what the pillar's schedule says
	Memory         int64         // bytes
	Limit          time.Duration
	Remotes        []Source // file roots, in the order of precedence; nil: what the settings say
	Pillars        []Source // likewise
}

// Unset is Salt.Every where bramble.yaml says nothing.
const Unset time.Duration = -1

// IDFields are the fields of a minion id: host name, serial number, low half of the MAC address, and the model's
// suffix such as "3Bp", or "UKN" while it is unknown.
func IDFields() []string { return []string{"name", "serial", "mac", "suffix"} }

// Default is the policy of a repository without a bramble.yaml.
func Default() *Policy { return &Policy{Salt: saltDefaults()} }

func saltDefaults() Salt {
	id, _ := boot.ParseTemplate("{{name}}", IDFields()...)
	return Salt{Mode: Masterless, Way: Layered, Env: "base", ID: id, Every: Unset}
}

// Rules adds the policy to those of the settings: the settings' rules for single boards go first, so that the owner
// can always get at a board; of the default profile, what bramble.yaml says holds.
func (p *Policy) Rules(base boot.Rules) boot.Rules {
	base.Default = p.Default.Over(base.Default)
	if p.layered() {
		base.Default = base.Default.Over(boot.Profile{Layers: []string{SaltLayer}})
	}
	base.Nodes = slices.Concat(base.Nodes, p.Nodes)
	if !p.Name.IsZero() {
		base.Name = p.Name
	}
	return base
}

func (p *Policy) layered() bool {
	return p.Salt.Mode != None && p.Salt.Mode != SSH && p.Salt.Way == Layered
}

// SaltOf is how Salt runs on one node; every is taken where bramble.yaml leaves it open.
func (p *Policy) SaltOf(n node.State, every time.Duration) wire.Salt {
	s := p.Salt
	if s.Every != Unset {
		every = s.Every
	}
	suffix := n.Facts.Suffix
	if suffix == "" {
		suffix = "UKN"
	}
	id := s.ID.Expand(map[string]string{
		"name": n.Name, "serial": n.Serial.String(), "mac": fmt.Sprintf("%x", n.MAC[3:]), "suffix": suffix,
	})
	grains := maps.Clone(s.Grains)
	if roles := p.roles(n); len(roles) > 0 {
		if grains == nil {
			grains = map[string]any{}
		}
		grains["roles"] = roles
	}
	return wire.Salt{Mode: s.Mode, ID: id, Master: s.Master, Finger: s.Finger, Grains: grains, Env: s.Env, Every: every, Memory: s.Memory, Limit: s.Limit}
}

func (p *Policy) roles(n node.State) []string {
	rule, _ := boot.Rules{Nodes: p.Nodes}.For(n.MAC, n.Serial)
	return rule.Profile.Over(p.Default).Roles
}

package policy

import (
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"bramble/boot"
	"bramble/configs/words"
	"bramble/firstboot/wire"
	"bramble/node"
)

// Parse reads and checks a bramble.yaml. With a finding there is no policy.
func Parse(file string, text []byte) (*Policy, []Finding) {
	d := &reading{decoder: decoder{file: file}, Policy: Default(), profiles: map[string]boot.Profile{}}
	if doc := d.document(text); doc != nil {
		d.top(doc)
	}
	if len(d.found) > 0 {
		return nil, d.found
	}
	return d.Policy, nil
}

// reading is a policy that is being read.
type reading struct {
	decoder
	*Policy
	profiles map[string]boot.Profile
	layers   []*yaml.Node // that name a layer
}

func (d *reading) top(doc *yaml.Node) {
	var nodes *yaml.Node // after profiles, wherever they stand
	d.mapping(doc, "this file", fields{
		"names":    func(n *yaml.Node) { d.Name = d.name(n) },
		"default":  func(n *yaml.Node) { d.Default = d.profile(n, "default") },
		"profiles": d.readProfiles,
		"nodes":    func(n *yaml.Node) { nodes = n },
		"layers":   d.readLayers,
		"users":    func(n *yaml.Node) { d.list(n, "users", d.user) },
		"salt":     d.salt,
	})
	if nodes != nil {
		d.list(nodes, "nodes", d.node)
	}
	d.checkLayers()
	d.checkTwins()
}

func (d *reading) name(n *yaml.Node) boot.Template {
	t, err := boot.ParseTemplate(d.word(n, "names"), boot.NameFields()...)
	if err != nil {
		d.bad(n, "names: %v", err)
		return t
	}
	if t.IsZero() {
		return t
	}
	a, b := map[string]string{"serial": "00000000", "mac": "000000"}, map[string]string{"serial": "ffffffff", "mac": "ffffff"}
	if !host(t.Expand(a)) {
		d.bad(n, "names makes names like %q; a host name has small letters, digits and - only, at most 63", t.Expand(a))
	} else if t.Expand(a) == t.Expand(b) {
		d.bad(n, "names gives every board the same name; put {{serial}} or {{mac}} into it")
	}
	return t
}

func host(s string) bool { return words.ValidHost(s) && strings.ToLower(s) == s }

func (d *reading) readProfiles(n *yaml.Node) {
	d.pairs(n, "profiles", func(key, value *yaml.Node) { d.profiles[key.Value] = d.profile(value, "profile "+key.Value) })
}

func (d *reading) profile(n *yaml.Node, what string) (p boot.Profile) {
	d.mapping(n, what, d.profileFields(&p))
	return p
}

var (
	overlayForm = regexp.MustCompile(`^([1-9][0-9]?%|100%|[1-9][0-9]{0,8}[kmg]?)$`)
	plainWord   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	keyForm     = regexp.MustCompile(`(^|[ ,"])(ssh-(ed25519|rsa)|ecdsa-sha2-nistp\d+|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com) AAAA[A-Za-z0-9+/=]+`)
	cmdlineWord = regexp.MustCompile(`^([^\s"]|"[^"]*")+$`)
)

func (d *reading) profileFields(p *boot.Profile) fields {
	return fields{
		"image": func(n *yaml.Node) { p.Image = d.word(n, "image") },
		"user": func(n *yaml.Node) {
			p.User = d.is(n, "user", words.ValidLogin, "a login has small letters, digits, - and _, starts with a letter and has at most 32 characters")
		},
		"keys":        func(n *yaml.Node) { p.Keys = d.keys(n) },
		"config-line": func(n *yaml.Node) { p.Config = d.words(n, "config-line") },
		"cmdline-word": func(n *yaml.Node) {
			p.Cmdline = d.each(n, "cmdline-word", cmdlineWord.MatchString, "write each word of the kernel command line as an entry of its own, with spaces only inside double quotes")
		},
		"overlay": func(n *yaml.Node) {
			p.Overlay = d.is(n, "overlay", overlayForm.MatchString, `write a part of the memory like "50%" or a size like 600m`)
		},
		"roles": func(n *yaml.Node) {
			p.Roles = d.each(n, "roles", plainWord.MatchString, "a role has letters, digits, ., - and _")
		},
		"layers": func(n *yaml.Node) {
			p.Layers = d.words(n, "layers")
			d.list(n, "layers", func(item *yaml.Node) { d.layers = append(d.layers, resolve(item)) })
		},
	}
}

// each reads a list of words that all satisfy a rule.
func (d *reading) each(n *yaml.Node, what string, rule func(string) bool, wanted string) (all []string) {
	d.list(n, what, func(item *yaml.Node) { all = append(all, d.is(item, "an entry of "+what, rule, wanted)) })
	return all
}

func (d *reading) keys(n *yaml.Node) []string {
	return d.each(n, "keys", keyForm.MatchString, "write a whole public key, as it is in ~/.ssh/id_ed25519.pub")
}

func (d *reading) node(n *yaml.Node) {
	var r boot.NodeRule
	profile := ""
	known := d.profileFields(&r.Profile)
	known["serial"] = func(n *yaml.Node) {
		var err error
		if r.Serial, err = node.ParseSerial(d.word(n, "serial")); err != nil {
			d.bad(n, "serial: %v", err)
		}
	}
	known["mac"] = func(n *yaml.Node) {
		var err error
		if r.MAC, err = node.ParseMAC(d.word(n, "mac")); err != nil {
			d.bad(n, "mac: %v", err)
		}
	}
	known["name"] = func(n *yaml.Node) {
		r.Name = d.is(n, "name", host, "a host name has small letters, digits and - only, at most 63")
	}
	known["ignore"] = func(n *yaml.Node) { r.Ignore = d.flag(n, "ignore") }
	known["profile"] = func(n *yaml.Node) {
		profile = d.word(n, "profile")
		if _, ok := d.profiles[profile]; profile != "" && !ok {
			d.bad(n, "there is no profile %q; add it under profiles, or take another", profile)
		}
	}
	before := len(d.found)
	d.mapping(n, "this node", known)
	if r.Serial == 0 && r.MAC.IsZero() && len(d.found) == before {
		d.bad(resolve(n), "this entry names no board; add the key serial or mac")
	}
	r.Profile = r.Profile.Over(d.profiles[profile])
	r.Line = resolve(n).Line
	d.Nodes = append(d.Nodes, r)
}

func (d *reading) user(n *yaml.Node) {
	var u wire.LoginUser
	d.mapping(n, "this user", fields{
		"name": func(n *yaml.Node) {
			u.Name = d.is(n, "name", words.ValidLogin, "a login has small letters, digits, - and _, starts with a letter and has at most 32 characters")
		},
		"keys": func(n *yaml.Node) { u.Keys = d.keys(n) },
		"sudo": func(n *yaml.Node) { u.Sudo = d.flag(n, "sudo") },
	})
	switch {
	case u.Name == "":
		d.bad(resolve(n), "this user has no name")
	case u.Name == "root":
		d.bad(resolve(n), "root is not for logging in; take another name and sudo: true")
	}
	for _, other := range d.Users {
		if other.Name == u.Name && u.Name != "" {
			d.bad(resolve(n), "the user %s stands here a second time", u.Name)
		}
	}
	d.Users = append(d.Users, u)
}

func (d *reading) readLayers(n *yaml.Node) {
	d.pairs(n, "layers", func(key, value *yaml.Node) {
		l := Layer{Name: key.Value, Suite: "stable", Component: "main"}
		what := "layer " + key.Value
		d.is(key, "the name of a layer", plainWord.MatchString, "it has letters, digits, ., - and _")
		d.mapping(value, what, fields{
			"repository": func(n *yaml.Node) {
				l.Repository = d.is(n, "repository", isWebURL, "write the URL of an apt repository, https://… or http://…")
			},
			"suite":     func(n *yaml.Node) { l.Suite = d.word(n, "suite") },
			"component": func(n *yaml.Node) { l.Component = d.word(n, "component") },
			"packages":  func(n *yaml.Node) { l.Packages = d.words(n, "packages") },
			"keyring": func(n *yaml.Node) {
				l.Keyring = d.is(n, "keyring", isFile, "write the path of a file in this repository")
			},
			"mount": func(n *yaml.Node) { l.Mount = d.is(n, "mount", isMount, "write an absolute path like /opt/saltstack") },
		})
		if l.Repository == "" || len(l.Packages) == 0 || l.Keyring == "" {
			d.bad(key, "%s needs repository, packages and keyring", what)
		}
		d.Layers = append(d.Layers, l)
	})
}

func isWebURL(s string) bool {
	return (strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://")) && validURL(s)
}

func isFile(s string) bool {
	clean, ok := folder(s)
	return ok && clean != ""
}

func isMount(s string) bool {
	clean, ok := folder(strings.TrimPrefix(s, "/"))
	return strings.HasPrefix(s, "/") && ok && clean != ""
}

func (d *reading) checkLayers() {
	for _, n := range d.layers {
		known := n.Value == SaltLayer
		for _, l := range d.Layers {
			known = known || l.Name == n.Value
		}
		if !known && n.Kind == yaml.ScalarNode {
			d.bad(n, "there is no layer %q; add it under layers, or take it out here", n.Value)
		}
	}
}

// checkTwins finds boards that have two rules, and names that two boards have.
func (d *reading) checkTwins() {
	for i, a := range d.Nodes {
		for _, b := range d.Nodes[:i] {
			switch at := (&yaml.Node{Line: a.Line}); {
			case a.Serial != 0 && a.Serial == b.Serial:
				d.bad(at, "the board with serial %s has a rule in line %d already; make one of the two", a.Serial, b.Line)
			case !a.MAC.IsZero() && a.MAC == b.MAC:
				d.bad(at, "the board with MAC address %s has a rule in line %d already; make one of the two", a.MAC, b.Line)
			case a.Name != "" && a.Name == b.Name:
				d.bad(at, "the name %s is given to another board in line %d; choose another", a.Name, b.Line)
			}
		}
	}
}

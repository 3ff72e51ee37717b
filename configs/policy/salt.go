package policy

import (
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"bramble/boot"
)

var fingerForm = regexp.MustCompile(`^([0-9a-f]{2}:){31}[0-9a-f]{2}$`)

func (d *reading) salt(n *yaml.Node) {
	s := &d.Salt
	d.mapping(n, "salt", fields{
		"mode": func(n *yaml.Node) { s.Mode = d.oneOf(n, "mode", Masterless, Master, SSH, None) },
		"way":  func(n *yaml.Node) { s.Way = d.oneOf(n, "way", Layered, Apt, Wheel) },
		"env": func(n *yaml.Node) {
			s.Env = d.is(n, "env", plainWord.MatchString, "an environment is one word like base")
		},
		"id": func(n *yaml.Node) { s.ID = d.id(n) },
		"master": func(n *yaml.Node) {
			s.Master = d.is(n, "master", regexp.MustCompile(`^[A-Za-z0-9.:-]{1,253}$`).MatchString, "write a host name or an address")
		},
		"finger": func(n *yaml.Node) {
			s.Finger = d.is(n, "finger", fingerForm.MatchString, "write the SHA-256 fingerprint of the master's key, as salt-key -F master prints it")
		},
		"grains":  func(n *yaml.Node) { s.Grains = d.grains(n) },
		"every":   func(n *yaml.Node) { s.Every = d.duration(n, "every") },
		"memory":  func(n *yaml.Node) { s.Memory = d.size(n, "memory") },
		"limit":   func(n *yaml.Node) { s.Limit = d.duration(n, "limit") },
		"remotes": func(n *yaml.Node) { s.Remotes = d.sources(n, "remotes") },
		"pillars": func(n *yaml.Node) { s.Pillars = d.sources(n, "pillars") },
	})
	if s.Mode == Master && s.Master == "" {
		d.bad(resolve(n), "mode: master needs the key master: the host name or address of the salt-master")
	}
}

func (d *reading) id(n *yaml.Node) boot.Template {
	t, err := boot.ParseTemplate(d.word(n, "id"), IDFields()...)
	if err != nil {
		d.bad(n, "id: %v", err)
		return t
	}
	a := map[string]string{"name": "a", "serial": "00000000", "mac": "000000"}
	b := map[string]string{"name": "b", "serial": "ffffffff", "mac": "ffffff"}
	if !t.IsZero() && t.Expand(a) == t.Expand(b) {
		d.bad(n, "id gives every node the same minion id; put {{name}}, {{serial}} or {{mac}} into it")
	}
	return t
}

// grains may be anything that JSON can say.
func (d *reading) grains(n *yaml.Node) map[string]any {
	all := map[string]any{}
	d.pairs(n, "grains", func(key, value *yaml.Node) {
		var v any
		if err := value.Decode(&v); err != nil {
			d.bad(key, "the grain %s cannot be read: %v", key.Value, err)
			return
		}
		v, ok := jsonable(v, 0)
		if !ok {
			d.bad(key, "the grain %s is neither a word, a number, a list nor made of keys and values", key.Value)
			return
		}
		if key.Value == "roles" {
			d.bad(key, "roles are given to profiles and nodes; the grain roles follows from them")
		}
		all[key.Value] = v
	})
	return all
}

func jsonable(v any, depth int) (any, bool) {
	if depth > 8 {
		return nil, false
	}
	switch v := v.(type) {
	case nil, bool, string, int, int64, uint64:
		return v, true
	case float64:
		return v, v-v == 0 // neither infinite nor not a number
	case time.Time:
		return v.Format(time.RFC3339), true
	case []any:
		for i := range v {
			var ok bool
			if v[i], ok = jsonable(v[i], depth+1); !ok {
				return nil, false
			}
		}
		return v, true
	case map[string]any:
		for key := range v {
			var ok bool
			if v[key], ok = jsonable(v[key], depth+1); !ok {
				return nil, false
			}
		}
		return v, true
	}
	return nil, false
}

// sources reads a list of repositories. An entry is a URL, or keys with values, or what gitfs_remotes and git_pillar
// of a Salt master have: the URL (for a pillar after its branch) as the only key, and under it a list of settings.
func (d *reading) sources(n *yaml.Node, what string) []Source {
	all := []Source{}
	d.list(n, what, func(item *yaml.Node) {
		var s Source
		switch item = resolve(item); {
		case item.Kind == yaml.ScalarNode:
			s = branchAndURL(d.word(item, what))
		case item.Kind == yaml.MappingNode && len(item.Content) == 2 && resolve(item.Content[1]).Kind == yaml.SequenceNode:
			s = branchAndURL(d.word(item.Content[0], what))
			d.list(item.Content[1], s.URL, func(setting *yaml.Node) { d.mapping(setting, s.URL, d.sourceFields(&s)) })
		default:
			known := d.sourceFields(&s)
			known["url"] = func(n *yaml.Node) { s.URL = d.word(n, "url") }
			d.mapping(item, "this repository", known)
		}
		s, err := s.check()
		if err != nil {
			d.bad(item, "%v", err)
		}
		all = append(all, s)
	})
	return all
}

// branchAndURL splits "master https://…" as git_pillar has it.
func branchAndURL(text string) Source {
	if branch, url, ok := strings.Cut(text, " "); ok {
		return Source{Branch: branch, URL: strings.TrimSpace(url)}
	}
	return Source{URL: text}
}

func (d *reading) sourceFields(s *Source) fields {
	all := fields{}
	for _, key := range []string{"root", "branch", "base", "mountpoint"} {
		all[key] = func(n *yaml.Node) { s.set(key, d.word(n, key)) }
	}
	return all
}

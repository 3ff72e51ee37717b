package policy

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bramble/boot"
	"bramble/firstboot/wire"
	"bramble/node"
)

const full = `
names: rack-{{serial}}
default:
  image: lite
  roles: [base]
  cmdline-word: [cgroup_enable=memory]
profiles:
  worker:
    image: full
    roles: [worker]
    layers: [docker]
nodes:
  - serial: 10000000
    name: alpha
    profile: worker
    roles: [db]
  - mac: b8:27:eb:00:00:01
    ignore: true
layers:
  docker:
    repository: https://apt.example/docker
    packages: [docker-ce=5:27]
    keyring: keys/docker.asc
    mount: /opt/docker
users:
  - name: ada
    keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA ada"]
    sudo: true
salt:
  mode: masterless
  way: apt
  id: "{{name}}-{{suffix}}"
  grains: {site: attic, racks: [1, 2]}
  every: 2h
  memory: 400M
  limit: 10m
  remotes:
    - .
    - https://git.example/formula
    - url: git@git.example:own/states.git
      root: salt
      branch: master
      mountpoint: salt://own
    - https://git.example/pillar:
        - root: salt
        - base: master
  pillars:
    - master https://git.example/pillar:
        - root: pillar
`

func TestParse(t *testing.T) {
	p, found := Parse(File, []byte(full))
	if found != nil {
		t.Fatalf("%v", found)
	}
	base := boot.Rules{Commit: "c", Default: boot.Profile{Image: "old", User: "pi"}, Nodes: []boot.NodeRule{{Serial: 1, Name: "first"}}, NameWith: "pi-"}
	r := p.Rules(base)
	if len(base.Nodes) != 1 || base.Default.Image != "old" {
		t.Errorf("the settings' rules were changed: %+v", base)
	}
	want := boot.Profile{Image: "lite", User: "pi", Roles: []string{"base"}, Cmdline: []string{"cgroup_enable=memory"}}
	if diff := cmp.Diff(want, r.Default); diff != "" {
		t.Errorf("default profile (-want +got):\n%s", diff)
	}
	rule, ok := r.For(node.MAC{}, 0x10000000)
	wantRule := boot.NodeRule{Serial: 0x10000000, Name: "alpha", Line: 13, Profile: boot.Profile{Image: "full", Roles: []string{"worker", "db"}, Layers: []string{"docker"}}}
	if diff := cmp.Diff(wantRule, rule); diff != "" || !ok {
		t.Errorf("alpha's rule (-want +got):\n%s", diff)
	}
	if r.Nodes[0].Name != "first" || !r.Nodes[2].Ignore || r.Name.Expand(map[string]string{"serial": "1"}) != "rack-1" {
		t.Errorf("rules: %+v", r)
	}
	got := p.SaltOf(node.State{Name: "alpha", Serial: 0x10000000, Facts: node.Facts{Suffix: "3Bp"}}, time.Hour)
	wantSalt := wire.Salt{Mode: "masterless", ID: "alpha-3Bp", Env: "base", Every: 2 * time.Hour, Memory: 400 << 20, Limit: 10 * time.Minute,
		Grains: map[string]any{"site": "attic", "racks": []any{1, 2}, "roles": []string{"base", "worker", "db"}}}
	if diff := cmp.Diff(wantSalt, got); diff != "" {
		t.Errorf("alpha's salt (-want +got):\n%s", diff)
	}
	if got := p.SaltOf(node.State{Name: "x"}, 0).ID; got != "x-UKN" {
		t.Errorf("without facts the id is %q; want x-UKN", got)
	}
	wantRemotes := []Source{{URL: "."}, {URL: "https://git.example/formula"}, {URL: "git@git.example:own/states.git", Root: "salt", Branch: "master", Mountpoint: "own"},
		{URL: "https://git.example/pillar", Root: "salt", Branch: "master"}}
	if diff := cmp.Diff(wantRemotes, p.Salt.Remotes); diff != "" {
		t.Errorf("remotes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Source{{URL: "https://git.example/pillar", Root: "pillar", Branch: "master"}}, p.Salt.Pillars); diff != "" {
		t.Errorf("pillars (-want +got):\n%s", diff)
	}
	wantLayers := []Layer{{Name: "docker", Repository: "https://apt.example/docker", Suite: "stable", Component: "main", Packages: []string{"docker-ce=5:27"}, Keyring: "keys/docker.asc", Mount: "/opt/docker"}}
	if diff := cmp.Diff(wantLayers, p.Layers); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]wire.LoginUser{{Name: "ada", Keys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA ada"}, Sudo: true}}, p.Users); diff != "" {
		t.Errorf("users (-want +got):\n%s", diff)
	}
}

func TestEmpty(t *testing.T) {
	for _, text := range []string{"", "# nothing but a comment\n", "---\n", "{}", "nodes:\nprofiles:\nsalt:\n"} {
		p, found := Parse(File, []byte(text))
		if found != nil {
			t.Errorf("%q: %v", text, found)
			continue
		}
		if got := p.Rules(boot.Rules{}).Default.Layers; len(got) != 1 || got[0] != SaltLayer {
			t.Errorf("%q: layers %v; want Salt's", text, got)
		}
		if s := p.SaltOf(node.State{Name: "pi-1"}, time.Hour); s.Mode != "masterless" || s.ID != "pi-1" || s.Every != time.Hour || s.Env != "base" {
			t.Errorf("%q: salt %+v", text, s)
		}
	}
}

func TestFindings(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"nodez: []", `bramble.yaml:1: unknown key "nodez" in this file; did you mean "nodes"?`},
		{"default:\n  imege: x", `bramble.yaml:2: unknown key "imege" in default; did you mean "image"?`},
		{"default:\n  image: [x]", "bramble.yaml:2: image has no value"},
		{"default:\n  image:", "bramble.yaml:2: image has no value"},
		{"default: x", "bramble.yaml:1: default is made of keys with values"},
		{"nodes: {a: b}", "bramble.yaml:1: nodes is a list"},
		{"nodes:\n- name: a", "bramble.yaml:2: this entry names no board; add the key serial or mac"},
		{"nodes:\n- serial: xyz", `bramble.yaml:2: serial: "xyz" is not a Raspberry Pi serial number`},
		{"nodes:\n- {mac: 'b8:27:eb:00:00:01', name: A}", "bramble.yaml:2: name is \"A\"; a host name has small letters"},
		{"nodes:\n- {serial: 00000001, profile: gone}", `bramble.yaml:2: there is no profile "gone"`},
		{"nodes:\n- {serial: 00000001, name: a}\n- {serial: 00000002, name: a}", "bramble.yaml:3: the name a is given to another board in line 2"},
		{"nodes:\n- {serial: 00000001}\n- {serial: 00000001}", "bramble.yaml:3: the board with serial 00000001 has a rule in line 2"},
		{"nodes:\n- {serial: 00000001}\n- {serial: 00000002, layers: [x]}", `bramble.yaml:3: there is no layer "x"`},
		{"nodes:\n- {serial: 00000001, serial: 00000002}", `bramble.yaml:2: the key "serial" stands here again`},
		{"names: same", "bramble.yaml:1: names gives every board the same name"},
		{"names: '{{name}}'", "bramble.yaml:1: names: {{name}} is no field; there are {{serial}}, {{mac}}"},
		{"names: 'a_{{serial}}'", "bramble.yaml:1: names makes names like \"a_00000000\""},
		{"users:\n- keys: []", "bramble.yaml:2: this user has no name"},
		{"users:\n- name: root", "bramble.yaml:2: root is not for logging in"},
		{"users:\n- {name: a, keys: [x]}", "bramble.yaml:2: an entry of keys is \"x\"; write a whole public key"},
		{"users:\n- {name: a, sudo: yes}", "bramble.yaml:2: sudo is \"yes\"; write true or false"},
		{"salt:\n  mode: agentless", "bramble.yaml:2: mode is \"agentless\"; write masterless, master, ssh or off"},
		{"salt:\n  mode: master", "bramble.yaml:2: mode: master needs the key master"},
		{"salt:\n  id: pi", "bramble.yaml:2: id gives every node the same minion id"},
		{"salt:\n  every: 60", "bramble.yaml:2: every is \"60\"; write a duration"},
		{"salt:\n  memory: 50%", "bramble.yaml:2: memory is a size like 400M or 1G"},
		{"salt:\n  grains: {roles: [a]}", "bramble.yaml:2: roles are given to profiles and nodes"},
		{"salt:\n  remotes:\n  - git.example/x", "bramble.yaml:3: \"git.example/x\" is not the URL of a repository"},
		{"salt:\n  remotes:\n  - https://x:\n    - ruut: salt", `bramble.yaml:4: unknown key "ruut" in https://x; did you mean "root"?`},
		{"salt:\n  remotes:\n  - {url: https://x, root: ../y}", "bramble.yaml:3: root is a folder inside the repository"},
		{"layers:\n  a: {repository: https://x}", "bramble.yaml:2: layer a needs repository, packages and keyring"},
		{"default:\n  cmdline-word: [a b]", "bramble.yaml:2: an entry of cmdline-word is \"a b\""},
		{"default:\n  overlay: 120%", "bramble.yaml:2: overlay is \"120%\""},
		{"default:\n\timage: x", "bramble.yaml:2: this is not valid YAML"},
		{"a: 1\n---\nb: 2", "a second document begins here"},
		{"&a [*a]", "this file is made of keys with values"},
	} {
		p, found := Parse(File, []byte(test.text))
		if p != nil || !strings.Contains(Join(found), test.want) {
			t.Errorf("%q:\ngot  %s\nwant %s", test.text, Join(found), test.want)
		}
	}
}

// What the manual shows is what is read.
func TestManual(t *testing.T) {
	text, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(strings.ReplaceAll(string(text), "AAAA…", "AAAAC3NzaC1lZDI1NTE5"), "```yaml\n")[1:]
	if len(blocks) != 2 {
		t.Fatalf("docs/config.md has %d pieces of YAML; want two", len(blocks))
	}
	for _, block := range blocks {
		block, _, _ = strings.Cut(block, "```")
		p, found := Parse(File, []byte(block))
		if found != nil || len(p.Salt.Remotes) == 0 || len(p.Salt.Pillars) == 0 {
			t.Errorf("%s\n%s", Join(found), block)
		}
	}
}

func TestParseSource(t *testing.T) {
	for line, want := range map[string]Source{
		"https://x/y":                                       {URL: "https://x/y"},
		"/srv/git/a root=salt/. branch=master":              {URL: "/srv/git/a", Root: "salt", Branch: "master"},
		"ssh://git@x/y base=dev mountpoint=salt://formulas": {URL: "ssh://git@x/y", Branch: "dev", Mountpoint: "formulas"},
	} {
		if got, err := ParseSource(line); err != nil || got != want {
			t.Errorf("%q: got %+v, %v; want %+v", line, got, err, want)
		}
	}
	for _, line := range []string{"", "x", "https://", "https://x y", "https://x root=/etc", "https://x root=../..", "https://x branch=-f", "https://x colour=red", "https://x mountpoint=salt://../a"} {
		if s, err := ParseSource(line); err == nil {
			t.Errorf("%q was taken as %+v", line, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{full, "", "nodes:\n- {serial: 00000001, name: a}", "a: &a [*a]", "x: !!binary aGk=", "? [a]\n: b", "salt: {grains: {a: .nan, b: 2001-01-01, c: {1: 2}}}",
		"default: &d {image: x}\nprofiles: {a: *d}", "<<: {a: b}", "--- \n...\n", "names: '{{serial}}'", "salt: {remotes: [{? {a: b} : [c]}]}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		Syntax("x.sls", text)
		p, found := Parse(File, text)
		if (p == nil) == (len(found) == 0) {
			t.Fatalf("a policy %v with findings %v", p, found)
		}
		for _, one := range found {
			if one.File != File || one.Text == "" || one.Line < 0 || strings.ContainsRune(one.String(), '\x00') {
				t.Errorf("finding %q", one)
			}
		}
		if p == nil {
			return
		}
		s := p.SaltOf(node.State{Name: "pi", MAC: node.MAC{1}}, time.Hour)
		if _, err := json.Marshal(s); err != nil || s.ID == "" {
			t.Errorf("salt %+v: %v", s, err)
		}
		p.Rules(boot.Rules{})
	})
}

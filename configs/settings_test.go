package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

func load(t *testing.T, file string, args ...string) (Settings, error) {
	t.Helper()
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	AddFlags(flags)
	if file != "" {
		name := filepath.Join(t.TempDir(), "bramble.yaml")
		if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", name)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return Load(flags)
}

func TestOrder(t *testing.T) {
	t.Setenv("BRAMBLE_IMAGE", "from-env")
	t.Setenv("BRAMBLE_USER", "fromenv")
	s, err := load(t, "image: from-file\nuser: fromfile\noverlay: 10%\nlease-time: 90s\ninterface: [eth7]\n", "--image", "from-flag")
	if err != nil {
		t.Fatal(err)
	}
	if s.Image != "from-flag" || s.User != "fromenv" || s.Overlay != "10%" || s.NamePrefix != "pi-" || s.LeaseTime != 90*time.Second {
		t.Errorf("flag, environment, file, default gave %q %q %q %q %v", s.Image, s.User, s.Overlay, s.NamePrefix, s.LeaseTime)
	}
	if len(s.Interfaces) != 1 || s.Interfaces[0] != "eth7" {
		t.Errorf("interfaces = %v; want eth7", s.Interfaces)
	}
}

func TestNodes(t *testing.T) {
	s, err := load(t, `
nodes:
  - serial: 8b07bcc6
    name: alpha
    image: other
  - mac: B8:27:EB:00:00:01
    ignore: true
`)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Rules) != 2 || s.Rules[0].Serial != 0x8b07bcc6 || s.Rules[0].Image != "other" || !s.Rules[1].Ignore {
		t.Errorf("rules = %+v", s.Rules)
	}
}

// Every refusal names where the value came from, the key, and what to write instead.
func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		name, file string
		args       []string
		want       []string
	}{
		{"unknown key", "imagee: x\n", nil, []string{"bramble.yaml", `"imagee"`, `did you mean "image"?`}},
		{"unknown key, none near", "zzzzzzzzz: x\n", nil, []string{"bramble.yaml", `"zzzzzzzzz"`, "--help"}},
		{"no yaml", "image: [\n", nil, []string{"bramble.yaml", "YAML"}},
		{"bad number", "http-port: many\n", nil, []string{"bramble.yaml: http-port", "many", "number"}},
		{"bad port", "", []string{"--nbd-port", "70000"}, []string{"--nbd-port", "65535"}},
		{"bad duration", "lease-time: soon\n", nil, []string{"lease-time", "soon", "90s"}},
		{"bad dhcp", "dhcp: prxoy\n", nil, []string{"bramble.yaml: dhcp", "prxoy", "proxy, authoritative or off"}},
		{"range without authoritative", "", []string{"--range", "10.0.0.1-10.0.0.2"}, []string{"--range", "authoritative"}},
		{"authoritative without range", "", []string{"--dhcp", "authoritative"}, []string{"range", "10.0.0.100-10.0.0.199"}},
		{"range upside down", "", []string{"--dhcp", "authoritative", "--range", "10.0.0.9-10.0.0.2"}, []string{"--range"}},
		{"bad login", "user: Pi User\n", nil, []string{"bramble.yaml: user", "Pi User"}},
		{"node without board", "nodes: [{name: a}]\n", nil, []string{"entry 1", "serial or mac"}},
		{"node with a bad key", "nodes: [{serial: 8b07bcc6, nmae: a}]\n", nil, []string{"nodes", "nmae"}},
		{"bad serial", "nodes: [{serial: xyz}]\n", nil, []string{"entry 1", "xyz", "8b07bcc6"}},
		{"missing file", "", []string{"--config", "/nonexistent/b.yaml"}, []string{"/nonexistent/b.yaml"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := load(t, test.file, test.args...)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not contain %q", err, want)
				}
			}
		})
	}
}

func TestAuthoritative(t *testing.T) {
	s, err := load(t, "dhcp: authoritative\nrange: 10.0.0.100 - 10.0.0.199\nrouter: 10.0.0.1\ndns: [10.0.0.1, 9.9.9.9]\n")
	if err != nil {
		t.Fatal(err)
	}
	if s.First.String() != "10.0.0.100" || s.Last.String() != "10.0.0.199" || s.RouterAddr.String() != "10.0.0.1" || len(s.DNSAddrs) != 2 {
		t.Errorf("got %v-%v router %v dns %v", s.First, s.Last, s.RouterAddr, s.DNSAddrs)
	}
}

func FuzzSettings(f *testing.F) {
	f.Add("image: x\nnodes: [{serial: 8b07bcc6}]\n")
	f.Add("nodes: 7\n")
	f.Add("http-port: {a: b}\n")
	f.Add("dhcp: authoritative\nrange: 1-2\n")
	f.Fuzz(func(t *testing.T, text string) {
		flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
		AddFlags(flags)
		v := viper.NewWithOptions(viper.KeyDelimiter("::"))
		for _, o := range options() {
			v.SetDefault(o.name, o.value)
		}
		if parse(v, "f", text) != nil {
			return
		}
		s, err := loader{v: v, flags: flags, file: "f"}.settings()
		if err == nil && s.DHCP == "authoritative" && s.Last.Less(s.First) {
			t.Errorf("accepted the range %v-%v", s.First, s.Last)
		}
	})
}

func TestConfigSources(t *testing.T) {
	s, err := load(t, "config-pillar: ['https://x/p root=pillar']\n", "--config-remote", "https://x/f", "--config-remote", "https://x/p root=salt branch=master")
	if err != nil {
		t.Fatal(err)
	}
	if len(s.States) != 2 || s.States[1].Root != "salt" || s.States[1].Branch != "master" || len(s.Pillars) != 1 || s.Pillars[0].URL != "https://x/p" || s.ConfigPoll != time.Minute {
		t.Errorf("states %+v, pillars %+v", s.States, s.Pillars)
	}
	if s, err := load(t, ""); err != nil || s.States != nil || s.Pillars != nil {
		t.Errorf("by default: %+v %+v %v; want nil", s.States, s.Pillars, err)
	}
	for flag, value := range map[string]string{"config-repo": "x", "config-remote": "https://x colour=red", "config-pillar": "y", "config-poll": "1s"} {
		if _, err := load(t, "", "--"+flag, value); err == nil || !strings.Contains(err.Error(), "--"+flag) {
			t.Errorf("--%s %q: %v; want an error that names the flag", flag, value, err)
		}
	}
}

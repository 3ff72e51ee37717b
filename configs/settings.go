// Package configs reads the appliance's own settings: flags before environment before file before defaults.
// The result is one checked, immutable Settings; nothing is watched and nothing is global.
package configs

import (
	"net/netip"
	"time"

	"github.com/spf13/pflag"

	"bramble/boot"
	"bramble/configs/policy"
)

// DefaultFile is read when it exists and no other file was named.
const DefaultFile = "/etc/bramble/bramble.yaml"

// EnvPrefix starts the name of every environment variable: --state-dir is BRAMBLE_STATE_DIR.
const EnvPrefix = "BRAMBLE"

// Settings is what bramble serve needs to know.
type Settings struct {
	Interfaces []string      `mapstructure:"interface"`
	StateDir   string        `mapstructure:"state-dir"`
	DHCP       string        `mapstructure:"dhcp"` // "proxy", "authoritative" or "off"
	Range      string        `mapstructure:"range"`
	Router     string        `mapstructure:"router"`
	DNS        []string      `mapstructure:"dns"`
	LeaseTime  time.Duration `mapstructure:"lease-time"`
	Image      string        `mapstructure:"image"`
	ImageList  string        `mapstructure:"image-list"`
	User       string        `mapstructure:"user"`
	Keys       []string      `mapstructure:"authorized-keys"` // files
	Overlay    string        `mapstructure:"overlay"`
	NamePrefix string        `mapstructure:"name-prefix"`
	Config     []string      `mapstructure:"config-line"`
	Cmdline    []string      `mapstructure:"cmdline-word"`
	HTTPPort   int           `mapstructure:"http-port"`
	HTTPSPort  int           `mapstructure:"https-port"`
	NBDPort    int           `mapstructure:"nbd-port"`
	Private    bool          `mapstructure:"private"`
	LogLevel   string        `mapstructure:"log-level"`

	ConfigRepo    string        `mapstructure:"config-repo"`
	ConfigBranch  string        `mapstructure:"config-branch"`
	ConfigRemotes []string      `mapstructure:"config-remote"`
	ConfigPillars []string      `mapstructure:"config-pillar"`
	ConfigPoll    time.Duration `mapstructure:"config-poll"`
	ConfigKey     string        `mapstructure:"config-key"`
	ConfigHosts   string        `mapstructure:"config-known-hosts"`

	Nodes []Node `mapstructure:"nodes"` // file only

	// Parsed from the above by Load.
	First, Last netip.Addr      `mapstructure:"-"`
	RouterAddr  netip.Addr      `mapstructure:"-"`
	DNSAddrs    []netip.Addr    `mapstructure:"-"`
	Rules       []boot.NodeRule `mapstructure:"-"`
	States      []policy.Source `mapstructure:"-"` // of ConfigRemotes; nil when there are none
	Pillars     []policy.Source `mapstructure:"-"` // of ConfigPillars
}

// Node is what the file says of one board.
type Node struct {
	Serial  string   `mapstructure:"serial"`
	MAC     string   `mapstructure:"mac"`
	Name    string   `mapstructure:"name"`
	Ignore  bool     `mapstructure:"ignore"`
	Image   string   `mapstructure:"image"`
	User    string   `mapstructure:"user"`
	Keys    []string `mapstructure:"keys"` // authorized_keys lines
	Config  []string `mapstructure:"config-line"`
	Cmdline []string `mapstructure:"cmdline-word"`
	Overlay string   `mapstructure:"overlay"`
}

type option struct {
	name, short string
	value       any
	help        string
}

// options is the one list of settings: flags, environment, defaults and the check for unknown keys follow from it.
func options() []option {
	return []option{
		{"interface", "i", []string{}, "interface to serve on, may be given several times (default: the only wired one with an address)"},
		{"state-dir", "", "/var/lib/bramble", "where images, journal, leases and keys are kept"},
		{"dhcp", "", "proxy", "proxy: beside a router that gives the addresses; authoritative: bramble gives them; off"},
		{"range", "", "", "addresses to give out with --dhcp=authoritative, like 10.0.0.100-10.0.0.199"},
		{"router", "", "", "default gateway that --dhcp=authoritative names (default: none)"},
		{"dns", "", []string{}, "name servers that --dhcp=authoritative names"},
		{"lease-time", "", time.Hour, "how long an address of --dhcp=authoritative is given for"},
		{"image", "", "raspios-lite-arm64", "image for boards without a rule of their own"},
		{"image-list", "", "https://downloads.raspberrypi.com/os_list_imagingutility_v4.json", "catalogue of images that names are looked up in"},
		{"user", "", "pi", "login on the nodes"},
		{"authorized-keys", "", []string{}, "file with public keys that may log in, may be given several times (default: those of whoever started bramble)"},
		{"overlay", "", "50%", "how much of a node's memory its changes to the root may take"},
		{"name-prefix", "", "pi-", "host names of boards without a rule: this and the serial number"},
		{"config-line", "", []string{}, "line added to every config.txt"},
		{"cmdline-word", "", []string{}, "word added to every kernel command line"},
		{"http-port", "", 8080, "port of the page, the API and stage 1"},
		{"https-port", "", 8443, "port of the same page and API over TLS, for changes from other hosts"},
		{"nbd-port", "", 10809, "port that nodes read their root from"},
		{"private", "", false, "reading the page and the API needs the admin token, too"},
		{"config-repo", "", "", "git repository with bramble.yaml: https or ssh URL, or a path (default: the appliance's own, begun with a starter)"},
		{"config-branch", "", "", "its branch (default: main of the own one, HEAD of another)"},
		{"config-remote", "", []string{}, "git repository with Salt states, as \"URL root=FOLDER branch=NAME mountpoint=salt://FOLDER\"; may be given several times, the first that has a file wins (default: the folder salt of the repository with bramble.yaml)"},
		{"config-pillar", "", []string{}, "git repository with Salt pillars, written likewise (default: the folder pillar)"},
		{"config-poll", "", time.Minute, "time between looks at repositories elsewhere"},
		{"config-key", "", "", "file with the SSH key for ssh URLs (default: one that bramble makes in the state directory)"},
		{"config-known-hosts", "", "", "known_hosts file for ssh URLs (default: config/known_hosts in the state directory)"},
		{"log-level", "", "info", "debug, info, warn or error"},
	}
}

// fileOnly are the keys that a file can have and a flag can't.
var fileOnly = []string{"nodes"}

// AddFlags registers a flag for every setting, and --config.
func AddFlags(flags *pflag.FlagSet) {
	flags.String("config", "", "settings file (default "+DefaultFile+", if it exists)")
	for _, o := range options() {
		switch v := o.value.(type) {
		case string:
			flags.StringP(o.name, o.short, v, o.help)
		case int:
			flags.IntP(o.name, o.short, v, o.help)
		case bool:
			flags.BoolP(o.name, o.short, v, o.help)
		case time.Duration:
			flags.DurationP(o.name, o.short, v, o.help)
		case []string:
			flags.StringArrayP(o.name, o.short, v, o.help)
		}
	}
}

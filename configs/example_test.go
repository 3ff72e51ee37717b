package configs

import (
	"os"
	"regexp"
	"testing"

	"github.com/spf13/viper"
)

// The packaged file shows every key, commented out. Both it and the file with all keys in force must load.
func TestPackagedFile(t *testing.T) {
	text, err := os.ReadFile("../packaging/bramble.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := load(t, string(text)); err != nil || len(s.Nodes) != 0 {
		t.Errorf("as packaged: %d nodes, %v; want the defaults", len(s.Nodes), err)
	}
	// prose has a blank after its #, keys and list items have not, or are indented by two
	all := regexp.MustCompile(`(?m)^#([a-z]| {2})`).ReplaceAllString(string(text), "$1")
	if _, err := load(t, all); err == nil {
		t.Error("a range is accepted beside dhcp: proxy; the file should say that it goes with authoritative only")
	}
	all = regexp.MustCompile(`(?m)^dhcp: proxy$`).ReplaceAllString(all, "dhcp: authoritative")
	s, err := load(t, all)
	if err != nil {
		t.Fatalf("with all keys in force: %v", err)
	}
	if len(s.Rules) != 2 || s.Rules[0].Serial != 0x8b07bcc6 || !s.Rules[1].Ignore {
		t.Errorf("rules = %+v; want the file's two", s.Rules)
	}
	v := viper.NewWithOptions(viper.KeyDelimiter("::"))
	if err := parse(v, "bramble.yaml", all); err != nil {
		t.Fatal(err)
	}
	for _, o := range options() {
		if !v.InConfig(o.name) {
			t.Errorf("packaging/bramble.yaml lacks the key %s", o.name)
		}
	}
}

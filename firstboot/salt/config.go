package salt

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"bramble/firstboot/wire"
)

// Modes of wire.Salt.
const (
	Masterless = "masterless" // salt-call --local, with the files of the configuration
	Master     = "master"     // a salt-minion, and a salt-master somewhere
	SSH        = "ssh"        // salt-ssh comes from outside: nothing to do here
	Off        = "off"
)

// Dirs is where a run finds and keeps its files.
type Dirs struct {
	States string // of the pinned commit
	Pillar string // of the pinned commit
	Work   string // configuration and cache of masterless runs; made when missing
	Etc    string // Salt's own configuration, for the mode "master": /etc/salt
}

// minion is the configuration of a salt-minion, or of salt-call. JSON is YAML, so no text of anybody's can break out.
func minion(s wire.Salt, d Dirs) map[string]any {
	env := s.Env
	if env == "" {
		env = "base"
	}
	c := map[string]any{
		"id":                  s.ID,
		"saltenv":             env,
		"pillarenv":           env,
		"hash_type":           "sha256",
		"enable_fqdns_grains": false, // a look-up by name for every address, which nobody at home answers
		"start_event_grains":  []string{"bramble"},
	}
	if len(s.Grains) > 0 {
		c["grains"] = s.Grains
	}
	if s.Mode == Master {
		c["master"] = s.Master
		c["master_finger"] = s.Finger
		c["master_tries"] = -1
		c["rejected_retry"] = true
		return c
	}
	c["file_client"] = "local"
	c["file_roots"] = map[string][]string{env: {d.States}}
	c["pillar_roots"] = map[string][]string{env: {d.Pillar}}
	c["log_file"] = "/dev/null"
	for name, dir := range map[string]string{"root_dir": "", "cachedir": "cache", "pki_dir": "pki", "sock_dir": "sock"} {
		c[name] = filepath.Join(d.Work, dir)
	}
	return c
}

// configure writes the configuration and returns the folder that --config-dir names.
func configure(s wire.Salt, d Dirs) (dir string, err error) {
	dir, name := filepath.Join(d.Work, "conf"), "minion"
	if s.Mode == Master {
		dir, name = d.Etc, "minion.d/00-bramble.conf"
	}
	file := filepath.Join(dir, name)
	text, err := json.MarshalIndent(minion(s, d), "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o700)
	}
	if err == nil {
		err = os.WriteFile(file, append(text, '\n'), 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("the configuration of Salt cannot be written: %w", err)
	}
	return dir, nil
}

package policy

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// DefaultEvery is the time between highstates when nobody says anything.
const DefaultEvery = time.Hour

var templated = regexp.MustCompile(`\{\{|\{%|\{#|^#!`)

// Templated reports whether a file of Salt is more than YAML: only Salt on the node knows what it says.
func Templated(text []byte) bool { return templated.Match(text) }

// Schedule finds the highstate in a pillar file's schedule, as a salt-minion would run it; false when there is none.
func Schedule(text []byte) (every time.Duration, ok bool) {
	if Templated(text) || !bytes.Contains(text, []byte("schedule")) || len(text) > maxFile {
		return 0, false
	}
	var doc struct {
		Schedule map[string]yaml.Node `yaml:"schedule"`
	}
	if yaml.Unmarshal(text, &doc) != nil {
		return 0, false
	}
	for _, n := range doc.Schedule {
		var job struct {
			Function string `yaml:"function"`
			Enabled  *bool  `yaml:"enabled"`
			Seconds  string `yaml:"seconds"`
			Minutes  string `yaml:"minutes"`
			Hours    string `yaml:"hours"`
			Days     string `yaml:"days"`
		}
		if n.Decode(&job) != nil || !slices.Contains([]string{"state.highstate", "state.apply"}, job.Function) || job.Enabled != nil && !*job.Enabled {
			continue
		}
		d := times(job.Seconds, time.Second) + times(job.Minutes, time.Minute) + times(job.Hours, time.Hour) + times(job.Days, 24*time.Hour)
		if d >= time.Minute && (!ok || d < every) {
			every, ok = d, true
		}
	}
	return every, ok
}

func times(number string, unit time.Duration) time.Duration {
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(n) * unit
}

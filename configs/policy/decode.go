package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"bramble/configs/words"
)

const (
	maxFile     = 1 << 20
	maxFindings = 20
)

// decoder walks a YAML document and collects what is wrong with it.
type decoder struct {
	file  string
	found []Finding
}

func (d *decoder) bad(n *yaml.Node, format string, args ...any) {
	if len(d.found) < maxFindings {
		d.found = append(d.found, Finding{File: d.file, Line: n.Line, Text: fmt.Sprintf(format, args...)})
	}
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// document parses text; nil when it is empty or no YAML.
func (d *decoder) document(text []byte) *yaml.Node {
	if len(text) > maxFile {
		d.found = append(d.found, Finding{File: d.file, Text: fmt.Sprintf("the file has %d bytes; more than %d are not read", len(text), maxFile)})
		return nil
	}
	stream := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	err := stream.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		var more yaml.Node
		if err = stream.Decode(&more); errors.Is(err, io.EOF) {
			if len(doc.Content) == 0 {
				return nil
			}
			return doc.Content[0]
		}
		if err == nil {
			d.bad(&more, "a second document begins here; put everything into one")
			return nil
		}
	}
	d.found = append(d.found, syntax(d.file, err))
	return nil
}

// syntax makes a finding of what the YAML parser says.
func syntax(file string, err error) Finding {
	f := Finding{File: file, Text: "this is not valid YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		f.Line, _ = strconv.Atoi(m[1])
		f.Text = "this is not valid YAML: " + strings.TrimPrefix(err.Error(), m[0])
	}
	return f
}

// Syntax reports whether text is YAML at all; nil when it is. It is for Salt's files that have no template in them.
func Syntax(file string, text []byte) []Finding {
	stream := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc yaml.Node
		switch err := stream.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return []Finding{syntax(file, err)}
		}
	}
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

type fields map[string]func(*yaml.Node)

// mapping calls the function of each key of n. A key that is unknown or stands twice is a finding.
func (d *decoder) mapping(n *yaml.Node, what string, known fields) {
	d.pairs(n, what, func(key, value *yaml.Node) {
		if read, ok := known[key.Value]; ok {
			read(value)
			return
		}
		all := slices.Sorted(maps.Keys(known))
		d.bad(key, "unknown key %q in %s%s", key.Value, what, words.DidYouMean(key.Value, all, "there are "+strings.Join(all, ", ")))
	})
}

// pairs calls each for every key of n, in the order of the file.
func (d *decoder) pairs(n *yaml.Node, what string, each func(key, value *yaml.Node)) {
	n = resolve(n)
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.bad(n, "%s is made of keys with values; write key: value", what)
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := resolve(n.Content[i]), n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			d.bad(key, "a key of %s is a word", what)
			continue
		}
		if first, twice := seen[key.Value]; twice {
			d.bad(key, "the key %q stands here again; the first is in line %d, remove one", key.Value, first)
			continue
		}
		seen[key.Value] = key.Line
		each(key, value)
	}
}

func (d *decoder) list(n *yaml.Node, what string, each func(*yaml.Node)) {
	n = resolve(n)
	if isNull(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.bad(n, "%s is a list; write each entry in a line of its own that begins with -", what)
		return
	}
	for _, item := range n.Content {
		each(item)
	}
}

// word is a scalar as it is written: a serial number is no integer here.
func (d *decoder) word(n *yaml.Node, what string) string {
	n = resolve(n)
	if n.Kind != yaml.ScalarNode || isNull(n) || n.Value == "" {
		d.bad(n, "%s has no value; write a word, or leave the key out", what)
		return ""
	}
	if strings.ContainsAny(n.Value, "\n\r\x00") {
		d.bad(n, "%s is more than one line", what)
		return ""
	}
	return n.Value
}

func (d *decoder) words(n *yaml.Node, what string) (all []string) {
	d.list(n, what, func(item *yaml.Node) { all = append(all, d.word(item, "an entry of "+what)) })
	return all
}

// is reads a word that must satisfy a rule; wanted says the rule.
func (d *decoder) is(n *yaml.Node, what string, rule func(string) bool, wanted string) string {
	w := d.word(n, what)
	if w != "" && !rule(w) {
		d.bad(n, "%s is %q; %s", what, w, wanted)
	}
	return w
}

func (d *decoder) oneOf(n *yaml.Node, what string, all ...string) string {
	last := len(all) - 1
	return d.is(n, what, func(w string) bool { return slices.Contains(all, w) }, "write "+strings.Join(all[:last], ", ")+" or "+all[last])
}

func (d *decoder) flag(n *yaml.Node, what string) bool {
	return d.oneOf(n, what, "true", "false") == "true"
}

func (d *decoder) duration(n *yaml.Node, what string) time.Duration {
	w := d.word(n, what)
	if w == "" || w == "0" {
		return 0
	}
	v, err := time.ParseDuration(w)
	if err != nil || v < time.Minute {
		d.bad(n, "%s is %q; write a duration of a minute or more like 15m or 1h, or 0", what, w)
		return 0
	}
	return v
}

var sizeForm = regexp.MustCompile(`^([0-9]{1,6})([kMG])$`)

func (d *decoder) size(n *yaml.Node, what string) int64 {
	m := sizeForm.FindStringSubmatch(d.word(n, what))
	if m == nil {
		d.bad(n, "%s is a size like 400M or 1G", what)
		return 0
	}
	v, _ := strconv.ParseInt(m[1], 10, 64)
	return v << map[string]int{"k": 10, "M": 20, "G": 30}[m[2]]
}

package boot

import (
	"fmt"
	"slices"
	"strings"
)

// Template is a text with fields in it, such as "{{name}}-{{suffix}}". There is nothing but fields: no functions, no
// conditions, no white space. The zero Template expands to nothing.
type Template struct{ parts []part }

// part is a piece of text, or a field if field is set.
type part struct{ text, field string }

// ParseTemplate reads a template whose fields are among those given. Its text has what a name can have: letters,
// digits, "-", "_" and ".".
func ParseTemplate(s string, fields ...string) (Template, error) {
	var t Template
	for rest := s; rest != ""; {
		text, after, open := strings.Cut(rest, "{{")
		if i := strings.IndexFunc(text, func(r rune) bool { return !nameRune(r) }); i >= 0 {
			return Template{}, fmt.Errorf("%q cannot stand in a name; write letters, digits, -, _ and ., and fields like {{%s}}", text[i:i+1], fields[0])
		}
		if text != "" {
			t.parts = append(t.parts, part{text: text})
		}
		if !open {
			break
		}
		field, end, closed := strings.Cut(after, "}}")
		if !closed {
			return Template{}, fmt.Errorf("%q has a {{ without its }}", s)
		}
		if !slices.Contains(fields, field) {
			return Template{}, fmt.Errorf("{{%s}} is no field; there are {{%s}}", field, strings.Join(fields, "}}, {{"))
		}
		t.parts = append(t.parts, part{field: field})
		rest = end
	}
	return t, nil
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
}

// Expand puts values in the place of the fields.
func (t Template) Expand(values map[string]string) string {
	var b strings.Builder
	for _, p := range t.parts {
		b.WriteString(p.text)
		b.WriteString(values[p.field])
	}
	return b.String()
}

// IsZero reports whether there is no template.
func (t Template) IsZero() bool { return len(t.parts) == 0 }

// NameFields are the fields of Rules.Name: the serial number, or what stands for it while it is unknown, and the low
// half of the MAC address.
func NameFields() []string { return []string{"serial", "mac"} }

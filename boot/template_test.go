package boot

import (
	"strings"
	"testing"
)

func TestTemplate(t *testing.T) {
	values := map[string]string{"name": "alpha", "suffix": "3Bp"}
	for _, test := range []struct{ text, want, problem string }{
		{"{{name}}-{{suffix}}", "alpha-3Bp", ""},
		{"rack1.{{name}}", "rack1.alpha", ""},
		{"{{name}}{{name}}", "alphaalpha", ""},
		{"fixed", "fixed", ""},
		{"", "", ""},
		{"{{nam}}", "", "{{nam}} is no field; there are {{name}}, {{suffix}}"},
		{"{{ name }}", "", "no field"},
		{"{{name", "", "without its }}"},
		{"name}}", "", `"}" cannot stand in a name`},
		{"a/{{name}}", "", `"/" cannot stand in a name`},
		{"{{name}} ", "", `" " cannot stand in a name`},
		{"{{{name}}}", "", "no field"},
		{"{{}}", "", "no field"},
	} {
		got, err := ParseTemplate(test.text, "name", "suffix")
		switch {
		case test.problem == "" && err != nil:
			t.Errorf("%q: %v", test.text, err)
		case test.problem != "" && (err == nil || !strings.Contains(err.Error(), test.problem)):
			t.Errorf("%q: error %v; want one with %q", test.text, err, test.problem)
		case got.Expand(values) != test.want:
			t.Errorf("%q expands to %q; want %q", test.text, got.Expand(values), test.want)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"{{name}}-{{suffix}}", "{{{{name}}}}", "a{{", "}}{{name}}", "é{{name}}", "{{name}\x00}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tpl, err := ParseTemplate(s, "name", "suffix")
		if err != nil {
			if !tpl.IsZero() {
				t.Errorf("%q: an error and a template", s)
			}
			return
		}
		got := tpl.Expand(map[string]string{"name": "N", "suffix": "S"})
		want := strings.NewReplacer("{{name}}", "N", "{{suffix}}", "S").Replace(s)
		if got != want || strings.ContainsFunc(got, func(r rune) bool { return !nameRune(r) }) {
			t.Errorf("%q expands to %q; want %q, and a name", s, got, want)
		}
	})
}

package salt

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// Shapes of salt-call's JSON, taken from Salt 3008.4.
const (
	green  = `{"local": {"file_|-motd_|-/etc/motd_|-managed": {"__id__": "motd", "__sls__": "base", "__run_num__": 0, "result": true, "changes": {"diff": "New file"}, "comment": "File /etc/motd updated"}, "service_|-ssh_|-ssh_|-running": {"__id__": "ssh", "__sls__": "base.ssh", "__run_num__": 1, "result": true, "changes": {}, "comment": ""}}}`
	failed = `{"local": {"cmd_|-b_|-false_|-run": {"__id__": "b", "__sls__": "base", "__run_num__": 1, "result": false, "changes": {"retcode": 1}, "comment": "Command \"false\" run"}, "cmd_|-a_|-x_|-run": {"__id__": "a", "__sls__": "base.x", "__run_num__": 0, "result": false, "changes": {}, "comment": ["one", "two"]}, "test_|-c_|-c_|-nop": {"__id__": "c", "__sls__": "base", "__run_num__": 2, "result": true, "changes": {}, "comment": ""}}}`
	broken = `{"local": ["Rendering SLS 'base:web' failed: Jinja variable 'x' is undefined"]}`
	none   = `{"local": {"no_|-states_|-states_|-None": {"result": false, "comment": "No Top file or master_tops data matches found.", "name": "No States", "changes": {}, "__run_num__": 0}}}`
)

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		stdout                  string
		end                     End
		ok                      bool
		states, changed, failed int
		text                    string
	}{
		"green":                   {green, End{}, true, 2, 1, 0, ""},
		"green after a warning":   {"[WARNING] old Python\n" + green, End{}, true, 2, 1, 0, ""},
		"two states failed":       {failed, End{Code: 2}, false, 3, 1, 2, "2 of 3 states failed; the first is a in base.x"},
		"failed though code 0":    {failed, End{}, false, 3, 1, 2, "2 of 3 states failed"},
		"does not render":         {broken, End{Code: 1}, false, 0, 0, 0, "Jinja variable 'x' is undefined"},
		"the list with code 0":    {broken, End{}, false, 0, 0, 0, "cannot be rendered or compiled"},
		"top matches nothing":     {none, End{Code: 2}, false, 0, 0, 0, "The top file names no state"},
		"pillar":                  {`{"local": ["Pillar failed to render"]}`, End{Code: 5}, false, 0, 0, 0, "The pillar cannot be compiled"},
		"pillar, states applied":  {green, End{Code: 5}, false, 2, 1, 0, "the pillar cannot be compiled"},
		"green with another code": {green, End{Code: 1}, false, 2, 1, 0, "ended with the code 1"},
		"a string":                {`{"local": "Minion did not return"}`, End{Code: 1}, false, 0, 0, 0, "Minion did not return"},
		"nothing printed":         {"", End{Code: 1}, false, 0, 0, 0, "no result"},
		"killed by a signal":      {"", End{Code: 137}, false, 0, 0, 0, "signal 9"},
		"too much memory":         {"", End{Code: 137, Killed: ByMemory}, false, 0, 0, 0, "more memory"},
		"too long":                {green, End{Code: 143, Killed: ByTime}, false, 2, 1, 0, "longer than it may"},
		"no states at all":        {`{"local": {}}`, End{}, false, 0, 0, 0, "empty"},
		"no local":                {`{"other": {}}`, End{}, false, 0, 0, 0, "no result"},
	} {
		r := Parse([]byte(c.stdout), c.end)
		if r.OK != c.ok || r.States != c.states || r.Changed != c.changed || len(r.Failed) != c.failed || !strings.Contains(r.Text, c.text) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if f := Parse([]byte(failed), End{Code: 2}).Failed; len(f) != 2 || f[0].ID != "a" || f[1].ID != "b" || f[1].File != "base" || !strings.Contains(f[1].Comment, `Command "false" run`) {
		t.Errorf("failed states: %+v; want a, then b, as they ran", f)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{green, failed, broken, none, "", "{", `{"local":null}`} {
		f.Add([]byte(s), 0)
		f.Add([]byte(s), 2)
	}
	f.Fuzz(func(t *testing.T, stdout []byte, code int) {
		r := Parse(stdout, End{Code: code})
		if r.OK && (code != 0 || len(r.Failed) > 0 || r.States == 0) {
			t.Errorf("code %d, %q is taken for good: %+v", code, stdout, r)
		}
		if r.Text == "" || len(r.Text) > 2*maxText || !utf8.ValidString(r.Text) || strings.ContainsAny(r.Text, "\n\r\x00") || len(r.Failed) > maxFailed {
			t.Errorf("code %d, %q gives the sentence %q", code, stdout, r.Text)
		}
	})
}

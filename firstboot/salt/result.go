package salt

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"bramble/firstboot/wire"
)

// Result is what one highstate came to.
type Result struct {
	OK      bool   // every state is as it should be
	Text    string // one sentence
	States  int    // how many ran
	Changed int    // how many changed something
	Failed  []wire.FailedState
	Peak    int64 // most memory, bytes; 0 when not known
	Took    time.Duration
}

// End is how salt-call ended.
type End struct {
	Code   int   // exit code with --retcode-passthrough; 128 and a signal's number when one killed it
	Killed Cause // by whom or what, when it was killed
}

// Cause is why a run was killed.
type Cause string

// What kills a run.
const (
	ByNobody Cause = ""
	ByMemory Cause = "memory" // it wanted more than wire.Salt.Memory
	ByTime   Cause = "time"   // it took longer than wire.Salt.Limit
)

// Exit codes of Salt (salt.defaults.exitcodes) that say more than that something failed.
const (
	codeStates = 2 // EX_STATE_FAILURE
	codePillar = 5 // EX_PILLAR_FAILURE
)

// Bounds of what is reported: the rest is in the run's output.
const (
	maxFailed = 50
	maxText   = 500
)

// nothing is the state that Salt makes up when the top file matches nothing.
const nothing = "no_|-states_|-states_|-None"

// Parse reads a highstate's result out of both, what salt-call --out=json printed and how it ended: code 0 alone does not
// mean that all is well, nor does a dictionary.
func Parse(stdout []byte, end End) Result {
	r := parse(stdout, end.Code)
	switch {
	case end.Killed == ByMemory:
		r.OK, r.Text = false, "Salt wanted more memory than it may have, and was stopped; the setting is salt.memory."
	case end.Killed == ByTime:
		r.OK, r.Text = false, "Salt took longer than it may, and was stopped; the setting is salt.limit."
	}
	return r
}

func parse(stdout []byte, code int) Result {
	local, err := answer(stdout)
	if err != nil {
		if code > 128 {
			return Result{Text: fmt.Sprintf("Salt was killed by the signal %d before it said anything.", code-128)}
		}
		return Result{Text: fmt.Sprintf("Salt ended with the code %d, and what it printed is no result: %v.", code, err)}
	}
	var states map[string]state
	if err := json.Unmarshal(local, &states); err == nil && states != nil {
		return judge(states, code)
	}
	what := "The states cannot be rendered or compiled: "
	if code == codePillar {
		what = "The pillar cannot be compiled: "
	}
	return Result{Text: sentence(what + words(local))}
}

// answer is what salt-call prints under "local". Warnings may stand before it.
func answer(stdout []byte) (json.RawMessage, error) {
	if i := bytes.IndexByte(stdout, '{'); i > 0 {
		stdout = stdout[i:]
	}
	var all struct {
		Local json.RawMessage `json:"local"`
	}
	if err := json.Unmarshal(stdout, &all); err != nil {
		return nil, err
	}
	if len(all.Local) == 0 {
		return nil, fmt.Errorf("there is nothing under %q", "local")
	}
	return all.Local, nil
}

// state is one state's result. Changes and Comment come in every shape that modules can think of.
type state struct {
	ID      string          `json:"__id__"`
	File    string          `json:"__sls__"`
	Run     int             `json:"__run_num__"`
	Name    string          `json:"name"`
	Result  *bool           `json:"result"` // nil: would change something, with test=True
	Changes json.RawMessage `json:"changes"`
	Comment json.RawMessage `json:"comment"`
}

func judge(states map[string]state, code int) Result {
	if _, ok := states[nothing]; ok {
		return Result{Text: "The top file names no state for this node, so nothing was applied; see salt/top.sls."}
	}
	r := Result{States: len(states)}
	var failed []state
	for key, s := range states {
		if s.ID == "" {
			s.ID = keyID(key)
		}
		if c := string(s.Changes); c != "" && c != "{}" && c != "[]" && c != "null" && c != `""` {
			r.Changed++
		}
		if s.Result != nil && !*s.Result {
			failed = append(failed, s)
		}
	}
	slices.SortFunc(failed, func(a, b state) int { return cmp.Or(cmp.Compare(a.Run, b.Run), cmp.Compare(a.ID, b.ID)) })
	for _, s := range failed[:min(len(failed), maxFailed)] {
		r.Failed = append(r.Failed, wire.FailedState{ID: line(s.ID), File: line(s.File), Comment: words(s.Comment)})
	}
	switch {
	case len(failed) > 0:
		first := r.Failed[0]
		r.Text = sentence(fmt.Sprintf("%d of %d states failed; the first is %s in %s: %s", len(failed), r.States, first.ID, first.File, first.Comment))
	case code == codePillar:
		r.Text = "Salt says that the pillar cannot be compiled, though all states were applied."
	case code != 0:
		r.Text = fmt.Sprintf("Salt ended with the code %d, though no state failed.", code)
	case r.States == 0:
		r.Text = "The states of this node are empty, so nothing was applied."
	default:
		r.OK = true
		r.Text = fmt.Sprintf("%d states are applied; %d changed something.", r.States, r.Changed)
	}
	return r
}

// keyID takes a state's ID out of "module_|-id_|-name_|-function".
func keyID(key string) string {
	parts := strings.Split(key, "_|-")
	return parts[min(1, len(parts)-1)]
}

// words makes text of a string, of a list of strings, or of whatever it is.
func words(raw json.RawMessage) string {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return line(one)
	}
	var many []string
	if json.Unmarshal(raw, &many) == nil {
		return line(strings.Join(many, " "))
	}
	return line(string(raw))
}

// line makes one printable line of bounded length.
func line(s string) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, " "))), " ")
	if len(s) > maxText {
		s = strings.TrimSpace(strings.ToValidUTF8(s[:maxText-len("…")], "")) + "…"
	}
	return s
}

func sentence(s string) string {
	s = strings.TrimRight(line(s), " :")
	if !strings.HasSuffix(s, ".") && !strings.HasSuffix(s, "…") {
		s += "."
	}
	return s
}

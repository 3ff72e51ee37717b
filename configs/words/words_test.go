package words

import (
	"strings"
	"testing"
)

func TestValid(t *testing.T) {
	for s, want := range map[string][2]bool{
		"pi-1": {true, true}, "PI1": {true, false}, "": {}, "-a": {}, "a-": {false, true}, "a_b": {false, true}, "a.b": {}, "1a": {true, false},
		strings.Repeat("a", 63): {true, false}, strings.Repeat("a", 64): {}, strings.Repeat("a", 32): {true, true},
	} {
		if got := [2]bool{ValidHost(s), ValidLogin(s)}; got != want {
			t.Errorf("%q: host name, login: %v; want %v", s, got, want)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	known := []string{"image", "name", "overlay", "user"}
	for word, want := range map[string]string{
		"imege": `; did you mean "image"?`, "nmae": `; did you mean "name"?`, "": "; look it up", "u": "; look it up", "users": `; did you mean "user"?`, "something": "; look it up", strings.Repeat("x", 1<<20): "; look it up",
	} {
		if got := DidYouMean(word, known, "look it up"); got != want {
			t.Errorf("%.20q: got %q; want %q", word, got, want)
		}
	}
}

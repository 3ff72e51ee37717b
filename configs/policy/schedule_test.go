package policy

import (
	"testing"
	"time"
)

func TestSchedule(t *testing.T) {
	for _, test := range []struct {
		text string
		want time.Duration
	}{
		{"schedule:\n  highstate:\n    function: state.highstate\n    minutes: 60\n", time.Hour},
		{"schedule:\n  a: {function: state.apply, hours: 2}\n  b: {function: state.apply, hours: 1, minutes: 30}\n", 90 * time.Minute},
		{"schedule:\n  a: {function: state.apply, hours: 2, enabled: false}\n", 0},
		{"schedule:\n  a: {function: test.ping, minutes: 5}\n", 0},
		{"schedule:\n  a: {function: state.apply, seconds: 5}\n", 0},
		{"schedule:\n  a: {function: state.apply, minutes: {{ x }}}\n", 0},
		{"#!py\nschedule = 1", 0},
		{"schedule: [a]", 0},
		{"other: 1", 0},
	} {
		if got, ok := Schedule([]byte(test.text)); got != test.want || ok != (test.want != 0) {
			t.Errorf("%q: %v, %v; want %v", test.text, got, ok, test.want)
		}
	}
}

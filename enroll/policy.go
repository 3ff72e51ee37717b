package enroll

import (
	"fmt"
	"time"

	"bramble/node"
)

// Policy is who may join.
type Policy string

// The policies. A known board is one that the configuration names, or that had joined before.
const (
	Window  Policy = "window"  // known boards always; others for an hour after the start, and when the admin opens the window
	Known   Policy = "known"   // known boards only
	Approve Policy = "approve" // known boards always; others when the admin has compared their code
	Anybody Policy = "open"    // every board that boots here
)

// FirstWindow is how long the window is open after the start.
const FirstWindow = time.Hour

// MaxWindow is the longest that the window can be opened for.
const MaxWindow = 7 * 24 * time.Hour

// ParsePolicy reads a policy's word.
func ParsePolicy(s string) (Policy, error) {
	switch p := Policy(s); p {
	case Window, Known, Approve, Anybody:
		return p, nil
	}
	return "", fmt.Errorf("%q is not a policy for enrolment; write window, known, approve or open", s)
}

// known tells whether a board has been here before, or is named by the owner. Only an agent that had a certificate
// reports facts: they are the mark of a board that had joined.
func (d *Desk) known(s node.State) bool {
	return s.Facts != node.Facts{} || d.Named != nil && d.Named(s.MAC, s.Serial)
}

// closes is when the window closes.
func (d *Desk) closes() time.Time {
	if first := d.Started.Add(FirstWindow); !d.Started.IsZero() && first.After(d.until) && !d.shut {
		return first
	}
	return d.until
}

// decide says whether a board may join now, must wait for the admin, or why not.
func (d *Desk) decide(s node.State, now time.Time) (wait bool, why string) {
	switch {
	case d.Policy == Anybody, d.known(s):
		return false, ""
	case d.Policy == Approve:
		return true, ""
	case d.Policy == Known:
		return false, fmt.Sprintf("%s is not known, and the policy is that known boards join only. Name its serial number or MAC address in the configuration, then cycle its power.", s.Name)
	case now.Before(d.closes()):
		return false, ""
	}
	return false, fmt.Sprintf("%s is not known, and the window for new boards is closed. Open it with bramble window 1h, then cycle the board's power.", s.Name)
}

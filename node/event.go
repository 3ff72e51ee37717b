package node

import (
	"net/netip"
	"time"
)

// Kind says what an Event is about. Kinds are stored in the journal: they are never renamed.
type Kind string

// What can happen to a board, in the order of a boot; then what can happen to the appliance and its segment.
const (
	BootStarted Kind = "boot.started" // a DISCOVER opened a new boot; Image, Commit and Text say what it will get and why
	BootRefused Kind = "boot.refused" // a netboot client was not served; Text says why
	Offered     Kind = "dhcp.offered" // an OFFER was sent; File is "rom" or "bootcode" when the stage is known
	Leased      Kind = "dhcp.leased"  // authoritative mode gave out Addr
	FileSent    Kind = "tftp.sent"    // File was read to its end: Bytes, Took, Resent
	FileMissed  Kind = "tftp.missed"  // File does not exist
	FileLost    Kind = "tftp.lost"    // the client vanished while it read File
	StepDone    Kind = "stage1.done"  // stage 1 finished the step named in Step
	StepFailed  Kind = "stage1.failed"
	RootOpened  Kind = "root.opened" // the node's block connection was opened
	RootClosed  Kind = "root.closed"
	Login       Kind = "node.login" // the node says: one can log in

	AgentDone   Kind = "agent.done"     // the agent finished Step; Facts with the step "facts", Commit with "salt"
	AgentFailed Kind = "agent.failed"   // Step failed; the agent tries again
	Enrolled    Kind = "enroll.done"    // the node has its certificate; Text has its fingerprint
	Waiting     Kind = "enroll.waiting" // the node waits for the admin, who compares the code in Text
	Refused     Kind = "enroll.refused" // no certificate; Text says why
	Alarm       Kind = "enroll.alarm"   // the slot is frozen for this boot; Text says what was tried
	Degraded    Kind = "node.degraded"  // the node runs, but a part of its configuration failed: Text
	Ready       Kind = "node.ready"     // the node is all that the configuration asks for

	Forgotten Kind = "node.forgotten"

	Started       Kind = "appliance.started"
	ConfigChanged Kind = "config.changed"  // a new commit of the configuration holds: Commit, Text
	ConfigRefused Kind = "config.refused"  // a commit was not taken: Commit, and in Text file, line and reason
	Finding       Kind = "segment.finding" // the probe says something about the network
	Warning       Kind = "appliance.warning"
)

// Event is one thing that happened. Only the fields that its Kind names are set.
type Event struct {
	Seq    uint64        `json:"seq,omitempty"` // place in the journal, from 1; 0 until recorded
	Time   time.Time     `json:"time"`
	Kind   Kind          `json:"kind"`
	Node   MAC           `json:"node,omitzero"`
	Boot   BootID        `json:"boot,omitempty"`
	Serial Serial        `json:"serial,omitzero"`
	Model  Model         `json:"model,omitempty"`
	Addr   netip.Addr    `json:"addr,omitzero"`
	Name   string        `json:"name,omitempty"` // host name that the plan gives
	Image  string        `json:"image,omitempty"`
	Commit string        `json:"commit,omitempty"`
	File   string        `json:"file,omitempty"`
	Step   string        `json:"step,omitempty"`
	Bytes  int64         `json:"bytes,omitempty"`
	Took   time.Duration `json:"took,omitempty"` // nanoseconds
	Resent int           `json:"resent,omitempty"`
	Text   string        `json:"text,omitempty"` // one sentence for people

	Facts Facts `json:"facts,omitzero"` // with AgentDone of the step "facts"
}

// Facts is what the agent found out about its board.
type Facts struct {
	Board       string `json:"board,omitempty"`       // from the revision code: "3 Model B Plus Rev 1.3"
	Suffix      string `json:"suffix,omitempty"`      // short form for minion ids: "3Bp"
	Revision    string `json:"revision,omitempty"`    // such as "a020d3"
	RAM         int64  `json:"ram,omitempty"`         // bytes
	Kernel      string `json:"kernel,omitempty"`      // release
	Temperature int    `json:"temperature,omitempty"` // of the processor, thousandths of a degree Celsius
	Throttled   string `json:"throttled,omitempty"`   // bits of vcgencmd get_throttled, in hex; empty when not known
}

package node

import (
	"net/netip"
	"path"
	"time"
)

// Stage is how far a boot has come. Stages only grow within one boot.
type Stage int

// The stages of a boot.
const (
	StageNone     Stage = iota // never seen booting
	StageROM                   // the boot ROM asked for an address
	StageBootcode              // bootcode.bin was sent
	StageFirmware              // start.elf (or an EEPROM's first file) was asked for
	StageKernel                // the kernel was sent
	StageStage1                // stage 1 spoke
	StageRoot                  // the root is mounted, systemd has the machine
	StageLogin                 // one can log in
	StageReady                 // the node is all that the configuration asks for
)

var stageNames = [...]string{"none", "rom", "bootcode", "firmware", "kernel", "stage1", "root", "login", "ready"}

// String is the stage's word, as the API and the page show it.
func (s Stage) String() string {
	if s < 0 || int(s) >= len(stageNames) {
		return "none"
	}
	return stageNames[s]
}

// MarshalText writes the stage's word.
func (s Stage) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a stage's word; an unknown word is StageNone.
func (s *Stage) UnmarshalText(b []byte) error {
	*s = StageNone
	for i, n := range stageNames {
		if n == string(b) {
			*s = Stage(i)
		}
	}
	return nil
}

// State is everything that follows from a board's events. It is a value: copy it freely.
type State struct {
	MAC       MAC        `json:"mac"`
	Serial    Serial     `json:"serial,omitzero"`
	Model     Model      `json:"model,omitempty"`
	Name      string     `json:"name,omitempty"`
	Addr      netip.Addr `json:"addr,omitzero"`
	Stage     Stage      `json:"stage"`
	Boot      BootID     `json:"boot,omitempty"`
	Boots     int        `json:"boots"`
	BootTime  time.Time  `json:"boot_time,omitzero"`  // first DISCOVER of this boot
	ReadyTime time.Time  `json:"ready_time,omitzero"` // when this boot became ready
	Image     string     `json:"image,omitempty"`
	Commit    string     `json:"commit,omitempty"`
	Reason    string     `json:"reason,omitempty"` // why this boot gets what it gets
	Offers    int        `json:"offers"`           // OFFERs since the last progress of this boot
	Files     int        `json:"files"`            // files read in this boot
	Bytes     int64      `json:"bytes"`            // bytes over TFTP in this boot
	Resent    int        `json:"resent"`           // blocks sent again in this boot
	Last      Event      `json:"last,omitzero"`
	LastFile  string     `json:"last_file,omitempty"`
	Problem   string     `json:"problem,omitempty"` // what is wrong now; empty when nothing is

	Facts    Facts  `json:"facts,omitzero"`     // of the board, by its agent
	Enrolled bool   `json:"enrolled,omitempty"` // the node of this boot has its certificate
	Waiting  string `json:"waiting,omitempty"`  // code that the admin compares before the node may join
	Frozen   bool   `json:"frozen,omitempty"`   // nobody can join in this boot any more: see Problem
	Applied  string `json:"applied,omitempty"`  // commit that the last good highstate applied
	Degraded bool   `json:"degraded,omitempty"` // a part of the configuration failed: see Problem
}

// Apply folds one event into the state. It is pure and total: an event that does not fit changes only what it can.
func Apply(s State, e Event) State {
	if e.Kind == Forgotten {
		return State{MAC: s.MAC}
	}
	s.MAC = e.Node
	if e.Serial != 0 {
		s.Serial = e.Serial
	}
	if e.Model != ModelUnknown {
		s.Model = refine(s.Model, e.Model)
	}
	if e.Name != "" {
		s.Name = e.Name
	}
	if e.Addr.IsValid() {
		s.Addr = e.Addr
	}
	s.Last = e

	switch e.Kind {
	case BootStarted:
		s.Boot, s.BootTime, s.ReadyTime = e.Boot, e.Time, time.Time{}
		s.Boots++
		s.Image, s.Commit, s.Reason = e.Image, e.Commit, e.Text
		s.Stage, s.Problem, s.LastFile = StageROM, "", ""
		s.Offers, s.Files, s.Bytes, s.Resent = 0, 0, 0, 0
		s.Enrolled, s.Frozen, s.Degraded, s.Waiting, s.Applied = false, false, false, "", ""
	case BootRefused:
		s.Problem = e.Text
	case Offered:
		s.Offers++
	case FileSent:
		s.Files++
		s.Bytes += e.Bytes
		s.Resent += e.Resent
		s.LastFile = e.File
		s.reach(stageOf(e.File))
	case FileLost:
		s.LastFile = e.File
		s.Problem = e.Text
	case StepDone:
		s.reach(StageStage1)
		if e.Step == "handover" {
			s.reach(StageRoot)
		}
	case StepFailed:
		s.reach(StageStage1)
		s.Problem = e.Text
	case RootClosed:
		if e.Text != "" {
			s.Problem = e.Text
		}
	case RootOpened:
		s.Problem = ""
	case Login:
		s.reach(StageLogin)
	case AgentDone:
		if e.Facts != (Facts{}) {
			s.Facts = e.Facts
		}
		if e.Step == "salt" {
			s.Applied = e.Commit
		}
		if !s.Frozen && !s.Degraded {
			s.Problem = ""
		}
	case AgentFailed, Refused:
		s.Problem = e.Text
	case Enrolled:
		s.Enrolled, s.Waiting, s.Problem = true, "", ""
	case Waiting:
		s.Waiting = e.Text
	case Alarm:
		s.Frozen, s.Problem = true, e.Text
	case Degraded:
		s.Degraded, s.Problem = true, e.Text
	case Ready:
		s.Degraded = false
		if s.ReadyTime.IsZero() {
			s.ReadyTime = e.Time
		}
		s.reach(StageReady)
	}
	return s
}

// reach moves the boot forward; progress clears what was wrong before it.
func (s *State) reach(to Stage) {
	if to < s.Stage || to == StageNone {
		return
	}
	s.Stage, s.Offers = to, 0
	if !s.Frozen {
		s.Problem = ""
	}
}

// refine keeps the more telling of two models: bootcode.bin on a 3B answers to Pi3, but its ROM had said 3B.
func refine(old, seen Model) Model {
	if old == Pi3B && seen == Pi3 {
		return Pi3B
	}
	return seen
}

// stageOf is the stage that a file, fully read, proves.
func stageOf(file string) Stage {
	base := path.Base(file)
	switch {
	case base == "bootcode.bin":
		return StageBootcode
	case isKernel(base):
		return StageKernel
	case base == "":
		return StageNone
	}
	return StageFirmware
}

func isKernel(base string) bool {
	ok, _ := path.Match("kernel*.img", base)
	return ok
}

package pisim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Outcome is where a boot ended.
type Outcome string

// Outcomes. Only Kernel is a success.
const (
	Kernel      Outcome = "kernel"       // the firmware would start, or has started, the kernel
	NoOffer     Outcome = "no offer"     // no usable address was offered
	NoServer    Outcome = "no server"    // an address, but no TFTP server
	NoLease     Outcome = "no lease"     // REQUEST without ACK
	NoARP       Outcome = "no ARP"       // the TFTP server's Ethernet address is unknown
	MissingFile Outcome = "missing file" // a file without which the boot ends
	Hung        Outcome = "hung"         // a duplicate packet
	Elsewhere   Outcome = "elsewhere"    // the firmware would start something else, such as recovery.elf
	Cancelled   Outcome = "cancelled"
	NotHanded   Outcome = "not handed over"
)

// Event is a line of a boot's timeline.
type Event struct {
	At    time.Duration // since power-on
	Stage string
	Text  string
}

// String gives seconds, stage and text.
func (e Event) String() string {
	return fmt.Sprintf("%8.3f s  %-8s  %s", e.At.Seconds(), e.Stage, e.Text)
}

// Exchange is a request of the board and how it ended.
type Exchange struct {
	Stage      string
	Name       string
	Probe      bool
	Counts     bool // something is missing without it: all but probes for information only
	Result     Result
	Options    bool // was answered with an OACK
	Blocks     int
	BlockSize  int
	Size       int64         // bytes received, or the size that a probe learned (-1: none)
	Duplicates int           // packets received more than once
	Asked      int           // requests sent
	At         time.Duration // since power-on
	Took       time.Duration
}

// File is what a board received.
type File struct {
	Size   int64
	SHA256 string
	Data   []byte `json:"-"` // nil if Keep said so
}

// Report is one boot.
type Report struct {
	Name       string
	MAC        MAC
	Serial     string
	Outcome    Outcome
	Stage      string // where it ended
	Reason     string // one sentence
	LED        int    `json:",omitempty"` // flashes of the green LED
	Warnings   []string
	Address    string
	Server     string
	Prefix     string // "" or the serial and a slash
	Took       time.Duration
	Bytes      int64
	Duplicates int
	Offers     []Offer
	Exchanges  []Exchange
	Files      map[string]File // by full name
	Timeline   []Event

	Boot Boot `json:"-"`
}

// Boot is what the firmware gives the kernel. Overlays are listed, not merged into the device tree.
type Boot struct {
	Kernel, DTB, Initramfs []byte
	Overlays               map[string][]byte
	CommandLine            string // as on the real board
	FirmwareArgs           string // the part of it that the firmware adds
	CmdlineTxt             string // as received
	Settings               Settings
}

// String is one line about the boot.
func (r Report) String() string {
	s := fmt.Sprintf("%s %s %s: %s after %.1f s in stage %s, %d requests, %d bytes", r.Name, r.Serial, r.MAC, r.Outcome,
		r.Took.Seconds(), r.Stage, len(r.Exchanges), r.Bytes)
	if r.Reason != "" {
		s += ": " + r.Reason
	}
	return s
}

// Missing names what a boot lacks that another, of the same model from the same server, got: with an empty answer
// both received and used the same. Lost packets can cost a file without ending the boot.
func (r Report) Missing(reference Report) []string {
	var missing []string
	got := r.counting()
	for _, key := range reference.counting() {
		if i := slices.Index(got, key); i < 0 {
			missing = append(missing, key)
		} else {
			got = slices.Delete(got, i, i+1)
		}
	}
	return missing
}

// counting lists the successful requests that matter, without the serial, which differs between boards.
func (r Report) counting() []string {
	var keys []string
	for _, e := range r.Exchanges {
		if e.Counts && (e.Result == Read || e.Result == Exists) {
			prefix := ""
			if strings.HasPrefix(e.Name, r.Serial+"/") {
				prefix = "SERIAL/"
			}
			keys = append(keys, e.Stage+" "+prefix+strings.TrimPrefix(e.Name, r.Serial+"/"))
		}
	}
	return keys
}

// Line is the command line with the firmware's arguments but console=serial0 as it was received, for a machine with
// another serial port.
func (b Boot) Line() string {
	return strings.Join(append(strings.Fields(b.FirmwareArgs), strings.Fields(firstLine([]byte(b.CmdlineTxt)))...), " ")
}

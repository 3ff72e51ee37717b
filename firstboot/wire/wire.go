// Package wire is what the appliance and the code on a node say to each other: JSON over HTTP.
// Both sides import it; it imports nothing of bramble but the identities.
package wire

import (
	"time"

	"bramble/node"
)

// Paths on the appliance's HTTP server. Stage 1 adds ?mac=…&boot=… to the first two.
const (
	PlanPath   = "/v1/stage1/plan"   // GET → Plan
	FilesPath  = "/v1/stage1/files"  // GET → tar (uncompressed) to be unpacked over the root
	ReportPath = "/v1/stage1/report" // POST Report → 204
	ClockPath  = "/v1/clock"         // GET → Clock; also on every answer as the header Date
)

// Words on the kernel command line that stage 1 reads.
const (
	ServerWord = "bramble.server" // host:port of the appliance's HTTP server
	BootWord   = "bramble.boot"   // node.BootID
	MACWord    = "bramble.mac"    // the interface that the boot came over
)

// Stage1 is where stage 1 leaves itself for the running system, whose files have it report by that that one can log in.
const Stage1 = "/run/bramble/stage1"

// Clock is the appliance's time; a Pi has no clock that outlives its power.
type Clock struct {
	Now time.Time `json:"now"`
}

// Plan is everything stage 1 needs; it decides nothing by itself.
type Plan struct {
	Boot     node.BootID `json:"boot"`
	Name     string      `json:"name"` // host name
	Now      time.Time   `json:"now"`
	Root     Block       `json:"root"`
	Overlay  string      `json:"overlay"`  // tmpfs size= of the RAM overlay
	FilesSHA string      `json:"files"`    // SHA-256 in hex of the tar at FilesPath
	User     *User       `json:"user"`     // login to make or to unlock; nil for none
	Init     string      `json:"init"`     // program to hand over to; "/sbin/init" when empty
	DeadConn int         `json:"deadconn"` // seconds that reads wait for a lost block connection; a month when 0
}

// Block is a read-only block device of the appliance, over NBD.
type Block struct {
	Addr   string `json:"addr"`   // host:port
	Export string `json:"export"` // its name
	FSType string `json:"fstype"` // "ext4"
}

// User is a login on the node.
type User struct {
	Name string `json:"name"`
	UID  int    `json:"uid"` // for a user that the image does not have
}

// Report is one finished or failed step, in the order of the boot. Step "handover" is the last of stage 1,
// step "ready" comes from the running system when one can log in.
type Report struct {
	MAC    node.MAC      `json:"mac"`
	Serial node.Serial   `json:"serial,omitzero"` // from the device tree, when there
	Boot   node.BootID   `json:"boot"`
	Step   string        `json:"step"` // "modules", "network", "clock", "plan", "root", "overlay", "files", "handover", "ready"
	OK     bool          `json:"ok"`
	Text   string        `json:"text"` // one sentence
	Took   time.Duration `json:"took"`
}

// Package api is what the HTTP API says, as Go types: the server fills them in, the client reads them.
package api

import (
	"time"

	"bramble/boot"
	"bramble/node"
)

// Prefix is the path that all of the API is below.
const Prefix = "/api/v1"

// Node is one board: the fold of its events, and what the appliance makes of it now.
type Node struct {
	node.State
	ImageName string `json:"image_name,omitempty" doc:"Name in the catalogue that the image has now"`
	Explain   string `json:"explain,omitempty" doc:"Why the board does not go on, and what to do; absent while all is well"`
}

// Plan is what a board would get if its power were cycled now.
type Plan struct {
	Serve  bool   `json:"serve" doc:"Whether the board would be answered at all"`
	Reason string `json:"reason" doc:"Why, in one sentence"`
	Name   string `json:"name,omitempty" doc:"Host name"`
	Image  string `json:"image,omitempty" doc:"ID in the catalogue"`
	Commit string `json:"commit,omitempty" doc:"Commit of the configuration"`
	User   string `json:"user,omitempty" doc:"Login on the node"`
}

// PlanOf keeps what people ask of a plan.
func PlanOf(p boot.Plan) Plan {
	return Plan{Serve: p.Serve, Reason: p.Reason, Name: p.Name, Image: p.Image, Commit: p.Commit, User: p.User}
}

// Detail is one board with its plan and its present boot.
type Detail struct {
	Node
	Next     Plan   `json:"next" doc:"What the board would get if its power were cycled now"`
	Timeline []Line `json:"timeline" doc:"Events of the present boot, oldest first"`
}

// Line is one event of the journal with its sentence.
type Line struct {
	node.Event
	Sentence string `json:"sentence" doc:"The event in one sentence"`
}

// LineOf adds the sentence.
func LineOf(e node.Event) Line { return Line{Event: e, Sentence: node.Sentence(e)} }

// LinesOf adds every sentence. It is never nil.
func LinesOf(events []node.Event) []Line {
	all := make([]Line, len(events))
	for i, e := range events {
		all[i] = LineOf(e)
	}
	return all
}

// Image is one entry of the catalogue.
type Image struct {
	Name  string    `json:"name" doc:"What rules and people call it"`
	ID    string    `json:"id" doc:"What a boot is pinned to"`
	Title string    `json:"title,omitempty" doc:"Its publisher's name for it"`
	Bytes int64     `json:"bytes" doc:"Size, unpacked"`
	Added time.Time `json:"added,omitzero"`
}

// Health is how the appliance is.
type Health struct {
	OK      bool   `json:"ok" doc:"False when something needs the owner; boots go on nevertheless"`
	Version string `json:"version,omitempty"`
	Nodes   int    `json:"nodes" doc:"Boards ever seen"`
	Seq     uint64 `json:"seq" doc:"Newest event of the journal"`
	Stored  uint64 `json:"stored" doc:"Newest event on disk"`
	Trouble string `json:"trouble,omitempty" doc:"What is wrong with the journal"`
}

// Output is the end of what one step of a board's agent printed.
type Output struct {
	Step string    `json:"step"`
	Time time.Time `json:"time" doc:"When it last printed"`
	Text string    `json:"text"`
}

// Enrolment is who may join, and by what the appliance is known.
type Enrolment struct {
	Policy     string    `json:"policy" doc:"window, known, approve or open"`
	Until      time.Time `json:"until,omitzero" doc:"When the window for unknown boards closes; absent while it is closed"`
	Pin        string    `json:"pin" doc:"SHA-256 of the CA's certificate, in hex"`
	KnownHosts string    `json:"known_hosts" doc:"Line for known_hosts that makes ssh trust every node's host key"`
}

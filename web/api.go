package web

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"bramble/boot"
	"bramble/node"
	"bramble/web/api"
)

const timelineLimit = 1000

type body[T any] struct{ Body T }

type nodePath struct {
	Word string `path:"word" maxLength:"64" doc:"Name, serial number or MAC address of a board" example:"pi-8b07bcc6"`
}

func (s *Server) routeAPI(mux *http.ServeMux) {
	config := huma.DefaultConfig("bramble", s.Version)
	config.Info.Description = "Network boot for Raspberry Pis: boards, their boots, and what happens. Nobody sets a state; " +
		"everything here follows from the journal's events."
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = api.Prefix+"/openapi", "", ""
	config.CreateHooks = nil // no $schema in the answers
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "The admin token. Over TLS, or from the appliance itself."},
	}
	a := humago.New(mux, config)

	huma.Register(a, get("nodes", "/nodes", "All boards", "Every board that was seen booting, by name."), s.apiNodes)
	huma.Register(a, get("node", "/nodes/{word}", "One board", "State, plan and the timeline of the present boot."), s.apiNode)
	huma.Register(a, get("events", "/events", "Events", "Events after a place in the journal, oldest first."), s.apiEvents)
	huma.Register(a, get("findings", "/findings", "Findings and warnings", "What the probe says of the segment and the appliance of itself, newest first, since the start."), s.apiFindings)
	huma.Register(a, get("images", "/images", "Images", "The catalogue."), s.apiImages)
	huma.Register(a, get("healthz", "/healthz", "Health", "Whether the appliance needs its owner."), s.apiHealth)
	huma.Register(a, streamOperation(), s.apiStream)
	s.routeEnrolment(a)
	huma.Register(a, huma.Operation{
		OperationID: "forget", Method: http.MethodPost, Path: api.Prefix + "/nodes/{word}/forget", DefaultStatus: http.StatusNoContent,
		Summary: "Forget a board", Description: "Its state goes; its events stay in the journal. It comes back with its next boot.",
		Security: []map[string][]string{{"token": {}}},
	}, s.apiForget)
}

func get(id, path, summary, description string) huma.Operation {
	return huma.Operation{OperationID: id, Method: http.MethodGet, Path: api.Prefix + path, Summary: summary, Description: description}
}

// find looks a board up; an unknown one is a 404 with a sentence.
func (s *Server) find(word string) (node.State, error) {
	state, ok := s.Journal.Nodes().Find(word)
	if !ok {
		return state, huma.Error404NotFound(fmt.Sprintf("No board is known by %q. Give a name, a serial number or a MAC address.", word))
	}
	return state, nil
}

// only is the board that a query names; the zero MAC when it names none. The events of a forgotten board are still
// found by its MAC address.
func (s *Server) only(word string) (node.MAC, error) {
	if word == "" {
		return node.MAC{}, nil
	}
	if mac, err := node.ParseMAC(word); err == nil {
		return mac, nil
	}
	state, err := s.find(word)
	return state.MAC, err
}

func (s *Server) apiNodes(context.Context, *struct{}) (*body[[]api.Node], error) {
	nodes := []api.Node{}
	for _, state := range s.Journal.Nodes().All() {
		nodes = append(nodes, s.node(state))
	}
	return &body[[]api.Node]{nodes}, nil
}

// node is a state with what can be said of it now.
func (s *Server) node(state node.State) api.Node {
	n := api.Node{State: state, Explain: boot.Explain(state, s.now(), s.findings())}
	for name, id := range s.Rules().Images {
		if id == state.Image && name != id && (n.ImageName == "" || name < n.ImageName) {
			n.ImageName = name
		}
	}
	return n
}

// findings are the probe's sentences, for Explain.
func (s *Server) findings() (texts []string) {
	for _, e := range s.Journal.Notices() {
		if e.Kind == node.Finding {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

// next is what a board would get if its power were cycled now.
func (s *Server) next(state node.State) boot.Plan {
	q := boot.Request{Step: boot.Discover, MAC: state.MAC, Serial: state.Serial, Model: state.Model, Now: s.now()}
	state.Boot = ""
	return boot.Decide(q, state, s.Rules())
}

func (s *Server) apiNode(ctx context.Context, in *nodePath) (*body[api.Detail], error) {
	state, err := s.find(in.Word)
	if err != nil {
		return nil, err
	}
	events, err := s.Journal.Boot(ctx, state.MAC, timelineLimit)
	if err != nil {
		return nil, s.unread(err)
	}
	return &body[api.Detail]{api.Detail{Node: s.node(state), Next: api.PlanOf(s.next(state)), Timeline: api.LinesOf(events)}}, nil
}

// unread is for a journal that cannot be read; the cause is for the log.
func (s *Server) unread(err error) error {
	s.log().Error("the journal was not read", "err", err)
	return huma.Error503ServiceUnavailable("The journal cannot be read now; the appliance's log says why. Boots go on.")
}

type eventsInput struct {
	Since uint64 `query:"since" doc:"Only events with a larger seq"`
	Node  string `query:"node" maxLength:"64" doc:"Only events of this board: name, serial number or MAC address"`
	Limit int    `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"At most so many"`
}

func (s *Server) apiEvents(ctx context.Context, in *eventsInput) (*body[[]api.Line], error) {
	mac, err := s.only(in.Node)
	if err != nil {
		return nil, err
	}
	events, err := s.Journal.Since(ctx, in.Since, mac, in.Limit)
	if err != nil {
		return nil, s.unread(err)
	}
	return &body[[]api.Line]{api.LinesOf(events)}, nil
}

func (s *Server) apiFindings(context.Context, *struct{}) (*body[[]api.Line], error) {
	return &body[[]api.Line]{api.LinesOf(s.notices())}, nil
}

func (s *Server) apiImages(context.Context, *struct{}) (*body[[]api.Image], error) {
	images := []api.Image{}
	if s.Images != nil {
		images = append(images, s.Images()...)
	}
	return &body[[]api.Image]{images}, nil
}

func (s *Server) apiHealth(context.Context, *struct{}) (*body[api.Health], error) {
	stats := s.Journal.Stats()
	return &body[api.Health]{api.Health{
		OK: stats.Trouble == "", Version: s.Version, Nodes: len(s.Journal.Nodes().All()),
		Seq: stats.Last, Stored: stats.Stored, Trouble: stats.Trouble,
	}}, nil
}

func (s *Server) apiForget(_ context.Context, in *nodePath) (*struct{}, error) {
	state, err := s.find(in.Word)
	if err != nil {
		return nil, err
	}
	s.Journal.Record(node.Event{Kind: node.Forgotten, Node: state.MAC, Name: state.Name, Time: s.now().Round(time.Nanosecond)})
	return nil, nil
}

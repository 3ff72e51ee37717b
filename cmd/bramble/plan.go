package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"bramble/boot"
	"bramble/configs/change"
	"bramble/configs/repo"
	"bramble/node"
	"bramble/web/api"
)

// configAPI answers what the API says of the configuration.
type configAPI struct {
	store *repo.Store
	nodes *node.Registry
	base  func() boot.Rules               // of the settings and the catalogue, without the configuration
	files func(boot.Plan) ([]byte, error) // a node's files
	now   func() time.Time
}

// configState is which commit holds.
type configState struct {
	Commit  string `json:"commit"`
	Title   string `json:"title,omitempty"`
	Refused string `json:"refused,omitempty"` // why the newest commit does not hold
	Nodes   int    `json:"nodes"`             // boards with a rule of their own
}

func (c configState) print(w io.Writer) error {
	fmt.Fprintf(w, "commit  %s  %s\nnodes   %s\n", orWord(c.Commit, "none yet"), c.Title, count(c.Nodes, "board")+" with rules of their own")
	if c.Refused != "" {
		fmt.Fprintf(w, "refused %s\n", c.Refused)
	}
	return nil
}

// routes puts the configuration's part of the API and its git repository into a mux. The repository asks for the
// token by itself, as git gives it.
func (c *configAPI) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+api.Prefix+"/config", c.serveState)
	mux.HandleFunc("GET "+api.Prefix+"/nodes/{word}/plan", c.servePlan)
}

func (c *configAPI) serveState(w http.ResponseWriter, _ *http.Request) {
	now := c.store.Current()
	answerJSON(w, http.StatusOK, configState{
		Commit: now.Commit, Title: now.Title, Refused: c.store.Refused(), Nodes: len(now.Rules(boot.Rules{}).Nodes),
	})
}

func (c *configAPI) servePlan(w http.ResponseWriter, r *http.Request) {
	word := r.PathValue("word")
	n, ok := c.nodes.Find(word)
	if !ok {
		answerJSON(w, http.StatusNotFound, map[string]any{"title": "Not Found", "status": 404,
			"detail": fmt.Sprintf("No board is known by %q. Give a name, a serial number or a MAC address.", word)})
		return
	}
	answer, err := c.plan(n)
	if err != nil {
		answerJSON(w, http.StatusInternalServerError, map[string]any{"title": "Internal Server Error", "status": 500, "detail": err.Error()})
		return
	}
	answerJSON(w, http.StatusOK, answer)
}

// plan compares a board's boot with what a power cycle now would give.
func (c *configAPI) plan(n node.State) (change.Answer, error) {
	now := c.store.Current()
	answer := change.Answer{Node: n.Name, Running: n.Commit, Next: now.Commit, Changes: []change.Change{}}
	q := boot.Request{Step: boot.Discover, MAC: n.MAC, Serial: n.Serial, Model: n.Model, Now: c.now()}
	fresh := n
	fresh.Boot = ""
	next := change.Side{Plan: boot.Decide(q, fresh, now.Rules(c.base()))}
	answer.Serve, answer.Reason = next.Plan.Serve, next.Plan.Reason
	if !next.Plan.Serve {
		return answer, nil
	}
	fresh.Name = next.Plan.Name
	if err := c.fill(&next, now, fresh); err != nil {
		return answer, err
	}
	then, err := c.store.At(n.Commit)
	if err != nil {
		then = now
		answer.Note = "What the boot under way began with is not known any more; only the image is compared."
	}
	q.Step = boot.File // continues the boot
	running := change.Side{Plan: boot.Decide(q, n, then.Rules(c.base()))}
	running.Plan.Name = n.Name
	if err := c.fill(&running, then, n); err != nil {
		return answer, err
	}
	// a node that runs follows new commits with Salt, so that its Salt files may be newer than its boot
	if applied, err := c.store.At(cmp.Or(n.Applied, n.Commit)); err == nil {
		if running.Tree, _, err = applied.Tree(n); err != nil {
			return answer, err
		}
	}
	answer.Changes, err = change.Compare(running, next)
	return answer, err
}

func (c *configAPI) fill(s *change.Side, from *repo.Snapshot, n node.State) (err error) {
	s.Salt, s.Users = from.Salt(n), from.Users
	if s.Files, err = c.files(s.Plan); err != nil {
		return fmt.Errorf("the files of %s cannot be made: %w", n.Name, err)
	}
	s.Tree, _, err = from.Tree(n)
	return err
}

func answerJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

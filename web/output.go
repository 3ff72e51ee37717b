package web

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"bramble/node"
	"bramble/web/api"
)

const (
	maxOutput = 8 << 10 // of a step that is kept: its end
	maxSteps  = 8       // of a node
	maxHeard  = 1024    // nodes
)

// outputs keeps the end of what each step of a node's present boot printed. The zero value is ready.
type outputs struct {
	mu    sync.Mutex
	nodes map[node.MAC]heard
}

type heard struct {
	boot  node.BootID
	at    time.Time
	steps []api.Output
}

// add puts text behind what a step has printed.
func (o *outputs) add(s node.State, step, text string, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.nodes == nil {
		o.nodes = map[node.MAC]heard{}
	}
	h, ok := o.nodes[s.MAC]
	if !ok && len(o.nodes) >= maxHeard {
		o.evict()
	}
	if h.boot != s.Boot {
		h = heard{boot: s.Boot}
	}
	h.at = now
	i := slices.IndexFunc(h.steps, func(p api.Output) bool { return p.Step == step })
	if i < 0 {
		if len(h.steps) == maxSteps {
			h.steps = slices.Delete(h.steps, 0, 1)
		}
		h.steps = append(h.steps, api.Output{Step: step})
		i = len(h.steps) - 1
	}
	all := h.steps[i].Text + text
	if cut := len(all) - maxOutput; cut > 0 {
		all = strings.Clone(strings.ToValidUTF8(all[cut:], ""))
	}
	h.steps[i].Text, h.steps[i].Time = all, now
	o.nodes[s.MAC] = h
}

func (o *outputs) evict() {
	var oldest node.MAC
	for mac, h := range o.nodes {
		if oldest.IsZero() || h.at.Before(o.nodes[oldest].at) {
			oldest = mac
		}
	}
	delete(o.nodes, oldest)
}

func (o *outputs) of(s node.State) []api.Output {
	o.mu.Lock()
	defer o.mu.Unlock()
	if h := o.nodes[s.MAC]; h.boot == s.Boot {
		return slices.Clone(h.steps)
	}
	return nil
}

// cleanLines is clean for text of several lines: nothing in it steers a terminal.
func cleanLines(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || unicode.IsPrint(r):
			return r
		case r == '\r':
			return -1
		}
		return ' '
	}, strings.ToValidUTF8(s, " "))
}

func (s *Server) serveOutput(w http.ResponseWriter, r *http.Request, state node.State) {
	step := clean(r.URL.Query().Get("step"), 32)
	if step == "" {
		http.Error(w, "The address lacks ?step= with the step whose output this is.", http.StatusBadRequest)
		return
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReport))
	if err != nil {
		http.Error(w, "The output is too long, or broke off.", http.StatusRequestEntityTooLarge)
		return
	}
	s.outputs.add(state, step, cleanLines(string(text)), s.now())
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) apiOutput(_ context.Context, in *nodePath) (*body[[]api.Output], error) {
	state, err := s.find(in.Word)
	if err != nil {
		return nil, err
	}
	return &body[[]api.Output]{append([]api.Output{}, s.outputs.of(state)...)}, nil
}

// talk bounds how often each node reports. The zero value is ready.
type talk struct {
	mu   sync.Mutex
	next map[node.MAC]time.Time // when all reports so far would have come, one after the other
}

const (
	talkBurst = 60
	talkEvery = time.Second
)

func (t *talk) allow(mac node.MAC, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next == nil {
		t.next = map[node.MAC]time.Time{}
	}
	if len(t.next) > node.MaxNodes {
		clear(t.next)
	}
	at := t.next[mac]
	if at.Before(now) {
		at = now
	}
	if at.Sub(now) >= talkBurst*talkEvery {
		return false
	}
	t.next[mac] = at.Add(talkEvery)
	return true
}

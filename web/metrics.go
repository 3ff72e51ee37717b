package web

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"

	"bramble/node"
)

// serveMetrics writes the few figures that a fold gives, in Prometheus' text format.
func (s *Server) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	var out strings.Builder
	say := func(name, kind, help string) {
		fmt.Fprintf(&out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}
	one := func(name, kind, help string, value any) {
		say(name, kind, help)
		fmt.Fprintf(&out, "%s %v\n", name, value)
	}

	stages := map[node.Stage]int{}
	boots, stuck := 0, 0
	for _, state := range s.Journal.Nodes().All() {
		n := s.node(state)
		stages[n.Stage]++
		boots += n.Boots
		if n.Explain != "" {
			stuck++
		}
	}
	say("bramble_nodes", "gauge", "Boards by the stage of their present boot.")
	for stage := node.StageNone; stage <= node.StageReady; stage++ {
		fmt.Fprintf(&out, "bramble_nodes{stage=%q} %d\n", stage, stages[stage])
	}
	one("bramble_nodes_stuck", "gauge", "Boards that do not go on.", stuck)
	one("bramble_boots", "gauge", "Boots of all known boards.", boots)

	stats := s.Journal.Stats()
	one("bramble_journal_events_total", "counter", "Events ever recorded.", stats.Last)
	one("bramble_journal_unstored", "gauge", "Events that are not on disk yet.", stats.Last-stats.Stored)
	one("bramble_journal_lost_total", "counter", "Events that never reached the disk since the start.", stats.Lost)
	one("bramble_notices", "gauge", "Findings and warnings since the start.", len(s.Journal.Notices()))
	one("bramble_streams", "gauge", "Readers of the event stream.", s.streams.Load())

	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	one("go_memstats_heap_inuse_bytes", "gauge", "Heap in use.", m.HeapInuse)
	one("go_goroutines", "gauge", "Goroutines.", runtime.NumGoroutine())

	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write([]byte(out.String()))
}

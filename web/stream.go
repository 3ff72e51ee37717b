package web

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"bramble/node"
	"bramble/web/api"
)

const (
	heartbeat       = 15 * time.Second // keeps proxies and sleeping phones from closing a quiet stream
	defaultPatience = 10 * time.Second // in which a reader must take a line
)

type streamInput struct {
	Since  uint64 `query:"since" doc:"Begin after this seq; without it, with what is new"`
	Node   string `query:"node" maxLength:"64" doc:"Only events of this board: name, serial number or MAC address"`
	LastID string `header:"Last-Event-ID" doc:"Set by browsers that come back: begin after this seq"`
	given  bool
}

// Resolve finds out where to begin.
func (in *streamInput) Resolve(ctx huma.Context) []error {
	u := ctx.URL()
	in.given = u.Query().Has("since")
	if in.LastID != "" {
		seq, err := strconv.ParseUint(in.LastID, 10, 64)
		if err != nil {
			return []error{&huma.ErrorDetail{Location: "header.Last-Event-ID", Message: "must be the seq of an event", Value: in.LastID}}
		}
		in.Since, in.given = seq, true
	}
	return nil
}

func streamOperation() huma.Operation {
	op := get("stream", "/events/stream", "Events, live", "Server-sent events in the order of the journal: id is the seq, data an Event. "+
		"A reader that is too slow loses lines and is told how many by a line without id.")
	op.Responses = map[string]*huma.Response{"200": {
		Description: "The stream; it ends only with the connection.",
		Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: "string"}}},
	}}
	return op
}

func (s *Server) apiStream(_ context.Context, in *streamInput) (*huma.StreamResponse, error) {
	mac, err := s.only(in.Node)
	if err != nil {
		return nil, err
	}
	if !in.given {
		in.Since = s.Journal.Stats().Last
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		r, w := humago.Unwrap(ctx)
		s.stream(w, r, in.Since, mac)
	}}, nil
}

// stream writes events until the reader goes. A reader that does not take a line in time is cut off: it may come
// back with the id of its last line.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, since uint64, mac node.MAC) {
	if s.streams.Add(1) > maxStreams {
		s.streams.Add(-1)
		refuse(w, http.StatusServiceUnavailable, "Too many readers follow the events already.")
		return
	}
	defer s.streams.Add(-1)
	patience := s.patience
	if patience == 0 {
		patience = defaultPatience
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	control := http.NewResponseController(w)
	send := func(write func(io.Writer) error) error {
		if err := control.SetWriteDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if err := write(w); err != nil {
			return err
		}
		return control.Flush()
	}
	// The server's limit on reading a request would end the stream.
	err := control.SetReadDeadline(time.Time{})
	if err == nil {
		err = send(func(w io.Writer) error { _, err := io.WriteString(w, "retry: 2000\n\n"); return err })
	}
	events := s.Journal.Subscribe(ctx, since)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for err == nil {
		select {
		case e, more := <-events:
			if !more {
				return
			}
			if !mac.IsZero() && e.Node != mac && e.Seq != 0 {
				continue
			}
			err = send(func(w io.Writer) error { return writeEvent(w, e) })
		case <-beat.C:
			err = send(func(w io.Writer) error { _, err := io.WriteString(w, ":\n\n"); return err })
		}
	}
}

func writeEvent(w io.Writer, e node.Event) error {
	data, err := json.Marshal(api.LineOf(e))
	if err != nil {
		return err
	}
	if e.Seq != 0 {
		if _, err := fmt.Fprintf(w, "id: %d\n", e.Seq); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(w, "data: %s\n\n", data)
	return err
}

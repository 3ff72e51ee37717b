package tftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// transfer is one request from its RRQ to its report. Its goroutine does what may take time, opening and reading the
// file; the lane does the talking.
type transfer struct {
	server  *running
	peer    Peer
	request request
	began   time.Time
	lane    *lane
	port    int                // of the lane
	done    context.CancelFunc // ends the request from outside
	talk    *talk              // nil until the file is open; guarded by running.mu
	gone    bool               // replaced; guarded by running.mu
}

func (t *transfer) run(ctx context.Context) {
	if t.request.write {
		t.lane.refuse(t.port, t.peer.Addr, codeAccess, textReadOnly)
		t.tell(Report{Outcome: Refused, Text: "A write request was refused: this server only sends files."})
		return
	}
	file, err := t.open(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		t.lane.refuse(t.port, t.peer.Addr, codeNotFound, textNotFound)
		t.tell(Report{Outcome: Missed})
		return
	case err != nil:
		t.lane.refuse(t.port, t.peer.Addr, codeUndefined, textUnreadable)
		t.tell(Report{Outcome: Failed, Err: err, Text: fmt.Sprintf("%s could not be opened: %s.", t.request.name, err)})
		return
	}
	defer file.Close()

	patience, release := context.WithTimeout(ctx, t.server.QueueTime)
	defer release()
	if t.server.gate.enter(patience, t.peer.Addr.Addr()) != nil {
		return // the client has given up by now, or asked anew
	}
	report, began := t.send(ctx, file)
	t.server.gate.leave(t.peer.Addr.Addr())
	if began {
		t.tell(report)
	}
}

func (t *transfer) open(ctx context.Context) (File, error) {
	if !t.request.valid() {
		return nil, fs.ErrNotExist
	}
	return t.server.Tree.Open(ctx, t.peer, t.request.name)
}

// tell completes a report and hands it on.
func (t *transfer) tell(r Report) {
	r.Peer, r.Name, r.Took = t.peer, t.request.name, time.Since(t.began)
	t.server.tell(r)
}

// send holds the whole conversation about a file that is there, unless a newer request has made it needless.
func (t *transfer) send(ctx context.Context, file File) (r Report, began bool) {
	limit := t.server.Block
	if t.peer.Addr.Addr().Is6() {
		limit = min(limit, maxBlock6)
	}
	source, size := stream(file, t.request.octet)
	options, block := t.request.negotiate(size, limit)
	data := newBlocks(source, block, size, t.server.rooms)
	defer data.release()
	talk := newTalk(t.peer.Addr, t.port, conversation{data: data, options: options, patience: t.server.Patience})
	if !t.server.started(t, talk) {
		return Report{}, false
	}
	t.tell(Report{Outcome: Started, Size: size, Block: block})
	t.lane.begin(talk)
	t.server.wake()

	for over := false; !over; {
		select {
		case buf := <-data.empty:
			data.fill(buf)
			t.lane.resume(talk)
		case <-ctx.Done():
			t.lane.finish(talk, stopped)
			<-talk.over
			over = true
		case <-talk.over:
			over = true
		}
	}

	r = Report{Outcome: talk.outcome(), Size: size, Bytes: min(talk.acked*int64(block), size), Block: block, Resent: talk.resent, Err: talk.err}
	switch r.Outcome {
	case Sent:
		r.Bytes = size
	case Lost, Failed:
		r.Peer, r.Name = t.peer, t.request.name
		r.Text = r.sentence(&talk.conversation)
	}
	return r, true
}

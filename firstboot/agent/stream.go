package agent

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"time"

	"bramble/firstboot/wire"
)

// Bounds of what is streamed: of one run, and of what waits to be sent.
const (
	maxStream  = 256 << 10
	maxPending = 32 << 10
	every      = time.Second
)

// stream sends a step's output to the appliance while it comes. It never holds up who writes: what the appliance does not
// take in time is lost.
type stream struct {
	mu      sync.Mutex
	pending bytes.Buffer
	left    int
	post    func(text []byte)
	stop    chan struct{}
	done    sync.WaitGroup
}

func (a *Agent) stream(ctx context.Context, step string) *stream {
	path := wire.OutputPath + "?" + url.Values{"step": {step}}.Encode()
	s := &stream{left: maxStream, stop: make(chan struct{})}
	s.post = func(text []byte) {
		ctx, cancel := context.WithTimeout(ctx, patience/3)
		defer cancel()
		if err := a.client.post(ctx, path, text, nil); err != nil {
			a.Log.Debug("output is lost", "step", step, "err", err)
		}
	}
	s.done.Go(s.send)
	return s
}

// Write never fails.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(p), s.left, maxPending-s.pending.Len())
	s.pending.Write(p[:n])
	if s.left -= n; s.left == 0 && n > 0 {
		s.pending.WriteString("\n… the rest is not sent.\n")
	}
	return len(p), nil
}

func (s *stream) send() {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.flush()
		case <-s.stop:
			s.flush()
			return
		}
	}
}

func (s *stream) flush() {
	s.mu.Lock()
	text := bytes.Clone(s.pending.Bytes())
	s.pending.Reset()
	s.mu.Unlock()
	if len(text) > 0 {
		s.post(text)
	}
}

// close sends the rest.
func (s *stream) close() {
	close(s.stop)
	s.done.Wait()
}

// command runs a program; its complaints are in the error.
func command(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.Join(strings.Fields(string(out[:min(len(out), 500)])), " ")
	return fmt.Errorf("%s: %w: %s", strings.Join(append([]string{name}, args...), " "), err, text)
}

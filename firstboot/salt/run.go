// Package salt runs one highstate with a cap on memory and time, and reads its result.
package salt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"bramble/firstboot/wire"
)

// ErrNoSalt says that this system has no Salt.
var ErrNoSalt = errors.New("there is no Salt on this node")

// Where salt-call is: in the packages of the Salt project, and by hand or by a wheelhouse.
var places = []string{"/opt/saltstack/salt/salt-call", "/usr/bin/salt-call", "/usr/local/bin/salt-call"}

// Find returns the path of salt-call. The error is ErrNoSalt.
func Find() (string, error) {
	for _, place := range places {
		if info, err := os.Stat(place); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return place, nil
		}
	}
	return "", fmt.Errorf("%w: neither %s is there; name a Salt layer in the configuration, or install Salt in the image",
		ErrNoSalt, strings.Join(places, " nor "))
}

// Runner runs highstates.
type Runner struct {
	Call    string    // path of salt-call
	Output  io.Writer // what Salt says about its progress; nil for nobody
	Systemd bool      // there is a systemd that can cap the run; without it, only time is capped
}

// Booted reports whether systemd runs this system (sd_booted(3)).
func Booted() bool {
	info, err := os.Stat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// defaultLimit of a run's time.
const defaultLimit = 15 * time.Minute

// maxStdout bounds a result: thousands of states have a few megabytes.
const maxStdout = 8 << 20

// Run applies the highstate. It returns an error only if Salt could not be run at all, or ctx ended.
func (r Runner) Run(ctx context.Context, s wire.Salt, d Dirs) (Result, error) {
	dir, err := configure(s, d)
	if err != nil {
		return Result{}, err
	}
	if s.Limit <= 0 {
		s.Limit = defaultLimit
	}
	command := []string{r.Call, "--config-dir=" + dir, "--id=" + s.ID, "--retcode-passthrough", "--out=json", "--log-level=info"}
	if s.Mode != Master {
		command = append(command, "--local")
	}
	job := job{
		command: append(command, "state.apply"), limit: s.Limit, memory: s.Memory, folder: d.Work,
		stdout: &bounded{max: maxStdout}, stderr: &bounded{max: maxTail, tail: true, also: r.Output},
	}
	if err := os.MkdirAll(d.Work, 0o700); err != nil {
		return Result{}, fmt.Errorf("salt has no place to work: %w", err)
	}
	began := time.Now()
	run := job.plain
	if r.Systemd {
		run = job.unit
	}
	outcome, err := run(ctx)
	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}
	if err != nil {
		return Result{}, err
	}
	result := Parse(job.stdout.Bytes(), outcome.end)
	if why := Reason(job.stderr.Bytes()); why != "" && strings.Contains(result.Text, "see master log") {
		what, _, _ := strings.Cut(result.Text, ": ")
		result.Text = sentence(what + ": " + why)
	}
	result.Peak, result.Took = outcome.peak, time.Since(began)
	return result, nil
}

// Reason finds what Salt logs as critical, or as its last error: a pillar's result does not tell what is wrong with it.
func Reason(log []byte) string {
	var last string
	for text := range strings.SplitSeq("\n"+string(log), "\n[") {
		level, rest, ok := strings.Cut(text, "]")
		if !ok {
			continue
		}
		first, more, _ := strings.Cut(strings.TrimSpace(rest), "\n")
		if strings.TrimSpace(level) != "CRITICAL" {
			continue
		}
		next, _, _ := strings.Cut(strings.TrimSpace(more), "\n")
		if strings.HasSuffix(first, ":") && next != "" {
			first += " " + next
		}
		if !strings.Contains(first, "see master log") {
			last = first
		}
	}
	return line(last)
}

// bounded keeps the first bytes of what is written to it, or the last.
type bounded struct {
	max  int
	tail bool
	also io.Writer
	buf  bytes.Buffer
}

// maxTail is what is kept of Salt's log to find a reason in.
const maxTail = 64 << 10

// Write never fails: whoever writes must not end for it.
func (b *bounded) Write(p []byte) (int, error) {
	if b.also != nil {
		_, _ = b.also.Write(p)
	}
	if b.tail {
		b.buf.Write(p)
		if over := b.buf.Len() - b.max; over > b.max {
			b.buf.Next(over)
		}
		return len(p), nil
	}
	b.buf.Write(p[:max(0, min(len(p), b.max-b.buf.Len()))])
	return len(p), nil
}

func (b *bounded) Bytes() []byte { return b.buf.Bytes() }

// outcome is what is known about a run beside its output.
type outcome struct {
	end  End
	peak int64
}

// peakFile is where a unit leaves its result and its peak.
func peakFile(folder string) string { return filepath.Join(folder, "outcome") }

// readOutcome reads "RESULT PEAK"; a unit without memory accounting has no peak.
func readOutcome(folder string) (result string, peak int64) {
	text, err := os.ReadFile(peakFile(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return "", 0
	}
	result, rest, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	peak, _ = strconv.ParseInt(rest, 10, 64)
	return result, peak
}

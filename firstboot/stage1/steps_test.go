package stage1

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bramble/firstboot/talk"
	"bramble/firstboot/wire"
)

// rig is a runner with a clock that only sleep moves.
type rig struct {
	now     time.Time
	lines   []string
	reports []wire.Report
}

func (r *rig) runner() runner {
	return runner{
		say:    func(format string, args ...any) { r.lines = append(r.lines, fmt.Sprintf(format, args...)) },
		report: func(w wire.Report) { r.reports = append(r.reports, w) },
		now:    func() time.Time { return r.now },
		sleep:  func(d time.Duration) { r.now = r.now.Add(d) },
	}
}

func TestRunRetries(t *testing.T) {
	var r rig
	tries := 0
	err := r.runner().run(context.Background(), step{"plan", func(ctx context.Context) (string, error) {
		if _, limited := ctx.Deadline(); !limited {
			t.Error("an attempt has no limit")
		}
		r.now = r.now.Add(100 * time.Millisecond)
		if tries++; tries < 7 {
			return "", errors.New("the appliance sleeps")
		}
		return "Here it is.", nil
	}})
	if err != nil || tries != 7 {
		t.Fatalf("%d tries, %v", tries, err)
	}
	// 1, 2, 4, 8, 15 and 15 seconds between seven tries
	last := r.reports[len(r.reports)-1]
	if want := (wire.Report{Step: "plan", OK: true, Text: "Here it is.", Took: 45*time.Second + 700*time.Millisecond}); last != want {
		t.Errorf("the last report is %+v, want %+v", last, want)
	}
	if want := "plan         100ms  FAILED: The appliance sleeps. Trying again in 1s."; r.lines[0] != want {
		t.Errorf("the console says %q, want %q", r.lines[0], want)
	}
	if want := "plan         45.7s  Here it is."; r.lines[6] != want {
		t.Errorf("the console says %q, want %q", r.lines[6], want)
	}
}

// TestRunReboots: only errors that retrying does not cure lead to a reboot, and not before five minutes of them.
func TestRunReboots(t *testing.T) {
	var r rig
	err := r.runner().run(context.Background(), step{"network", func(context.Context) (string, error) {
		return "", hopeless{errors.New("no interface")}
	}})
	if !errors.Is(err, errReboot) || r.now.Sub(time.Time{}) < giveUp || r.now.Sub(time.Time{}) > giveUp+longest*2 {
		t.Errorf("%v after %v", err, r.now.Sub(time.Time{}))
	}

	r = rig{}
	tries := 0
	err = r.runner().run(context.Background(), step{"network", func(context.Context) (string, error) {
		if tries++; tries > 200 {
			return "", nil
		}
		if tries%10 == 0 { // a ray of hope
			return "", errors.New("no link")
		}
		return "", hopeless{errors.New("no interface")}
	}})
	if err != nil || tries != 201 {
		t.Errorf("%v after %d tries", err, tries)
	}
}

func TestSentence(t *testing.T) {
	for in, want := range map[string]string{
		"the plug is out": "The plug is out.", "Is it? Is it?": "Is it? Is it?", "": "Something failed.", "Österreich!": "Österreich!",
	} {
		if got := sentence(errors.New(in)); got != want {
			t.Errorf("sentence(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestReporter: reports arrive in order, once each, through an outage of the appliance.
func TestReporter(t *testing.T) {
	var got []string
	failures := 1
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var r wire.Report
		if err := json.NewDecoder(req.Body).Decode(&r); err != nil {
			t.Error(err)
		}
		if failures--; failures >= 0 {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		got = append(got, fmt.Sprint(r.Step, r.OK, r.Text, r.Boot, r.Serial))
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()

	r := NewReporter()
	for range 3 {
		r.Report(wire.Report{Step: "root", Text: "no answer"})
	}
	r.Report(wire.Report{Step: "root", Text: "refused"})
	r.Report(wire.Report{Step: "root", OK: true})
	r.Report(wire.Report{Step: "overlay", OK: true})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go r.Send(ctx, talk.Appliance{Server: strings.TrimPrefix(server.URL, "http://"), Boot: "1"}, func(w *wire.Report) { w.Serial = 7 })
	r.Flush(ctx)
	want := []string{"rootfalseno answer100000007", "rootfalserefused100000007", "roottrue100000007", "overlaytrue100000007"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestReporterIsBounded(t *testing.T) {
	r := NewReporter()
	for i := range 1000 {
		r.Report(wire.Report{Step: "clock", Text: fmt.Sprint(i)})
	}
	if first, _ := r.first(); len(r.queue) != maxQueue || first.Text != fmt.Sprint(1000-maxQueue) {
		t.Errorf("%d reports from %s on", len(r.queue), first.Text)
	}
}

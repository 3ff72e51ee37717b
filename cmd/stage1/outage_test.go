package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"bramble/images/ext4"
)

// outage is how long the block server is away; OUTAGE=10m is the long run.
func outage(t *testing.T) time.Duration {
	word := os.Getenv("OUTAGE")
	if word == "" {
		return time.Minute
	}
	d, err := time.ParseDuration(word)
	if err != nil {
		t.Fatalf("OUTAGE: %v; write it like 10m", err)
	}
	return d
}

// TestOutage takes the root away from a running board, once by killing its server and once by unplugging it without a
// word, in the middle of reading: the board waits, and goes on with the right bytes.
func TestOutage(t *testing.T) {
	w := newWorld(t)
	w.powerOn(orders())
	w.await("ready", true, 5*time.Minute)
	want := w.sumOfImage("usr/lib/modules")

	link := func(state string) { w.must(w.appliance.Run("ip", "link", "set", "eth0", state)) }
	for _, trouble := range []struct {
		name           string
		begin, recover func()
	}{
		{"killed", func() { w.stopNBD() }, w.startNBD},
		{"unplugged", func() { link("down"); w.stopNBD() }, func() { link("up"); w.startNBD() }},
	} {
		w.mustSSH("sync; echo 3 | sudo tee /proc/sys/vm/drop_caches")
		type answer struct {
			sum string
			err error
		}
		answers := make(chan answer, 1)
		began := time.Now()
		go func() {
			sum, err := w.ssh(outage(t)+5*time.Minute, "cd /usr/lib/modules && find . -type f | LC_ALL=C sort | xargs cat | sha256sum")
			answers <- answer{sum, err}
		}()
		time.Sleep(5 * time.Second) // it reads
		trouble.begin()
		connected := w.opened.Load()
		select {
		case a := <-answers:
			t.Errorf("%s: the board read everything (%v, %v) without its root", trouble.name, a.sum, a.err)
			answers <- a
		case <-time.After(outage(t)):
		}
		trouble.recover()
		back := time.Now()
		for w.opened.Load() == connected && time.Since(back) < time.Minute {
			time.Sleep(100 * time.Millisecond)
		}
		reconnected := time.Since(back)
		a := <-answers
		if got, _, _ := strings.Cut(a.sum, " "); a.err != nil || got != want {
			t.Errorf("%s: the board read %q, %v; want %s", trouble.name, got, a.err, want)
		}
		t.Logf("%s: away for %v, connected again after %v, all read %v after that; %v in all", trouble.name,
			outage(t), reconnected.Round(time.Millisecond), time.Since(back).Round(time.Second), time.Since(began).Round(time.Second))
	}
	t.Log(w.mustSSH("sudo dmesg | tail -30; systemctl --failed --no-legend"))
}

// sumOfImage is the SHA-256 of all files under a folder of the image's root, one after the other by their names.
func (w *world) sumOfImage(folder string) string {
	w.t.Helper()
	f, err := os.Open(w.image)
	w.must(err)
	defer f.Close()
	section := w.root.Section(f)
	root, err := ext4.New(section, section.Size())
	w.must(err)
	var names []string
	w.must(fs.WalkDir(root, folder, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, name)
		}
		return err
	}))
	// WalkDir's order is by directory; the board sorts whole paths.
	slices.Sort(names)
	sum := sha256.New()
	for _, name := range names {
		data, err := fs.ReadFile(root, name)
		w.must(err)
		sum.Write(data)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

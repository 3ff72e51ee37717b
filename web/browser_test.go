package web

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"bramble/lab"
	"bramble/node"
)

// TestBrowser looks at the pages with Chromium, on a phone and on a desk: nothing overflows, nothing complains, and
// what happens shows without a reload. With SHOTS=DIR it leaves screenshots there.
func TestBrowser(t *testing.T) {
	lab.Need(t, "chromium")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.ExecPath("chromium"))
	browser, closeBrowser := chromedp.NewExecAllocator(t.Context(), options...)
	defer closeBrowser()
	for _, screen := range []struct {
		name          string
		width, height int64
		scheme        string
	}{{"phone", 320, 640, "light"}, {"phone-dark", 390, 800, "dark"}, {"desk", 1280, 800, "light"}, {"desk-dark", 1280, 800, "dark"}} {
		t.Run(screen.name, func(t *testing.T) {
			w := newWorld(t)
			plain, _ := serving(t, w)
			var console complaints
			ctx, cancel := chromedp.NewContext(browser, chromedp.WithListener(console.listen))
			defer cancel()
			ctx, cancel = context.WithTimeout(ctx, time.Minute)
			defer cancel()
			shot := func(name string) chromedp.Action[chromedp.Void] { return shoot(t, name+"-"+screen.name) }
			fits := func(what string) chromedp.Action[chromedp.Void] {
				return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
					width, err := chromedp.Evaluate[int64]("document.documentElement.scrollWidth")(ctx, target)
					if width > screen.width {
						t.Errorf("%s is %d pixels wide on a screen of %d", what, width, screen.width)
					}
					return err
				})
			}
			do := func(f func()) chromedp.Action[chromedp.Void] {
				return chromedp.Func(func(context.Context, *chromedp.Target) error { f(); return nil })
			}
			finish := do(func() {
				w.journal.Record(node.Event{Kind: node.StepDone, Node: gamma, Boot: "c1", Step: "handover", Addr: netip.MustParseAddr("192.168.1.78")})
				w.journal.Record(node.Event{Kind: node.Ready, Node: gamma, Boot: "c1"})
			})
			// sees waits until the page says so by itself.
			sees := func(condition string) chromedp.Action[chromedp.Void] {
				return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
					_, err := chromedp.Poll[bool]("!!("+condition+")", chromedp.WithPollingTimeout(8*time.Second))(ctx, target)
					if err != nil {
						return fmt.Errorf("waiting for %s: %w", condition, err)
					}
					return nil
				})
			}
			size := []chromedp.EmulateViewportOption{chromedp.EmulateScale(2)}
			if screen.width < 500 {
				size = append(size, chromedp.EmulateMobile)
			}
			err := chromedp.Do(ctx,
				command(log.Enable), command(runtime.Enable), scheme(screen.scheme),
				chromedp.EmulateViewport(screen.width, screen.height, size...),
				chromedp.Navigate(plain.Base), sees(`document.querySelector("#help") && !document.querySelector("#live").hidden`),
				fits("the empty page"), shot("empty"),
				do(w.play), sees(`document.querySelectorAll(".card").length == 3 && !document.querySelector("#help")`),
				fits("the page"), shot("nodes"),
				chromedp.Click(chromedp.CSS("#nb827eb69202e summary")), sees(`document.querySelectorAll("#nb827eb69202e .timeline li").length == 12`),
				finish, sees(`document.querySelectorAll(".card.ready").length == 2 && document.querySelector("#nb827eb69202e details[open] li")`),
				fits("the page with a timeline"), shot("open"),
				chromedp.Navigate(plain.Base+"/nodes/alpha"), sees(`document.querySelectorAll("#timeline li").length == 12`),
				fits("a board's page"), shot("node"),
				do(func() {
					w.journal.Record(node.Event{Kind: node.RootClosed, Node: alpha, Boot: "a1b2c3d4", Text: "The connection broke."})
				}),
				sees(`document.querySelectorAll("#timeline li.bad").length == 1 && document.querySelector(".card.stuck")`),
				chromedp.Navigate(plain.Base+"/nodes/pi-07bcc6"), sees(`document.querySelector(".card.stuck")`),
				fits("a stuck board's page"), shot("stuck"),
			)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range console.said() {
				t.Errorf("the browser complains: %s", c)
			}
		})
	}
}

// command is a command of the browser's protocol without parameters.
func command(c cdp.Command[cdp.Empty, cdp.Empty]) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, c, cdp.Empty{})
		return err
	})
}

// scheme makes the browser prefer light or dark colours.
func scheme(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
		})
		return err
	})
}

// complaints are what the browser's console has to say.
type complaints struct {
	mu  sync.Mutex
	all []string
}

func (c *complaints) listen(event any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		c.all = append(c.all, fmt.Sprintf("%s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL))
	case *runtime.EventExceptionThrown:
		c.all = append(c.all, (&chromedp.ExceptionError{ExceptionDetails: e.ExceptionDetails}).Error())
	}
}

func (c *complaints) said() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all)
}

func shoot(t *testing.T, name string) chromedp.Action[chromedp.Void] {
	dir := os.Getenv("SHOTS")
	if dir == "" {
		dir = t.TempDir()
	}
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		picture, err := chromedp.FullScreenshot(100)(ctx, target)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o644)
	})
}

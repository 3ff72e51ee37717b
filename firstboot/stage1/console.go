package stage1

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
)

// Console writes lines where somebody may see them: on every console the kernel has, since its own choice may be a
// screen that nobody connected, and into the kernel's log, where the running system finds them.
type Console struct {
	mu      sync.Mutex
	log     io.Writer   // /dev/kmsg
	screens []io.Writer // /dev/tty1, /dev/ttyAMA0
}

// OpenConsole opens what there is; a board may have neither.
func OpenConsole() *Console {
	c := &Console{log: io.Discard}
	if f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err == nil {
		c.log = f
	}
	active, _ := os.ReadFile("/sys/class/tty/console/active") // without it, /dev/console has to do
	for _, name := range strings.Fields(string(active)) {
		if f, err := os.OpenFile("/dev/"+name, os.O_WRONLY|noctty, 0); err == nil {
			c.screens = append(c.screens, f)
		}
	}
	if c.screens == nil {
		if f, err := os.OpenFile("/dev/console", os.O_WRONLY|noctty, 0); err == nil {
			c.screens = append(c.screens, f)
		}
	}
	return c
}

// Line writes one line. A console that cannot be written to is no reason not to boot.
func (c *Console) Line(format string, args ...any) {
	line := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	c.mu.Lock()
	defer c.mu.Unlock()
	// As debugging message: the kernel would print any other one on the same consoles once more.
	_, _ = fmt.Fprintf(c.log, "<7>bramble: %s\n", line)
	for _, s := range c.screens {
		_, _ = fmt.Fprintf(s, "bramble: %s\r\n", line)
	}
}

// Logger logs as lines.
func (c *Console) Logger() *slog.Logger { return slog.New(lines{c}) }

type lines struct{ *Console }

func (l lines) Enabled(context.Context, slog.Level) bool { return true }
func (l lines) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l lines) WithGroup(string) slog.Handler            { return l }
func (l lines) Handle(_ context.Context, r slog.Record) error {
	l.Line("%s", r.Message)
	return nil
}

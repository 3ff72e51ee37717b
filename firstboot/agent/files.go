package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// replace writes a file as a whole: whoever reads it sees the old text or the new one.
func replace(file string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("the folder of %s cannot be made: %w", file, err)
	}
	next := filepath.Join(filepath.Dir(file), ".bramble-"+filepath.Base(file))
	_ = os.Remove(next) // of an agent that was killed
	err := os.WriteFile(next, data, mode)
	if err == nil {
		err = os.Chmod(next, mode) // whatever the umask
	}
	if err == nil {
		err = os.Rename(next, file)
	}
	if err != nil {
		return fmt.Errorf("%s cannot be written: %w", file, err)
	}
	return nil
}

// readLine is a file's text without space and zero bytes around it; empty when it cannot be read.
func readLine(file string) string {
	b, _ := os.ReadFile(file)
	return strings.Trim(string(b), " \n\x00")
}

func trim(b []byte) []byte { return bytes.TrimSpace(b) }

func uptime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano()).Round(10 * time.Millisecond)
}

package qemu

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Machine is a board that has been powered on.
type Machine struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // how it ended; set before ended is closed
}

// Start powers the board on. It returns when QEMU runs, long before the kernel says anything.
func (b Board) Start() (*Machine, error) {
	args, err := b.args()
	if err != nil {
		return nil, err
	}
	name := "qemu-system-aarch64"
	if b.NetNS != "" {
		name, args = "nsenter", append([]string{"--net=" + b.NetNS, "--", name}, args...)
	}
	file := io.WriteCloser(discard{})
	if b.ConsoleFile != "" {
		if file, err = os.OpenFile(b.ConsoleFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
			return nil, fmt.Errorf("cannot record the console: %w", err)
		}
	}
	m := &Machine{cmd: exec.Command(name, args...), ended: make(chan struct{})}
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no board outlives its lab
	var complaints bytes.Buffer
	m.cmd.Stderr = &complaints
	console, err := m.cmd.StdoutPipe()
	if err == nil {
		err = m.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot power on a board: %w", err), file.Close())
	}
	go func() {
		defer close(m.ended)
		record := follow(console, file, b.ConsoleLine)
		m.err = m.cmd.Wait()
		if m.err != nil && complaints.Len() > 0 {
			m.err = fmt.Errorf("%w: %s", m.err, strings.TrimSpace(complaints.String()))
		}
		m.err = errors.Join(m.err, record, file.Close())
	}()
	return m, nil
}

// follow copies the console to a file and hands out its lines until the console closes. It goes on reading when the
// file cannot be written, since a console that nobody reads stops the board.
func follow(console io.Reader, file io.Writer, line func(string)) error {
	var failed error
	for r := bufio.NewReader(console); ; {
		text, err := r.ReadString('\n')
		if text != "" {
			if _, err := io.WriteString(file, text); err != nil && failed == nil {
				failed = fmt.Errorf("cannot record the console: %w", err)
			}
			if line != nil {
				line(strings.TrimRight(text, "\r\n"))
			}
		}
		if err != nil {
			return failed
		}
	}
}

// Stop cuts the power, and returns when the board is off.
func (m *Machine) Stop() {
	// The process may have ended already; then it is off, too.
	_ = m.cmd.Process.Kill()
	<-m.ended
}

// Done is closed when the board is off: by Stop, or because its system powered off or reset.
func (m *Machine) Done() <-chan struct{} { return m.ended }

// Wait waits for Done and tells how QEMU ended: nil after a power-off or reset by the board's system.
func (m *Machine) Wait() error {
	<-m.ended
	return m.err
}

// discard is a file that keeps nothing.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

// Package netns makes network namespaces without names: they live as long as somebody holds them, so nothing is
// left behind when a process dies, whichever way it dies.
package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// NS is a network namespace, held open by a file.
type NS struct{ file *os.File }

// New makes an empty namespace with its loopback interface up. It needs CAP_SYS_ADMIN.
func New() (*NS, error) {
	var ns *NS
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("cannot make a network namespace (run as root): %w", err)
		}
		f, err := os.Open(threadNS)
		if err != nil {
			return fmt.Errorf("cannot hold the new network namespace: %w", err)
		}
		ns = &NS{f}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := ns.Run("ip", "link", "set", "lo", "up"); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// Open holds the namespace at path, for instance /run/netns/NAME or what Path returned in another process.
func Open(path string) (*NS, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open network namespace: %w", err)
	}
	return &NS{f}, nil
}

// Path is where other processes find the namespace, for nsenter --net=PATH and the like, while this one holds it.
func (ns *NS) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.file.Fd()) }

// Close lets go. The namespace ends with the last process, socket or holder in it.
func (ns *NS) Close() error { return ns.file.Close() }

// Do runs f inside the namespace. Sockets that f opens stay there; goroutines that f starts do not.
func (ns *NS) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("cannot enter the network namespace: %w", err)
		}
		return f()
	})
}

// Command is exec.Command with the program running inside the namespace. The kernel kills the program when this process
// dies, or when the operating system thread that started it does: start it outside of Do.
func (ns *NS) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--net=" + ns.Path(), "--", name}, args...)...)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd
}

// Run runs a command inside the namespace. The error carries what the command printed.
func (ns *NS) Run(name string, args ...string) error {
	_, err := ns.Output(name, args...)
	return err
}

// Output is Run for those who want what the command printed, on either output.
func (ns *NS) Output(name string, args ...string) (string, error) {
	cmd := ns.Command(name, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %q failed: %w: %s", name, args, err, out)
	}
	return string(out), nil
}

const threadNS = "/proc/thread-self/ns/net"

// onThread runs f on an operating system thread whose namespace f may change. The thread is given back to the
// runtime only if it could be moved back to where it was; otherwise it ends with its goroutine.
func onThread(f func() error) error {
	var wg sync.WaitGroup
	var err error
	wg.Go(func() {
		runtime.LockOSThread()
		home, openErr := os.Open(threadNS)
		if openErr != nil {
			err = fmt.Errorf("cannot hold the current network namespace: %w", openErr)
			runtime.UnlockOSThread()
			return
		}
		defer home.Close()
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
	})
	wg.Wait()
	return err
}

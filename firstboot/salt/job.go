package salt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// job is one capped command.
type job struct {
	command        []string
	limit          time.Duration
	memory         int64 // bytes; 0: half of the node's
	folder         string
	stdout, stderr *bounded
}

// grace is what a job gets between SIGTERM and SIGKILL.
const grace = 10 * time.Second

// unitName is a transient unit's: there is one run at a time.
const unitName = "bramble-salt.service"

// environment of a run: a node has no locale of its own, and Salt wants UTF-8.
var environment = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8",
}

// unit runs the job as a transient unit of systemd, which caps it whatever it starts.
func (j job) unit(ctx context.Context) (outcome, error) {
	// The run of an agent that was killed may still be there.
	systemctl("stop", unitName)
	systemctl("reset-failed", unitName)
	_ = os.Remove(peakFile(j.folder))
	cmd := exec.CommandContext(ctx, "systemd-run", j.arguments()...)
	cmd.Stdout, cmd.Stderr = j.stdout, j.stderr
	cmd.WaitDelay = grace
	err := cmd.Run()
	if ctx.Err() != nil {
		systemctl("stop", unitName)
		return outcome{}, ctx.Err()
	}
	if err != nil && !errors.As(err, new(*exec.ExitError)) && !errors.Is(err, exec.ErrWaitDelay) {
		return outcome{}, fmt.Errorf("salt cannot be started: %w", err)
	}
	result, peak := readOutcome(j.folder)
	if result == "" {
		return outcome{}, fmt.Errorf("systemd does not start Salt: %s", line(string(j.stderr.Bytes())))
	}
	o := outcome{End{Code: exitCode(cmd.ProcessState)}, peak}
	switch result {
	case "oom-kill":
		o.end.Killed = ByMemory
	case "timeout":
		o.end.Killed = ByTime
	}
	return o, nil
}

// arguments of systemd-run. MemoryPeak is gone with the unit, and bookworm's systemd has none, so the unit's last
// command leaves it behind.
func (j job) arguments() []string {
	memory := "50%"
	if j.memory > 0 {
		memory = fmt.Sprint(j.memory)
	}
	last := `echo "$SERVICE_RESULT $(cat "/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/memory.peak")" >` + peakFile(j.folder)
	args := []string{
		"--unit=" + unitName, "--description=Salt highstate of bramble", "--wait", "--pipe", "--collect", "--quiet",
		"-p", "MemoryMax=" + memory,
		"-p", fmt.Sprintf("RuntimeMaxSec=%d", max(1, int(j.limit.Seconds()))),
		"-p", fmt.Sprintf("TimeoutStopSec=%d", int(grace.Seconds())),
		"-p", "OOMScoreAdjust=500",
		"-p", "ExecStopPost=:/bin/sh -c '" + last + "'",
	}
	for _, e := range environment {
		args = append(args, "--setenv="+e)
	}
	return append(append(args, "--"), j.command...)
}

// systemctl is for cleaning up: that there is nothing to clean is no error.
func systemctl(args ...string) { _ = exec.Command("systemctl", args...).Run() }

// plain runs the job as a process group, which is killed as one when its time is over.
func (j job) plain(ctx context.Context) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, j.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, j.command[0], j.command[1:]...)
	cmd.Stdout, cmd.Stderr = j.stdout, j.stderr
	cmd.Env = append(os.Environ(), environment[2])
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	err := cmd.Run()
	late := errors.Is(ctx.Err(), context.DeadlineExceeded)
	if cmd.ProcessState == nil {
		return outcome{}, fmt.Errorf("salt cannot be started: %w", err)
	}
	if ctx.Err() != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what did not listen
	}
	o := outcome{end: End{Code: exitCode(cmd.ProcessState)}}
	if late {
		o.end.Killed = ByTime
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		o.peak = usage.Maxrss << 10
	}
	return o, nil
}

// exitCode is a shell's: 128 and the signal for a process that was killed.
func exitCode(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}

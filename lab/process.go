package lab

import (
	"os/exec"
	"syscall"
)

// dieWithUs has the kernel kill the program when this process dies. It must be started by a plain goroutine: the signal
// comes when the starting thread ends, and only threads of locked goroutines end early.
func dieWithUs(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

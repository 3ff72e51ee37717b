// The smallest system: it says hello on the console with its command line and powers off.
package main

import (
	"fmt"
	"os"
	"syscall"
)

func main() {
	_ = os.Mkdir("/proc", 0o755)
	_ = syscall.Mount("proc", "/proc", "proc", 0, "")
	cmdline, err := os.ReadFile("/proc/cmdline")
	fmt.Printf("hello from init: %s (%v)\n", cmdline, err)
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

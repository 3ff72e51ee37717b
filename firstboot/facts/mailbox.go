package facts

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Mailbox property interface of the firmware, by way of /dev/vcio (raspberrypi/firmware wiki; vcio.c, _IOWR(100, 0, char *)).
const (
	mailboxProperty = 3<<30 | unsafe.Sizeof(uintptr(0))<<16 | 100<<8
	tagGetThrottled = 0x00030046
	mailboxDone     = 0x80000000
)

// Throttled asks the firmware for undervoltage and throttling, now (bits 0 to 3) and since the start (bits 16 to 19),
// as vcgencmd get_throttled prints it: "0x50000".
func Throttled() (string, error) {
	f, err := os.OpenFile("/dev/vcio", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("the firmware cannot be asked: %w", err)
	}
	defer f.Close()
	// Size and request; tag, room for an answer, length of the question, the question: clear nothing; the end.
	message := [...]uint32{7 * 4, 0, tagGetThrottled, 4, 4, 0, 0}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), mailboxProperty, uintptr(unsafe.Pointer(&message)))
	if errno != 0 {
		return "", fmt.Errorf("the firmware does not answer: %w", errno)
	}
	if message[1] != mailboxDone {
		return "", fmt.Errorf("the firmware does not know how to say whether it throttles (%#x)", message[1])
	}
	return fmt.Sprintf("%#x", message[5]), nil
}

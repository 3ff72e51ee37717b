package initramfs

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"

	"bramble/images/internal/unpack"
)

// banner is the beginning of linux_banner (init/version-timestamp.c of the kernel).
var banner = regexp.MustCompile(`Linux version ([0-9]+\.[0-9]+[^ ()]*) \(`)

// maxRelease is what uname has room for.
const maxRelease = 64

// KernelRelease finds the release (as uname -r) in a kernel image, plain or compressed as kernel8.img may be.
func KernelRelease(kernel io.Reader) (string, error) {
	in := bufio.NewReaderSize(kernel, 64<<10)
	if err := skipZboot(in); err != nil {
		return "", err
	}
	head, _ := in.Peek(8)
	r, err := unpack.Reader(in, unpack.Sniff(head))
	if err != nil {
		return "", err
	}
	defer r.Close()
	const keep = len("Linux version ") + maxRelease + 2
	buf, have := make([]byte, 1<<20), 0
	for {
		n, err := r.Read(buf[have:])
		have += n
		if m := banner.FindSubmatch(buf[:have]); m != nil {
			return string(m[1]), nil
		}
		if errors.Is(err, io.EOF) {
			return "", errors.New("there is no version in the kernel; is it a Linux kernel?")
		}
		if err != nil {
			return "", fmt.Errorf("the kernel cannot be read: %w", err)
		}
		if have > len(buf)/2 {
			have = copy(buf, buf[have-min(have, keep):have])
		}
	}
}

// skipZboot moves to the compressed kernel inside an EFI zboot image (drivers/firmware/efi/libstub/zboot-header.S).
func skipZboot(in *bufio.Reader) error {
	head, _ := in.Peek(16)
	if len(head) < 16 || !bytes.HasPrefix(head, []byte("MZ")) || string(head[4:8]) != "zimg" {
		return nil
	}
	_, err := in.Discard(int(binary.LittleEndian.Uint32(head[8:])))
	if err != nil {
		return fmt.Errorf("the kernel is cut off: %w", err)
	}
	return nil
}

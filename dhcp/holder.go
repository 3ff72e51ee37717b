package dhcp

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// holder names the process that has UDP port 67, as far as this process may see.
func holder() string {
	for inode := range inodesOf67() {
		fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
		for _, fd := range fds {
			if target, err := os.Readlink(fd); err != nil || target != "socket:["+inode+"]" {
				continue
			}
			dir := filepath.Dir(filepath.Dir(fd))
			name, err := os.ReadFile(filepath.Join(dir, "comm"))
			if err != nil {
				continue
			}
			return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(dir))
		}
	}
	return "another program"
}

// inodesOf67 reads the sockets bound to port 67 from /proc/net/udp, whose columns proc(5) describes.
func inodesOf67() map[string]bool {
	const local, inode = 1, 9
	inodes := map[string]bool{}
	f, err := os.Open("/proc/thread-self/net/udp")
	if err != nil {
		return inodes
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		c := strings.Fields(lines.Text())
		if len(c) > inode && strings.HasSuffix(c[local], fmt.Sprintf(":%04X", serverPort)) {
			inodes[c[inode]] = true
		}
	}
	return inodes
}

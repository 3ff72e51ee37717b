// Package facts finds out what board this is: from the device tree, /proc and /sys, as far as they are there.
package facts

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"bramble/node"
)

// Facts is what is known of a board and its system. What is not known is empty.
type Facts struct {
	Board       Board
	Revision    string // hex, such as "a020d3"
	Serial      node.Serial
	MACs        []node.MAC
	RAM         int64  // bytes that the kernel has
	Kernel      string // release
	Image       string // what the image calls itself
	Boot        string // the kernel's boot_id
	Temperature int    // of the processor, thousandths of a degree Celsius
	Throttled   string // bits of vcgencmd get_throttled, in hex
}

// Read looks through a system's root. Throttled comes from the firmware, not from a file: see Throttled.
func Read(root fs.FS) Facts {
	cpu := fields(text(root, "proc/cpuinfo"))
	f := Facts{
		RAM:    kilobytes(fields(text(root, "proc/meminfo"))["MemTotal"]),
		Kernel: text(root, "proc/sys/kernel/osrelease"),
		Boot:   text(root, "proc/sys/kernel/random/boot_id"),
		Image:  image(root),
		MACs:   macs(root),
	}
	f.Temperature, _ = strconv.Atoi(text(root, "sys/class/thermal/thermal_zone0/temp"))
	f.Serial, _ = node.ParseSerial(text(root, "proc/device-tree/serial-number"))
	if f.Serial == 0 {
		f.Serial, _ = node.ParseSerial(cpu["Serial"])
	}
	if code, ok := revision(root, cpu["Revision"]); ok {
		f.Revision = fmt.Sprintf("%04x", code)
		f.Board, _ = Decode(code)
	}
	if f.Board.Name == "" {
		f.Board.Name = strings.TrimPrefix(text(root, "proc/device-tree/model"), "Raspberry Pi ")
	}
	return f
}

// Map is the facts as an agent reports them: ram in bytes, temperature in thousandths of a degree Celsius.
func (f Facts) Map() map[string]string {
	var all []string
	for _, m := range f.MACs {
		all = append(all, m.String())
	}
	facts := map[string]string{
		"model": f.Board.Name, "suffix": f.Board.Suffix, "revision": f.Revision, "kernel": f.Kernel, "image": f.Image,
		"boot_id": f.Boot, "throttled": f.Throttled, "macs": strings.Join(all, " "),
		"ram": number(f.RAM), "temperature": number(int64(f.Temperature)),
	}
	if f.Serial != 0 {
		facts["serial"] = f.Serial.String()
	}
	for name, value := range facts {
		if value == "" {
			delete(facts, name)
		}
	}
	return facts
}

// String is one sentence for people.
func (f Facts) String() string {
	name := f.Board.Name
	switch {
	case name == "":
		name = "This is no Raspberry Pi"
	case f.Revision != "":
		name = "This is a Raspberry Pi " + name
	default:
		name = "This is a board called " + name
	}
	return fmt.Sprintf("%s with %d MB of RAM, Linux %s.", name, f.RAM>>20, f.Kernel)
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// revision is the board's code: four bytes in the device tree, or hex digits in /proc/cpuinfo.
func revision(root fs.FS, word string) (uint32, bool) {
	if raw, err := fs.ReadFile(root, "proc/device-tree/system/linux,revision"); err == nil && len(raw) == 4 {
		return binary.BigEndian.Uint32(raw), true
	}
	code, err := strconv.ParseUint(word, 16, 32)
	return uint32(code), err == nil
}

func image(root fs.FS) string {
	if issue, _, _ := strings.Cut(text(root, "etc/rpi-issue"), "\n"); issue != "" {
		return issue
	}
	for line := range strings.Lines(text(root, "etc/os-release")) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(name), `"'`)
		}
	}
	return ""
}

func macs(root fs.FS) []node.MAC {
	files, _ := fs.Glob(root, "sys/class/net/*/address")
	var all []node.MAC
	for _, name := range files {
		if _, err := fs.Stat(root, path.Dir(name)+"/device"); err != nil {
			continue // not hardware
		}
		if m, err := node.ParseMAC(text(root, name)); err == nil && !m.IsZero() && !slices.Contains(all, m) {
			all = append(all, m)
		}
	}
	return all
}

// fields reads lines of "Name : value".
func fields(s string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(s) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			m[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return m
}

func kilobytes(s string) int64 {
	n, err := strconv.ParseInt(strings.TrimSuffix(s, " kB"), 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		return 0
	}
	return n << 10
}

// text is a file's content without the zero byte that ends the device tree's strings; empty when there is none.
func text(root fs.FS, name string) string {
	b, _ := fs.ReadFile(root, name)
	return strings.TrimSpace(strings.TrimRight(strings.ToValidUTF8(string(b), "?"), "\x00"))
}

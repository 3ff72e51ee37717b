package pisim

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

const (
	maxConfig     = 4096 // bytes of config.txt that are used when it comes over the network (§2.6)
	maxConfigLine = 98   // §3.1
	maxIncludes   = 8    // deep; where the firmware stops is not known
)

// Settings are what the firmware makes of a config.txt.
type Settings struct {
	Values   map[string]string // last value of each key, keys in lower case
	Overlays []string          // names in order, without what follows the comma
	Params   []string          // dtparam values

	initramfs []string // of the initramfs line
	Address   string   // where it goes: "followkernel" or a number
}

// includer fetches a file that config.txt includes.
type includer func(name string) (text []byte, ok bool)

// ReadConfig evaluates a config.txt for a model with a serial (§3.1). include may be nil: bootcode.bin includes
// nothing.
func ReadConfig(text []byte, m Model, serial uint32, include func(name string) ([]byte, bool)) Settings {
	s := Settings{Values: map[string]string{}}
	f := filter{model: m.Filters, serial: serial}
	s.read(text, &f, include, 0)
	return s
}

func (s *Settings) read(text []byte, f *filter, include includer, depth int) {
	text = text[:min(len(text), maxConfig)]
	for line := range strings.SplitSeq(string(text), "\n") {
		line = line[:min(len(line), maxConfigLine)]
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			f.section(strings.Trim(line, "[]"))
		case f.open():
			s.line(line, f, include, depth)
		}
	}
}

func (s *Settings) line(line string, f *filter, include includer, depth int) {
	if name, ok := strings.CutPrefix(line, "include "); ok {
		if include == nil || depth >= maxIncludes {
			return
		}
		if text, ok := include(strings.TrimSpace(name)); ok {
			s.read(text, f, include, depth+1)
		}
		return
	}
	if rest, ok := strings.CutPrefix(line, "initramfs "); ok {
		fields := strings.Fields(rest)
		if len(fields) > 0 {
			s.initramfs = strings.Split(fields[0], ",")
			s.Address = strings.Join(fields[1:], " ")
		}
		return
	}
	key, value, ok := strings.Cut(line, "=")
	if !ok {
		return
	}
	switch key = strings.ToLower(key); key {
	case "dtoverlay", "device_tree_overlay":
		name, _, _ := strings.Cut(value, ",")
		name, _, _ = strings.Cut(name, ":")
		if name != "" {
			s.Overlays = append(s.Overlays, name)
		}
	case "dtparam", "device_tree_param":
		s.Params = append(s.Params, value)
	default:
		s.Values[key] = value
	}
}

// on reports whether a numeric setting is not zero.
func (s Settings) on(key string, otherwise bool) bool {
	v, ok := s.Values[key]
	if !ok {
		return otherwise
	}
	n, err := strconv.ParseInt(v, 0, 64)
	return err == nil && n != 0
}

func (s Settings) or(key, otherwise string) string {
	if v, ok := s.Values[key]; ok {
		return v
	}
	return otherwise
}

// variant is which of the firmwares is wanted: the normal one "", or "_cd", "_x", "_db".
func (s Settings) variant() string {
	switch {
	case s.or("gpu_mem_1024", s.or("gpu_mem", "")) == "16":
		return "_cd"
	case s.on("start_x", false):
		return "_x"
	case s.on("start_debug", false):
		return "_db"
	}
	return ""
}

// files resolves the variables of a request order.
func (s Settings) files(m Model, variable string) []string {
	arm64 := s.on("arm_64bit", m.Arm64) || m.Kernel32 == ""
	kernel, stub, recovery := m.Kernel32, "armstub8-32.bin", "recovery7.img"
	if arm64 {
		kernel, stub, recovery = m.Kernel64, "armstub8.bin", "recovery8.img"
	}
	kernel = s.or("kernel", kernel)
	switch variable {
	case "$start":
		return []string{s.or("start_file", strings.Replace(m.Start, "%s", s.variant(), 1))}
	case "$fixup":
		return []string{s.or("fixup_file", strings.Replace(m.Fixup, "%s", s.variant(), 1))}
	case "$kernel":
		return []string{kernel}
	case "$initramfs":
		return s.initramfsFor(kernel)
	case "$dtb":
		if name, ok := s.Values["device_tree"]; ok {
			return nonEmpty(name)
		}
		return m.DTBs
	case "$overlays":
		var names []string
		for _, o := range s.Overlays {
			names = append(names, s.or("overlay_prefix", "overlays/")+o+".dtbo")
		}
		return names
	case "$cmdline":
		return nonEmpty(s.or("cmdline", "cmdline.txt"))
	case "$armstub":
		return []string{s.or("armstub", stub)}
	case "$recovery":
		return []string{recovery}
	}
	return nil
}

// initramfsFor is what the initramfs line says, or with auto_initramfs=1 what goes with the kernel's name: a kernel
// that is not called kernel-something has none.
func (s Settings) initramfsFor(kernel string) []string {
	if len(s.initramfs) > 0 {
		return s.initramfs
	}
	rest, ok := strings.CutPrefix(kernel, "kernel")
	if !s.on("auto_initramfs", false) || !ok {
		return nil
	}
	return []string{"initramfs" + strings.TrimSuffix(rest, path.Ext(rest))}
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// filter is the state of the sections of config.txt: those of one kind replace each other, those of different kinds
// must all hold, and [all] begins anew.
type filter struct {
	model  []string
	serial uint32

	notModel, notSerial, notOther, none bool
}

func (f *filter) open() bool { return !f.notModel && !f.notSerial && !f.notOther && !f.none }

func (f *filter) section(name string) {
	name = strings.ToLower(name)
	switch {
	case name == "all":
		f.notModel, f.notSerial, f.notOther, f.none = false, false, false, false
	case name == "none":
		f.none = true
	case strings.HasPrefix(name, "0x"):
		n, err := strconv.ParseUint(name[2:], 16, 64)
		f.notSerial = err != nil || uint32(n) != f.serial || n > 0xffffffff && n>>32 != 0x10000000
	case strings.HasPrefix(name, "pi") || strings.HasPrefix(name, "cm"):
		f.notModel = !slices.Contains(f.model, name)
	default: // [gpio4=1], [tryboot], [board-type=...], [EDID=...]: nothing of that kind is attached or set
		f.notOther = true
	}
}

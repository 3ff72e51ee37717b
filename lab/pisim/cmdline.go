package pisim

import (
	"bytes"
	"fmt"
	"strings"
)

// commandLine is what the firmware makes of cmdline.txt: its first line, behind arguments of the firmware's own, with
// console=serial0 naming the real port (§3.2).
func commandLine(m Model, firmware string, cmdline []byte) string {
	fields := strings.Fields(firmware)
	for _, f := range strings.Fields(firstLine(cmdline)) {
		if rest, ok := strings.CutPrefix(f, "console=serial0"); ok {
			f = "console=" + m.SerialConsole + rest
		}
		fields = append(fields, f)
	}
	return strings.Join(fields, " ")
}

// firmwareArgs are the arguments that the firmware adds.
func firmwareArgs(m Model, mac MAC, s Settings) string {
	if s.on("disable_commandline_tags", false) {
		return ""
	}
	uarts := 0
	if s.on("enable_uart", false) {
		uarts = 1
	}
	return fmt.Sprintf(m.FirmwareArgs, uarts, strings.ToUpper(mac.String()))
}

func firstLine(text []byte) string {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return string(line)
}

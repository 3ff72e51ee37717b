package pisim

import (
	"bytes"
	"fmt"
	"strings"
)

// commandLine is what the firmware makes of cmdline.txt: its first line, behind arguments of the firmware's own, with
// console=serial0 naming the real port (§3.2).
func commandLine(m Model, mac MAC, s Settings, cmdline []byte) string {
	line, _, _ := bytes.Cut(cmdline, []byte("\n"))
	fields := strings.Fields(string(line))
	for i, f := range fields {
		if rest, ok := strings.CutPrefix(f, "console=serial0"); ok {
			fields[i] = "console=" + m.SerialConsole + rest
		}
	}
	if s.on("disable_commandline_tags", false) {
		return strings.Join(fields, " ")
	}
	uarts := 0
	if s.on("enable_uart", false) {
		uarts = 1
	}
	own := fmt.Sprintf(m.FirmwareArgs, uarts, strings.ToUpper(mac.String()))
	return strings.Join(append([]string{own}, fields...), " ")
}

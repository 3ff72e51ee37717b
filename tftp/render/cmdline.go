package render

import (
	"fmt"
	"slices"
	"strings"
)

// ownRoot are the words of an image's command line that look for its root on a card, or that set it up at first
// boot; stage 1 does both here.
var ownRoot = []string{
	"root", "rootfstype", "rootflags", "rootwait", "rootdelay", "resize", "fsck.repair", "fsck.mode",
	"init", "quiet", "systemd.run", "systemd.run_success_action", "systemd.run_failure_action", "ds", "ip", "nfsroot", "nfsaddrs",
}

// Cmdline renders cmdline.txt as one line without its end: the image's words in their order without those that look
// for a card, then the words of spec.
func Cmdline(image []byte, spec Spec) (string, []Warning, error) {
	var warnings []Warning
	var first string
	if all := lines(image); len(all) > 0 {
		first = all[0]
		if rest := strings.TrimSpace(strings.Join(all[1:], " ")); rest != "" {
			warnings = append(warnings, Warning{
				File: "cmdline.txt", Line: 2,
				Text:   "The image's command line has more than one line and the firmware reads the first.",
				Remedy: "Put all words into the first line.",
			})
		}
	}
	var kept []string
	for _, word := range words(first) {
		name, value, _ := strings.Cut(word, "=")
		if slices.Contains(ownRoot, name) || name == "systemd.unit" && value == "kernel-command-line.target" {
			continue
		}
		kept = append(kept, word)
	}
	for _, word := range spec.Cmdline {
		if w := words(word); len(w) != 1 || w[0] != word || strings.ContainsAny(word, "\r\n\x00") {
			return "", nil, fmt.Errorf("%q is not one word for the kernel command line: give each word as an entry of its own, with spaces only inside double quotes", word)
		}
		if !slices.Contains(kept, word) {
			kept = append(kept, word)
		}
	}
	line := strings.Join(kept, " ")
	if len(line) > MaxCmdline {
		return "", nil, fmt.Errorf("the kernel command line has %d bytes; %d fit beside what the firmware adds: take words out of the image's cmdline.txt or of the profile", len(line), MaxCmdline)
	}
	return line, warnings, nil
}

// words splits at spaces outside double quotes, as the kernel does.
func words(line string) []string {
	quoted := false
	return strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t' || r == '\r' || r == '\n')
	})
}

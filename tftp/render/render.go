// Package render writes the two text files of a boot that are particular to a node, config.txt and cmdline.txt, out
// of those of its image. It is pure: no files, no clock, no network.
package render

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Spec is what a boot adds to its image.
type Spec struct {
	Initramfs string   // name under which stage 1 is served, such as bramble-stage1; empty: no initramfs line
	Kernel    string   // replaces the image's kernel=; empty: the image's own choice stays
	Config    []string // lines of the profile for config.txt
	Cmdline   []string // words for the kernel command line, such as bramble.server=…
}

// Warning is something that the firmware would take differently than its author thinks.
type Warning struct {
	File   string // config.txt or cmdline.txt
	Line   int    // in the rendered file, from 1
	Text   string // one sentence
	Remedy string // one sentence
}

// String is file, line and both sentences.
func (w Warning) String() string {
	return fmt.Sprintf("%s:%d: %s %s", w.File, w.Line, w.Text, w.Remedy)
}

// Limits of the firmware and of the kernel.
const (
	MaxConfig  = 4096 // bytes of config.txt over the network; what follows is ignored (firmware#1012, #1575)
	MaxColumns = 98   // of a line of config.txt (config_txt/what_is_config_txt)

	// MaxCmdline is what is left of arm64's COMMAND_LINE_SIZE, 2048 with the closing zero, when the firmware has put
	// its own words in front: the device tree's bootargs, 8250.nr_uarts, video, smsc95xx.macaddr, vc_mem and more,
	// which came to some 400 bytes on the boards that are known.
	MaxCmdline = 2048 - 1 - 512
)

// notOverTheNetwork are the settings of an image's config.txt that name its own initramfs or move the files.
var notOverTheNetwork = []string{"auto_initramfs", "initramfs", "ramfsfile", "ramfsaddr", "os_prefix", "cmdline"}

// Config renders config.txt: the image's own without what must not hold for a network boot, then a block for every
// board. Comments are left out when it would be too long otherwise.
func Config(image []byte, spec Spec) ([]byte, []Warning, error) {
	if err := checkLines(spec.Config); err != nil {
		return nil, nil, err
	}
	var kept []string
	for _, line := range lines(image) {
		key := settingOf(line)
		if slices.Contains(notOverTheNetwork, key) || spec.Kernel != "" && key == "kernel" {
			continue
		}
		kept = append(kept, line)
	}
	added := []string{"", "[all]", "arm_64bit=1", "enable_uart=1"}
	if spec.Kernel != "" {
		added = append(added, "kernel="+spec.Kernel)
	}
	if spec.Initramfs != "" {
		added = append(added, "initramfs "+spec.Initramfs+" followkernel")
	}
	added = append(added, spec.Config...)

	all := join(append(trimBlankEnd(kept), added...))
	if len(all) > MaxConfig {
		all = join(append(withoutComments(kept), added[1:]...))
	}
	if len(all) > MaxConfig {
		return nil, nil, fmt.Errorf("config.txt has %d bytes without comments, and over the network the firmware reads %d: take at least %d bytes out of the image's config.txt or the profile's lines", len(all), MaxConfig, len(all)-MaxConfig)
	}
	return all, lint(all), nil
}

func lint(config []byte) (found []Warning) {
	for i, line := range lines(config) {
		w := Warning{File: "config.txt", Line: i + 1}
		switch key := settingOf(line); {
		case key == "":
			continue
		case len(line) > MaxColumns:
			w.Text = fmt.Sprintf("The line has %d characters and the firmware reads %d of them.", len(line), MaxColumns)
			w.Remedy = "Split it, for example into one dtparam line for each parameter."
		case key == "include":
			w.Text = "The file that is included is not checked, and bootcode.bin does not read it."
			w.Remedy = "Put its lines into config.txt itself."
		default:
			continue
		}
		found = append(found, w)
	}
	return found
}

// lines splits a text with either kind of line end; a byte order mark is no part of it.
func lines(text []byte) []string {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if len(all) == 1 && all[0] == "" {
		return nil
	}
	return all
}

// settingOf is the name of the setting that a line makes, in lower case: of "name=value", of "initramfs file addr" and
// of "include file"; "" for comments, filters and empty lines.
func settingOf(line string) string {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' || line[0] == '[' {
		return ""
	}
	end := strings.IndexAny(line, "= \t")
	if end < 0 {
		end = len(line)
	}
	return strings.ToLower(line[:end])
}

func checkLines(profile []string) error {
	for _, line := range profile {
		if strings.ContainsAny(line, "\r\n\x00") {
			return fmt.Errorf("the profile's config line %q holds a line break: give each line as an entry of its own", line)
		}
	}
	return nil
}

func withoutComments(all []string) (kept []string) {
	for _, line := range all {
		if t := strings.TrimSpace(line); t != "" && t[0] != '#' {
			kept = append(kept, line)
		}
	}
	return kept
}

func trimBlankEnd(all []string) []string {
	for len(all) > 0 && strings.TrimSpace(all[len(all)-1]) == "" {
		all = all[:len(all)-1]
	}
	return all
}

func join(all []string) []byte { return []byte(strings.Join(all, "\n") + "\n") }

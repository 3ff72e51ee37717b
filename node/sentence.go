package node

import (
	"fmt"
	"path"
	"strings"
)

// Sentence tells an event in one sentence, for the timeline, the log and the command line. It says what the other
// columns of a timeline do not: neither the time, nor the board, nor how long it took.
func Sentence(e Event) string {
	switch e.Kind {
	case BootStarted:
		return join("Power on: the boot ROM asks for an address.", e.Text)
	case BootRefused:
		return join("Not served.", e.Text)
	case Offered:
		return offered(e)
	case Leased:
		return fmt.Sprintf("Address %s given.", e.Addr)
	case FileSent:
		return sent(e)
	case FileMissed:
		if optional[path.Base(e.File)] {
			return fmt.Sprintf("%s is not there, which is normal.", e.File)
		}
		return fmt.Sprintf("%s was asked for and is not there.", name(e.File, "A file"))
	case FileLost:
		return join(fmt.Sprintf("The board fell silent while it read %s.", name(e.File, "a file")), e.Text)
	case StepDone:
		return join(done(e.Step), e.Text)
	case StepFailed:
		return join(fmt.Sprintf("Stage 1 failed at the step %s.", name(e.Step, "unknown")), e.Text)
	case RootOpened:
		return join("The root's block connection is open.", e.Text)
	case RootClosed:
		return join("The root's block connection is closed.", e.Text)
	case Login:
		return "One can log in."
	case AgentDone:
		return join(agentDone(e), e.Text)
	case AgentFailed:
		return join(fmt.Sprintf("The agent's step %s failed.", name(e.Step, "unknown")), e.Text)
	case Enrolled:
		return join("Enrolled: the node has its certificate.", e.Text)
	case Waiting:
		return fmt.Sprintf("Waits for approval; its console and this line must show the same code: %s.", name(e.Text, "unknown"))
	case Refused:
		return join("Not enrolled.", e.Text)
	case Alarm:
		return join("ALARM: nobody can join in this boot any more.", e.Text)
	case Degraded:
		return join("Degraded.", e.Text)
	case Ready:
		return join("Ready: one can log in.", e.Text)
	case ConfigChanged:
		return join(fmt.Sprintf("The configuration is now commit %s.", name(short(e.Commit), "unknown")), e.Text)
	case ConfigRefused:
		return join(fmt.Sprintf("Commit %s of the configuration was not taken; the last good one holds.", name(short(e.Commit), "unknown")), e.Text)
	case Forgotten:
		return "Forgotten on request."
	case Started:
		return join("The appliance started.", e.Text)
	case Finding, Warning:
		return join(e.Text)
	}
	return join(string(e.Kind)+".", e.Text)
}

// optional are the files that firmware asks for and does without (pi-netboot.md section 2.4).
var optional = map[string]bool{
	"bootsig.bin": true, "autoboot.txt": true, "recovery.elf": true, "dt-blob.bin": true, "bootcfg.txt": true,
	"recovery8.img": true, "recovery7.img": true, "recovery8-32.img": true, "recovery.img": true,
	"armstub8.bin": true, "armstub8-32.bin": true, "armstub8-gic.bin": true, "pieeprom.sig": true, "pieeprom.upd": true,
	"recover4.elf": true, "vl805.sig": true, "vl805.bin": true, "boot.sig": true, "tryboot.txt": true,
}

func offered(e Event) string {
	to := "the board"
	switch e.File {
	case "rom":
		to = "the boot ROM"
	case "bootcode":
		to = "bootcode.bin"
	case "eeprom":
		to = "the EEPROM bootloader"
	}
	return join(fmt.Sprintf("OFFER sent to %s.", to), e.Text)
}

func sent(e Event) string {
	s := fmt.Sprintf("%s sent, %s", name(e.File, "A file"), Size(e.Bytes))
	switch {
	case e.Resent == 1:
		s += ", one block twice"
	case e.Resent > 1:
		s += fmt.Sprintf(", %d blocks again", e.Resent)
	}
	return s + "."
}

func done(step string) string {
	switch step {
	case "network":
		return "Stage 1 runs and has the network."
	case "clock":
		return "The clock is set."
	case "plan":
		return "Stage 1 has its plan."
	case "root":
		return "The root is attached, read-only."
	case "overlay":
		return "The RAM overlay is on top of the root."
	case "files":
		return "The node's own files are in place."
	case "handover":
		return "Stage 1 hands over to systemd."
	}
	return fmt.Sprintf("Step %s is done.", name(step, "unknown"))
}

func agentDone(e Event) string {
	switch e.Step {
	case "facts":
		return "The agent runs."
	case "ssh":
		return "The SSH host key is certified."
	case "config":
		return fmt.Sprintf("The configuration is on the node, commit %s.", name(short(e.Commit), "unknown"))
	case "salt":
		return fmt.Sprintf("The highstate is green, commit %s.", name(short(e.Commit), "unknown"))
	}
	return fmt.Sprintf("The agent's step %s is done.", name(e.Step, "unknown"))
}

// short is how git shortens a commit.
func short(commit string) string { return commit[:min(len(commit), 8)] }

// Size writes a number of bytes for people: 512 B, 7.3 kB, 2.9 MB.
func Size(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 999_950:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 999_950_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}

func name(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// join puts what there is into one line. A text without an end gets a full stop.
func join(parts ...string) string {
	var said []string
	for _, p := range parts {
		p = strings.Join(strings.Fields(p), " ")
		if p == "" {
			continue
		}
		if !strings.HasSuffix(p, ".") && !strings.HasSuffix(p, "!") && !strings.HasSuffix(p, "?") {
			p += "."
		}
		said = append(said, p)
	}
	return strings.Join(said, " ")
}

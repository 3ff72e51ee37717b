package boot

import (
	"fmt"
	"path"
	"strings"
	"time"

	"bramble/node"
)

// How long a board may be silent at each stage before something is wrong (pi-netboot.md sections 1.6 and 2.4:
// DISCOVERs come every 5 s for 25 s, start.elf is asked for a tenth of a second after bootcode.bin, a missing
// file costs start.elf 10 s, the kernel asks for an address 10 s after its last block).
const (
	romPatience      = 12 * time.Second
	romGivesUp       = 30 * time.Second
	bootcodePatience = 10 * time.Second
	firmwarePatience = 15 * time.Second
	kernelPatience   = 60 * time.Second
	stage1Patience   = 60 * time.Second
	rootPatience     = 180 * time.Second
	agentPatience    = 20 * time.Minute // a highstate says nothing while it runs, and may take a quarter of an hour
)

// Explain says in sentences why a board does not go on, and what to do about it. It is empty while all is well:
// when the board is ready, never booted, or was heard of a moment ago. findings are what the probe says of the
// segment now; they come in where the network is the likely cause.
func Explain(s node.State, now time.Time, findings []string) string {
	silent := now.Sub(s.Last.Time)
	switch {
	case s.Last.Kind == node.BootRefused:
		return s.Problem
	case s.Last.Kind == node.Warning && s.Stage < node.StageKernel && silent >= firmwarePatience:
		return join("The board has been silent since this: "+s.Last.Text, "Cycle the power when it is mended.")
	case s.Stage == node.StageROM && silent >= romPatience, s.Stage == node.StageROM && s.Offers >= 3:
		return explainROM(s, silent, findings)
	case s.Stage == node.StageBootcode && silent >= bootcodePatience:
		return explainBootcode(s, silent, findings)
	case s.Stage == node.StageFirmware && (silent >= firmwarePatience || s.Problem != ""):
		return explainFirmware(s, silent)
	case s.Stage == node.StageKernel && silent >= kernelPatience:
		return fmt.Sprintf("The kernel was sent %s ago, but stage 1 has not spoken. Either the firmware refused the kernel or the initramfs "+
			"(both must fit the board and one another), or the kernel has no driver for the board's Ethernet. "+
			"A screen or the serial console shows which.", ago(silent))
	case s.Stage == node.StageStage1 && s.Problem != "":
		return join(s.Problem, "Stage 1 goes on trying by itself.")
	case s.Stage == node.StageStage1 && silent >= stage1Patience:
		return fmt.Sprintf("Stage 1 has said nothing for %s%s. It may have lost the network: look at the cable, the switch and the board's console.",
			ago(silent), after(s.Last.Step))
	case s.Stage == node.StageRoot && s.Problem != "":
		return join(s.Problem, "The board waits for its root and goes on when it is back.")
	case s.Stage == node.StageRoot && silent >= rootPatience:
		return fmt.Sprintf("systemd took over %s ago, but nobody can log in yet. A service may hang while it starts; the board's console shows which one.",
			ago(silent))
	case s.Waiting != "":
		return fmt.Sprintf("The node waits for you: compare the code on its console with %s, then run bramble approve %s %s.", s.Waiting, s.Name, s.Waiting)
	case s.Stage == node.StageLogin && s.Problem == "" && silent >= agentPatience:
		return fmt.Sprintf("One can log in, but the agent has said nothing for %s%s. journalctl -u bramble-agent on the node shows why.",
			ago(silent), after(s.Last.Step))
	case s.Stage >= node.StageLogin:
		return s.Problem
	}
	return ""
}

// explainROM: nothing was fetched yet (section 5, lines 3 to 7, 16 and 21).
func explainROM(s node.State, silent time.Duration, findings []string) string {
	if s.Last.Kind == node.FileMissed && path.Base(s.Last.File) == "bootcode.bin" {
		return "The boot ROM asked for bootcode.bin and did not get it: the image has none, so it cannot start a Raspberry Pi 3. Choose another image."
	}
	if s.Last.Kind == node.FileLost {
		return join(fmt.Sprintf("The board fell silent while it read %s.", s.LastFile), lossy(s))
	}
	var says []string
	switch {
	case s.Offers == 0:
		says = append(says, fmt.Sprintf("The boot ROM asked for an address %s ago and no OFFER could be sent.", ago(silent)))
	case s.Offers == 1:
		says = append(says, "One OFFER was sent, but the board never asked for a file.")
	default:
		says = append(says, fmt.Sprintf("%d OFFERs were sent, but the board never asked for a file.", s.Offers))
	}
	if len(findings) > 0 {
		says = append(says, findings...)
	} else {
		says = append(says, "Is there a main DHCP server? bramble's OFFER carries no address, and a Pi needs both. "+
			"If there is one: does it send option 66 or a boot menu of its own, which would lead the board to another TFTP host?")
	}
	if s.Model == node.Pi3B {
		says = append(says, "A 3B often misses an OFFER by a fault of its boot ROM; bramble delays and repeats for it, and another power cycle helps.")
	}
	if silent >= romGivesUp && s.Model != node.Pi4 && s.Model != node.Pi5 {
		says = append(says, "The boot ROM has given up by now: it asks five times in 25 seconds. Cycle the power.")
	}
	return join(says...)
}

// explainBootcode: bootcode.bin was read, start.elf never (lines 8, 9, 10 and 15).
func explainBootcode(s node.State, silent time.Duration, findings []string) string {
	switch {
	case s.Last.Kind == node.FileMissed && isStart(s.Last.File):
		return "start.elf is neither in the board's own directory nor at the top of the image; the board shows it by four flashes of its LED. The image has no firmware for a Raspberry Pi 3."
	case s.Last.Kind == node.FileLost:
		return join(fmt.Sprintf("The board fell silent while it read %s.", s.LastFile), lossy(s))
	case s.Offers == 0:
		return fmt.Sprintf("bootcode.bin was sent %s ago, and nothing came after it: neither a DISCOVER nor a request for start.elf. "+
			"A damaged transfer or a bootcode.bin from before 2019 does that. Cycle the power; if it happens again, take an image with newer firmware.", ago(silent))
	}
	return join(append([]string{fmt.Sprintf("bootcode.bin got an OFFER, but has not asked for start.elf for %s. It could not reach this machine: "+
		"its ARP question may go unanswered, or the answer came from another interface. Cycle the power once; it is a known fault of bootcode.bin, too.",
		ago(silent))}, findings...)...)
}

// explainFirmware: start.elf or an EEPROM reads files (lines 11 to 15 and 20).
func explainFirmware(s node.State, silent time.Duration) string {
	switch base := path.Base(s.Last.File); {
	case s.Last.Kind == node.FileMissed && strings.HasPrefix(base, "kernel"):
		return fmt.Sprintf("%s is not in the image: the firmware found no kernel and shows it by seven flashes of the LED. Check kernel= in config.txt and arm_64bit.", base)
	case s.Last.Kind == node.FileMissed && strings.HasSuffix(base, ".dtb"):
		return fmt.Sprintf("%s is not in the image: the image does not know this board.", base)
	case s.Last.Kind == node.FileLost:
		return join(fmt.Sprintf("The board fell silent while it read %s.", s.LastFile), lossy(s))
	case s.Problem != "":
		return s.Problem
	case isStart(s.LastFile):
		return fmt.Sprintf("start.elf was sent %s ago, and the board asked for nothing after it. start.elf and fixup.dat must come from the same release. Cycle the power.", ago(silent))
	}
	return join(fmt.Sprintf("The firmware stopped after %s and has been silent for %s.", s.LastFile, ago(silent)),
		"No kernel was sent: a file may have been cut short by loss, or config.txt names a kernel that is not there.", lossy(s))
}

// lossy is advice on a bad link, with the evidence.
func lossy(s node.State) string {
	advice := "Packet loss does that: bootcode.bin gives a file up one second after a lost block. Try another cable or switch port"
	if s.Resent > 0 {
		return fmt.Sprintf("%s; %d blocks had to be sent again in this boot.", advice, s.Resent)
	}
	return advice + ", and look whether the board lost its power."
}

func isStart(file string) bool {
	ok, _ := path.Match("start*.elf", path.Base(file))
	return ok
}

func after(step string) string {
	if step == "" {
		return ""
	}
	return " after the step " + step
}

func ago(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d seconds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func join(says ...string) string {
	var some []string
	for _, s := range says {
		if s != "" {
			some = append(some, s)
		}
	}
	return strings.Join(some, " ")
}

package pisim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Model is a kind of board: who it is and what it does from power-on to the kernel. Everything in it is a knob.
type Model struct {
	Name    string
	OUI     [3]byte  // of its Ethernet address; the rest is the low half of the serial
	Tag     string   // first four bytes of the EEPROM's GUID
	Filters []string // sections of config.txt that are meant for it, "pi3" for [pi3]
	DTBs    []string // device trees it asks for, until one is there
	Stages  []Stage

	Kernel64, Kernel32 string // default names; Kernel32 is empty where there is no 32-bit boot
	Arm64              bool   // arm_64bit when config.txt does not say
	Start, Fixup       string // "start%s.elf": %s is "", "_cd", "_x" or "_db"
	RevisionCode       uint32
	FirmwareArgs       string // what the firmware puts in front of cmdline.txt
	SerialConsole      string // what console=serial0 becomes
}

// Stage is one program of the boot: the mask ROM, bootcode.bin, start.elf, or the EEPROM.
type Stage struct {
	Name       string
	DHCP       *DHCP // nil: the stage goes on with the address of the one before
	TFTP       TFTP
	ARPTries   int  // requests, a second apart, before it gives up finding the server
	AnswersARP bool // also while it transfers files
	Gateway    bool // reaches a TFTP server outside its network
	Steps      []Step
}

// DHCP says how a stage asks for its address.
type DHCP struct {
	Form      Form
	Discovers int           // then silence, for good
	Interval  time.Duration // between two of them
	Series    int           // how often all that is repeated; 0 means once
	Pause     time.Duration // between series

	Gather         time.Duration // how long it takes offers after the first that completes the set
	NeedsNextFrame bool          // receive bug of the 3B: a frame is looked at only when another one arrives
	ReceiveTimeout time.Duration // with the bug: silence after which a waiting frame is dropped
	TooFast        time.Duration // a complete set within this time of the DISCOVER is lost, if not 0 (3B, §1.6)
	ChecksXID      bool
	ChecksMAC      bool // ignores OFFERs for others; the 3-series does not
	TFTPFromProxy  bool // option 66 counts in an OFFER without address
	MenuText       string
	Request        bool // makes a lease: REQUEST and ACK
}

// TFTP says how a stage asks for files.
type TFTP struct {
	TSize     bool
	BlockSize int // blksize to ask for; 0: not asked
	FirstPort uint16
	SamePort  bool          // every request from FirstPort; otherwise one higher each
	Wait      time.Duration // for anything new, before the file is given up

	// RFC1350 makes it ask again for a lost request and acknowledge a duplicate. The 3-series is not known to do
	// either, so its models do neither, and a duplicate may confuse it.
	RFC1350       bool
	AskAgain      time.Duration // with RFC1350: how long after an unanswered request
	DupOACKBreaks bool
	DupDataBreaks bool

	NeedsOACK bool // a file sent without OACK counts as missing
	Wraps     bool // counts blocks beyond 65535
	LateAbort bool // at times opens the next request before it aborts a probe

	Pace time.Duration // a board's own time for a block; 0 is as fast as possible
}

const (
	second = time.Second

	stageROM, stageBootcode, stageStart, stageEEPROM = "rom", "bootcode", "start", "eeprom"

	firmwareArgs3 = "coherent_pool=1M 8250.nr_uarts=%d snd_bcm2835.enable_headphones=0 snd_bcm2835.enable_hdmi=0 " +
		"smsc95xx.macaddr=%s vc_mem.mem_base=0x3ec00000 vc_mem.mem_size=0x40000000"
)

// Models are the names that NewModel knows.
func Models() []string { return []string{"3b+", "3b", "3b-sd", "4", "5"} }

// NewModel returns a model with the knobs of §7.2, for the caller to turn. "3b-sd" is a 2 or 3 whose SD card holds
// nothing but bootcode.bin.
func NewModel(name string) (Model, error) {
	switch name {
	case "3b+":
		m := series3()
		m.Filters = []string{"pi3", "pi3+"}
		m.DTBs = []string{"bcm2710-rpi-3-b-plus.dtb", "bcm2710-rpi-3-b.dtb"}
		m.RevisionCode = 0xa020d3
		return m.order("bookworm-2024")
	case "3b":
		m := series3()
		m.Name = name
		m.Stages[0] = rom3B()
		return m.order("bookworm-2024")
	case "3b-sd":
		m := series3()
		m.Name = name
		m.Stages = m.Stages[1:]
		m.Stages[0].DHCP.Series, m.Stages[0].DHCP.Pause = 3, 60*second
		return m.order("bookworm-2024")
	case "4":
		return model4().order("pi4")
	case "5":
		return model5().order("pi5")
	}
	return Model{}, fmt.Errorf("there is no model %q: choose one of %s", name, strings.Join(Models(), ", "))
}

// Builds are the request orders that WithBuild knows.
func Builds() []string { return []string{"bookworm-2024", "bullseye-2022"} }

// WithBuild gives a 3-series model the firmware of another release: its request order and TFTP options.
func (m Model) WithBuild(build string) (Model, error) {
	if !slices.Contains(Builds(), build) || m.stage(stageStart) == nil || m.stage(stageBootcode) == nil {
		return m, fmt.Errorf("model %s has no firmware build %q: choose one of %s, for a 3-series model", m.Name, build, strings.Join(Builds(), ", "))
	}
	m = m.clone()
	if build == "bullseye-2022" {
		m.stage(stageStart).TFTP.BlockSize = 0
	}
	return m.order(build)
}

// WithRFC1350 makes every stage ask again for a lost request, and acknowledge a duplicate.
func (m Model) WithRFC1350() Model {
	m = m.clone()
	for i := range m.Stages {
		t := &m.Stages[i].TFTP
		t.RFC1350, t.DupOACKBreaks, t.DupDataBreaks = true, false, false
		if t.AskAgain == 0 {
			t.AskAgain = second / 4
		}
	}
	return m
}

func (m Model) clone() Model {
	m.Stages = slices.Clone(m.Stages)
	for i := range m.Stages {
		if d := m.Stages[i].DHCP; d != nil {
			d := *d
			m.Stages[i].DHCP = &d
		}
	}
	return m
}

func (m Model) stage(name string) *Stage {
	i := slices.IndexFunc(m.Stages, func(s Stage) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &m.Stages[i]
}

// order fills in the steps of each stage.
func (m Model) order(build string) (Model, error) {
	steps, err := readOrder(build)
	if err != nil {
		return m, err
	}
	for i := range m.Stages {
		m.Stages[i].Steps = steps[m.Stages[i].Name]
	}
	return m, nil
}

// series3 is a 3B but for its ROM, which is the 3B+'s.
func series3() Model {
	discovers := DHCP{
		Form: Form3BPlus, Discovers: 5, Interval: 5 * second, ChecksXID: true, TFTPFromProxy: true, MenuText: menuText,
	}
	inROM, inBootcode := discovers, discovers
	return Model{
		Name: "3b+", OUI: [3]byte{0xb8, 0x27, 0xeb}, Filters: []string{"pi3"}, DTBs: []string{"bcm2710-rpi-3-b.dtb"},
		Kernel64: "kernel8.img", Kernel32: "kernel7.img", Start: "start%s.elf", Fixup: "fixup%s.dat",
		RevisionCode: 0xa02082, FirmwareArgs: firmwareArgs3, SerialConsole: "ttyS0",
		Stages: []Stage{{
			Name: stageROM, DHCP: &inROM, ARPTries: 5, AnswersARP: true, Gateway: true,
			TFTP: TFTP{FirstPort: 49153, Wait: second},
		}, {
			Name: stageBootcode, DHCP: &inBootcode, ARPTries: 5, AnswersARP: true, Gateway: true,
			TFTP: TFTP{TSize: true, FirstPort: 49153, Wait: second, DupOACKBreaks: true, LateAbort: true},
		}, {
			Name: stageStart, ARPTries: 5, AnswersARP: true, Gateway: true,
			TFTP: TFTP{TSize: true, BlockSize: 1468, FirstPort: 49153, Wait: 10 * second, NeedsOACK: true,
				DupOACKBreaks: true, DupDataBreaks: true, LateAbort: true},
		}},
	}
}

func rom3B() Stage {
	return Stage{
		Name: stageROM, ARPTries: 5,
		DHCP: &DHCP{
			Form: Form3B, Discovers: 5, Interval: 5 * second, ChecksXID: true, TFTPFromProxy: true, MenuText: menuText,
			NeedsNextFrame: true, ReceiveTimeout: second,
		},
		TFTP: TFTP{FirstPort: 49152, SamePort: true, Wait: second},
	}
}

func eeprom() Stage {
	return Stage{
		Name: stageEEPROM, ARPTries: 5, AnswersARP: true, Gateway: true,
		DHCP: &DHCP{
			Form: FormEEPROM, Discovers: 11, Interval: 4 * second, Gather: second, ChecksXID: true, ChecksMAC: true,
			TFTPFromProxy: true, MenuText: menuText, Request: true,
		},
		TFTP: TFTP{TSize: true, BlockSize: 1468, FirstPort: 40187, Wait: 30 * second, RFC1350: true, AskAgain: 2 * second,
			NeedsOACK: true, Wraps: true},
	}
}

func model4() Model {
	start := series3().Stages[2]
	return Model{
		Name: "4", OUI: [3]byte{0xdc, 0xa6, 0x32}, Tag: "RPi4", Filters: []string{"pi4"}, DTBs: []string{"bcm2711-rpi-4-b.dtb"},
		Kernel64: "kernel8.img", Kernel32: "kernel7l.img", Arm64: true, Start: "start4%s.elf", Fixup: "fixup4%s.dat",
		RevisionCode: 0xc03112, FirmwareArgs: firmwareArgs3, SerialConsole: "ttyS0",
		Stages: []Stage{eeprom(), start},
	}
}

func model5() Model {
	return Model{
		Name: "5", OUI: [3]byte{0x2c, 0xcf, 0x67}, Tag: "RPi5", Filters: []string{"pi5"}, DTBs: []string{"bcm2712-rpi-5-b.dtb"},
		Kernel64: "kernel_2712.img", Arm64: true,
		RevisionCode: 0xc04170, FirmwareArgs: "coherent_pool=1M 8250.nr_uarts=%d macb.macaddr=%s", SerialConsole: "ttyAMA10",
		Stages: []Stage{eeprom()},
	}
}

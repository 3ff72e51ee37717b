package pisim

import (
	"embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

//go:embed orders/*.txt
var orderFiles embed.FS

// Step is a line of a request order: what to do, with which files, and what depends on it.
type Step struct {
	Verbs []string // "probe", "read", or one "osprefix"
	Names []string // alternatives: the first that is there; or one variable such as "$kernel"
	Flags []string // see orders/bookworm-2024.txt
	LED   int      // flashes when a needed file is missing
}

func (s Step) has(flag string) bool { return slices.Contains(s.Flags, flag) }

// counts tells whether something is missing afterwards if the step fails although the file is there.
func (s Step) counts() bool { return s.has("prefix") || slices.Contains(s.Verbs, "read") }

var (
	verbs = []string{"probe", "read", "osprefix"}
	flags = []string{"prefix", "needed", "never", "config", "overlays", "start", "root"}
	vars  = []string{"$start", "$fixup", "$kernel", "$initramfs", "$dtb", "$overlays", "$cmdline", "$armstub", "$recovery"}
)

// ParseOrder reads a request order: the steps of each stage. The form is explained in orders/bookworm-2024.txt.
func ParseOrder(text string) (map[string][]Step, error) {
	order, stage := map[string][]Step{}, ""
	for i, line := range strings.Split(text, "\n") {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || strings.HasPrefix(line, "#"):
			continue
		case len(fields) == 2 && fields[0] == "stage":
			stage = fields[1]
			continue
		case stage == "" || len(fields) < 2:
			return nil, fmt.Errorf("request order, line %d: %q: write VERBS NAMES [FLAGS] below a line \"stage NAME\"", i+1, line)
		}
		step, err := parseStep(fields)
		if err != nil {
			return nil, fmt.Errorf("request order, line %d: %w", i+1, err)
		}
		order[stage] = append(order[stage], step)
	}
	return order, nil
}

func parseStep(fields []string) (Step, error) {
	s := Step{Verbs: strings.Split(fields[0], ","), Names: strings.Split(fields[1], "|")}
	for _, v := range s.Verbs {
		if !slices.Contains(verbs, v) {
			return s, fmt.Errorf("there is no verb %q: use %s", v, strings.Join(verbs, ", "))
		}
	}
	if strings.HasPrefix(fields[1], "$") && !slices.Contains(vars, fields[1]) {
		return s, fmt.Errorf("there is no variable %q: use %s", fields[1], strings.Join(vars, ", "))
	}
	for _, f := range fields[2:] {
		if n, ok := strings.CutPrefix(f, "led="); ok {
			led, err := strconv.Atoi(n)
			if err != nil {
				return s, fmt.Errorf("%q: write a number of flashes", f)
			}
			s.LED = led
			continue
		}
		name, ok := strings.CutPrefix(f, "!")
		if !ok || !slices.Contains(flags, name) {
			return s, fmt.Errorf("there is no flag %q: use !%s", f, strings.Join(flags, ", !"))
		}
		s.Flags = append(s.Flags, name)
	}
	return s, nil
}

// readOrder reads an order that is built in.
func readOrder(build string) (map[string][]Step, error) {
	text, err := orderFiles.ReadFile("orders/" + build + ".txt")
	if err != nil {
		return nil, fmt.Errorf("there is no request order %q: %w", build, err)
	}
	return ParseOrder(string(text))
}

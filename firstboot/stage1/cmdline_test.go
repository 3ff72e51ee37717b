package stage1

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bramble/node"
)

func TestWords(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"":                          {},
		" a b=1  c=\n":              {"a": "", "b": "1", "c": ""},
		`a="x y" "b=1 2" c`:         {"a": "x y", "b": "1 2", "c": ""},
		"a=1 a=2":                   {"a": "2"},
		"dyndbg=\"file a +p; b\" x": {"dyndbg": "file a +p; b", "x": ""},
		"a=b=c":                     {"a": "b=c"},
	} {
		if d := cmp.Diff(want, Words(text)); d != "" {
			t.Errorf("Words(%q): -want +got:\n%s", text, d)
		}
	}
}

func TestReadOrders(t *testing.T) {
	mac := node.MAC{0xb8, 0x27, 0xeb, 1, 2, 3}
	for _, c := range []struct {
		line string
		want Orders
		err  string
	}{
		{"console=tty1 bramble.server=10.0.0.1:8080 bramble.boot=0badcafe bramble.mac=b8:27:eb:01:02:03", Orders{"10.0.0.1:8080", "0badcafe", mac}, ""},
		{"bramble.server=10.0.0.1:8080", Orders{Server: "10.0.0.1:8080"}, ""},
		{"bramble.server=[fe80::1]:80 bramble.boot=1", Orders{Server: "[fe80::1]:80", Boot: "1"}, ""},
		{"console=tty1", Orders{}, "bramble.server"},
		{"bramble.server=appliance:80", Orders{}, "no address and port"},
		{"bramble.server=1.2.3.4:5 bramble.boot=x&y=z", Orders{}, "no boot"},
		{"bramble.server=1.2.3.4:5 bramble.mac=here", Orders{}, "not a MAC address"},
	} {
		got, err := ReadOrders(c.line)
		if c.err != "" {
			if err == nil || !errors.Is(err, ErrOrders) || !strings.Contains(err.Error(), c.err) {
				t.Errorf("ReadOrders(%q): %v; want an ErrOrders with %q", c.line, err, c.err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("ReadOrders(%q) = %+v, %v; want %+v", c.line, got, err, c.want)
		}
	}
}

// FuzzReadOrders: whatever the command line is, what comes out of it fits into a request line.
func FuzzReadOrders(f *testing.F) {
	f.Add("bramble.server=10.0.0.1:8080 bramble.boot=0badcafe bramble.mac=b8:27:eb:01:02:03")
	f.Add(`a="b c" bramble.server="1.2.3.4:5 "`)
	f.Fuzz(func(t *testing.T, line string) {
		o, err := ReadOrders(line)
		if err == nil && strings.ContainsAny(o.Server+string(o.Boot), " \r\n\t?&") {
			t.Errorf("ReadOrders(%q) = %+v", line, o)
		}
	})
}

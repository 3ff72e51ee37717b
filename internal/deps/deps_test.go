// Package deps holds the import rules of the house as a test.
package deps

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "bramble/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 8 {
		t.Fatalf("go list found only %d packages; run the test inside the module", len(all))
	}
	return all
}

// under reports whether path is folder or lies in it.
func under(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

// Which folders may not know which, and why.
var never = []struct{ folder, of, why string }{
	{"bramble/node", "net/http", "node is the vocabulary: no sockets, files or clocks"},
	{"bramble/node", "bramble/boot", "policy stands on the vocabulary, not the other way round"},
	{"bramble/boot", "net/http", "the policy is pure"},
	{"bramble/boot", "bramble/dhcp", "the policy knows no protocol"},
	{"bramble/boot", "bramble/tftp", "the policy knows no protocol"},
	{"bramble/images", "bramble/node", "images know nothing of boards"},
	{"bramble/images", "bramble/boot", "images know nothing of boards"},
	{"bramble/nbd", "bramble/node", "the block export knows nothing of boards"},
	{"bramble/nbd", "bramble/boot", "the block export knows nothing of boards"},
	{"bramble/nbd", "bramble/images", "the block export knows nothing of images"},
	{"bramble/journal", "bramble/web", "the log does not know its readers"},
	{"bramble/dhcp", "bramble/tftp", "servers do not know each other: what they share goes through boot and node"},
	{"bramble/tftp", "bramble/dhcp", "servers do not know each other: what they share goes through boot and node"},
	{"bramble/web", "bramble/dhcp", "servers do not know each other: what they share goes through boot and node"},
	{"bramble/web", "bramble/tftp", "servers do not know each other: what they share goes through boot and node"},
	{"bramble/firstboot", "bramble/web", "the node's side knows only the wire"},
	{"bramble/lab/pisim", "bramble/dhcp", "the simulator must not share the server's mistakes"},
	{"bramble/lab/pisim", "bramble/tftp", "the simulator must not share the server's mistakes"},
	{"bramble/lab/pisim", "bramble/boot", "the simulator must not share the server's mistakes"},
	{"bramble/cmd/stage1", "net/http", "stage 1 crosses TFTP at 1 MB/s: every megabyte is a second"},
}

func TestNever(t *testing.T) {
	for _, p := range packages(t) {
		for _, rule := range never {
			if under(p.ImportPath, rule.folder) && slices.ContainsFunc(p.Deps, func(d string) bool { return under(d, rule.of) }) {
				t.Errorf("%s depends on %s: %s", p.ImportPath, rule.of, rule.why)
			}
		}
		if !under(p.ImportPath, "bramble/cmd") && !under(p.ImportPath, "bramble/lab") {
			for _, i := range p.Imports {
				if under(i, "bramble/cmd") || under(i, "bramble/lab") {
					t.Errorf("%s imports %s: the product does not stand on its commands or its lab", p.ImportPath, i)
				}
			}
		}
	}
}

// A third-party library is imported in one folder, two at the most, so that it can be replaced there.
func TestThirdParty(t *testing.T) {
	const most = 2
	everywhere := []string{"golang.org/x"} // half the standard library
	users := map[string][]string{}
	for _, p := range packages(t) {
		folder := strings.SplitN(strings.TrimPrefix(p.ImportPath, "bramble/"), "/", 2)[0]
		for _, i := range p.Imports {
			if !strings.Contains(strings.SplitN(i, "/", 2)[0], ".") {
				continue
			}
			module := strings.Join(strings.SplitN(i, "/", 4)[:min(3, strings.Count(i, "/")+1)], "/")
			if slices.ContainsFunc(everywhere, func(e string) bool { return under(module, e) }) {
				continue
			}
			if !slices.Contains(users[module], folder) {
				users[module] = append(users[module], folder)
			}
		}
	}
	for module, folders := range users {
		if len(folders) > most {
			t.Errorf("%s is imported in %v: wrap it in one of them", module, folders)
		}
	}
}

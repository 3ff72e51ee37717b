package initramfs

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// maxLine of a module index. The longest lines of Debian's modules.dep have two thousand bytes.
const maxLine = 1 << 20

// index is what depmod wrote down about a kernel's modules. Names have underscores for dashes, as the kernel has them.
type index struct {
	files   map[string]string   // name → path, like kernel/fs/ext4/ext4.ko.xz
	deps    map[string][]string // name → names
	pre     map[string][]string // soft dependencies: load before, when there
	post    map[string][]string // and after
	aliases map[string][]string // only those without a wildcard
	builtin map[string]bool
}

// readIndex reads modules.dep, and modules.builtin, modules.softdep and modules.alias, which may be missing.
func readIndex(fsys fs.FS, release string) (*index, error) {
	x := &index{
		files: map[string]string{}, deps: map[string][]string{}, pre: map[string][]string{}, post: map[string][]string{},
		aliases: map[string][]string{}, builtin: map[string]bool{},
	}
	for _, f := range []struct {
		name string
		must bool
		line func(string)
	}{
		{"modules.dep", true, x.depLine},
		{"modules.builtin", false, func(line string) { x.builtin[moduleName(line)] = true }},
		{"modules.softdep", false, x.softdepLine},
		{"modules.alias", false, x.aliasLine},
	} {
		err := eachLine(fsys, path.Join(release, f.name), f.line)
		if errors.Is(err, fs.ErrNotExist) && !f.must {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the modules of kernel %s cannot be used without %s: %w", release, f.name, err)
		}
	}
	return x, nil
}

func eachLine(fsys fs.FS, name string, use func(string)) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(make([]byte, 64<<10), maxLine)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' {
			use(line)
		}
	}
	return s.Err()
}

// moduleName is the kernel's name of a module, from its file's path or from what people write.
func moduleName(file string) string {
	base, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

func (x *index) depLine(line string) {
	file, deps, ok := strings.Cut(line, ":")
	if !ok {
		return
	}
	name := moduleName(file)
	x.files[name] = file
	for dep := range strings.FieldsSeq(deps) {
		x.deps[name] = append(x.deps[name], moduleName(dep))
	}
}

// softdepLine reads "softdep NAME pre: A B post: C"; words before the first colon mean nothing (modprobe.d(5)).
func (x *index) softdepLine(line string) {
	words := strings.Fields(line)
	if len(words) < 2 || words[0] != "softdep" {
		return
	}
	name := moduleName(words[1])
	var into map[string][]string
	for _, w := range words[2:] {
		switch {
		case w == "pre:":
			into = x.pre
		case w == "post:":
			into = x.post
		case into != nil:
			into[name] = append(into[name], w)
		}
	}
}

func (x *index) aliasLine(line string) {
	words := strings.Fields(line)
	if len(words) != 3 || words[0] != "alias" || strings.ContainsAny(words[1], "*?[") {
		return
	}
	alias := moduleName(words[1])
	x.aliases[alias] = append(x.aliases[alias], moduleName(words[2]))
}

// resolve finds the modules that a name or alias means. known is false when the kernel does not have it at all;
// a built-in module is known and needs no file.
func (x *index) resolve(want string) (names []string, known bool) {
	name := moduleName(want)
	switch {
	case x.builtin[name]:
		return nil, true
	case x.files[name] != "":
		return []string{name}, true
	}
	for _, n := range x.aliases[name] {
		if x.files[n] != "" {
			names = append(names, n)
		}
		known = known || x.files[n] != "" || x.builtin[n]
	}
	return names, known
}

// order is the paths of the wanted modules and all that they depend on, each after what it needs.
func (x *index) order(wanted []string) []string {
	var paths []string
	seen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		if seen[name] || x.builtin[name] || x.files[name] == "" {
			return
		}
		seen[name] = true
		for _, dep := range x.deps[name] {
			visit(dep)
		}
		for _, soft := range x.pre[name] {
			names, _ := x.resolve(soft)
			for _, n := range names {
				visit(n)
			}
		}
		paths = append(paths, x.files[name])
		for _, soft := range x.post[name] {
			names, _ := x.resolve(soft)
			for _, n := range names {
				visit(n)
			}
		}
	}
	for _, name := range wanted {
		visit(name)
	}
	return paths
}

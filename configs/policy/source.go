package policy

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// Own is the URL that stands for the repository that bramble.yaml is in.
const Own = "."

// Source is one repository that Salt's files come from, with the meaning of gitfs_remotes.
type Source struct {
	URL        string `json:"url"`              // https, ssh, a path of this machine, or Own
	Branch     string `json:"branch,omitempty"` // empty: the one that the repository calls HEAD
	Root       string `json:"root,omitempty"`   // folder to take; empty: the top
	Mountpoint string `json:"mount,omitempty"`  // where its files appear, such as "formulas/ssh"; empty: at the top
}

// OwnStates and OwnPillars are where the files are if nobody says otherwise.
func OwnStates() []Source { return []Source{{URL: Own, Root: "salt"}} }

// OwnPillars are the folder pillar of the first repository.
func OwnPillars() []Source { return []Source{{URL: Own, Root: "pillar"}} }

// ParseSource reads the form for one line: the URL and then words like root=salt, branch=master, mountpoint=salt://ssh.
func ParseSource(line string) (Source, error) {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return Source{}, fmt.Errorf("a repository has a URL; write https://…, ssh://…, or the path of a local one")
	}
	s := Source{URL: fields[0]}
	for _, word := range fields[1:] {
		key, value, ok := strings.Cut(word, "=")
		if !ok || !s.set(key, value) {
			return Source{}, fmt.Errorf("%q is not understood after a repository's URL; write root=FOLDER, branch=NAME or mountpoint=salt://FOLDER", word)
		}
	}
	return s.check()
}

func (s *Source) set(key, value string) bool {
	switch key {
	case "root":
		s.Root = value
	case "branch", "base":
		s.Branch = value
	case "mountpoint":
		s.Mountpoint = value
	default:
		return false
	}
	return true
}

var (
	validBranch = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$`)
	scpURL      = regexp.MustCompile(`^[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+:[^\s]+$`)
)

// check returns s with its folders in their shortest form.
func (s Source) check() (Source, error) {
	var ok1, ok2 bool
	s.Root, ok1 = folder(s.Root)
	s.Mountpoint, ok2 = folder(strings.TrimPrefix(s.Mountpoint, "salt://"))
	switch {
	case !validURL(s.URL):
		return s, fmt.Errorf("%q is not the URL of a repository; write https://…, ssh://…, user@host:path, the absolute path of a local one, or %s for this one", s.URL, Own)
	case !ok1:
		return s, fmt.Errorf("root is a folder inside the repository; it has no leading / and no .. in it")
	case !ok2:
		return s, fmt.Errorf("mountpoint is a folder like salt://formulas/ssh; it has no .. in it")
	case s.Branch != "" && (!validBranch.MatchString(s.Branch) || strings.Contains(s.Branch, "..") || strings.HasSuffix(s.Branch, "/")):
		return s, fmt.Errorf("%q is not the name of a branch", s.Branch)
	}
	return s, nil
}

func folder(s string) (string, bool) {
	if s == "" {
		return "", true
	}
	clean := path.Clean(s)
	if clean == "." {
		return "", true
	}
	return clean, !path.IsAbs(clean) && clean != ".." && !strings.HasPrefix(clean, "../") && !strings.ContainsAny(clean, "\x00\n\\")
}

func validURL(s string) bool {
	for _, scheme := range []string{"https://", "http://", "ssh://", "file:///"} {
		if rest, ok := strings.CutPrefix(s, scheme); ok {
			return rest != "" && !strings.ContainsAny(s, " \t\r\n\x00")
		}
	}
	return s == Own || path.IsAbs(s) || scpURL.MatchString(s)
}

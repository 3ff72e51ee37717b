package repo

import (
	"os/exec"
	"strings"
	"testing"

	"bramble/lab"
)

// What Salt's own git clients can do with the appliance's repository.
func TestPython(t *testing.T) {
	const python = "/usr/bin/python3" // Debian's, which has the packages; another may come first in PATH
	lab.Need(t, "git", python)
	if out, err := exec.Command(python, "-c", "import git, pygit2").CombinedOutput(); err != nil {
		t.Fatalf("python3 lacks pygit2 or GitPython; install python3-pygit2 and python3-git: %s", out)
	}
	w := open(t, Options{})
	first := w.Current().Commit
	url := strings.Replace(w.serve(), "admin:"+token+"@", "", 1)
	out, err := exec.Command(python, "testdata/clients.py", url, token).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.Look(t.Context())
	last := w.Current().Commit
	for _, want := range []string{"pygit2 clone " + first, "GitPython push " + last, "pygit2 fetch " + last + " 3 objects", `pygit2 told bramble.yaml:1: unknown key "nodez"`, "pre-receive hook declined"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the clients' story lacks %q:\n%s", want, out)
		}
	}
}

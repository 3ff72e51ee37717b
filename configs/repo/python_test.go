package repo

import (
	"os/exec"
	"strings"
	"testing"

	"bramble/lab"
)

// What Salt's own git clients can do with the appliance's repository.
func TestPython(t *testing.T) {
	lab.Need(t, "git", "python3")
	if out, err := exec.Command("python3", "-c", "import git, pygit2").CombinedOutput(); err != nil {
		t.Fatalf("python3 lacks pygit2 or GitPython; install python3-pygit2 and python3-git: %s", out)
	}
	w := open(t, Options{})
	first := w.Current().Commit
	url := strings.Replace(w.serve(), "admin:"+token+"@", "", 1)
	out, err := exec.Command("python3", "testdata/clients.py", url, token).CombinedOutput()
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

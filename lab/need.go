package lab

import (
	"os"
	"os/exec"
	"testing"
)

// Need gates a test that needs root, namespaces or the named programs. Without LAB in the environment the test is
// skipped; with LAB=must it runs, and a missing privilege or program fails it.
func Need(t testing.TB, tools ...string) {
	t.Helper()
	if os.Getenv("LAB") == "" {
		t.Skip("this test needs root, network namespaces and the programs of lab/packages: run it as root with LAB=must")
	}
	if os.Geteuid() != 0 {
		t.Fatal("LAB is set, but this is not root: network namespaces cannot be made; run the tests as root or unset LAB")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("LAB is set, but %s is not installed: run lab/setup", tool)
		}
	}
}

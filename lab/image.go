package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Image returns the path of the lab image for a test that has called Need. Building it takes minutes, so it has to be
// there already.
func Image(t testing.TB) string {
	t.Helper()
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(root, "lab/image/build"), "--cached").Output()
	if err != nil {
		t.Fatalf("the lab image is not built (%v): run lab/image/build", err)
	}
	return strings.TrimSpace(string(out))
}

// repository finds the folder of go.mod, upwards from where the test runs.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod above the working directory: run the test in the repository")
		}
		dir = up
	}
}

package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"bramble/node"
	"bramble/web/api"
)

func TestSSHArgs(t *testing.T) {
	n := api.Node{State: node.State{Name: "pi-8b07bcc6", Addr: netip.MustParseAddr("10.0.0.7"), Enrolled: true}}
	got := strings.Join(sshArgs(n, "pi", "/c/known_hosts", []string{"uname", "-a"}), " ")
	want := "ssh -o UserKnownHostsFile=/c/known_hosts -o GlobalKnownHostsFile=/dev/null -o HostKeyAlias=pi-8b07bcc6 -o StrictHostKeyChecking=yes -o UpdateHostKeys=no -l pi -- 10.0.0.7 uname -a"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	n.Enrolled = false
	if !slices.Contains(sshOptions(n, "h"), "StrictHostKeyChecking=ask") {
		t.Error("a node that has not enrolled is trusted without a question")
	}
}

func TestRosterEntry(t *testing.T) {
	n := api.Node{State: node.State{Name: "pi-8b07bcc6", Addr: netip.MustParseAddr("10.0.0.7"), Enrolled: true}}
	var out strings.Builder
	if err := rosterEntry(&out, n, "pi", "", "/c/known_hosts"); err != nil {
		t.Fatal(err)
	}
	want := `"pi-8b07bcc6": {"host":"10.0.0.7","user":"pi","sudo":true,"ssh_options":["UserKnownHostsFile=/c/known_hosts","GlobalKnownHostsFile=/dev/null","HostKeyAlias=pi-8b07bcc6","StrictHostKeyChecking=yes","UpdateHostKeys=no"]}` + "\n"
	if out.String() != want {
		t.Errorf("got  %swant %s", out.String(), want)
	}
}

package main

import (
	"testing"
	"time"

	"bramble/firstboot/nodefiles"
)

// TestBoot powers a board on and logs in.
func TestBoot(t *testing.T) {
	w := newWorld(t)
	w.powerOn(orders())
	for _, step := range []string{"modules", "network", "clock", "plan", "root", "overlay", "files", "handover"} {
		w.await(step, true, 2*time.Minute)
	}
	w.await("ready", true, 4*time.Minute)
	for command, want := range map[string]string{
		"id -un":                              "pi",
		"sudo -n id -un":                      "root",
		"hostname":                            "pi-51",
		"cat /etc/machine-id":                 nodefiles.MachineID("test", mac),
		"systemctl is-system-running --wait":  "running",
		"findmnt -no FSTYPE /":                "overlay",
		"sudo touch /etc/x && echo written":   "written",
		"pgrep -c -f ^@bramble-keeper":        "1",
		"grep -c nameserver /etc/resolv.conf": "1",
	} {
		if got := w.mustSSH(command); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	t.Log(w.mustSSH("uname -a; systemctl --failed --no-legend; systemd-analyze; systemd-analyze blame | head -12; free -m; ip -4 addr show; journalctl -b --no-pager | grep -i bramble; ps -eo pid,rss,args | grep -i [b]ramble"))
}

package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"bramble/firstboot/nodefiles"
)

// TestBoot powers a board on and logs in. BOARD=raspi3b takes the faithful, slow machine.
func TestBoot(t *testing.T) {
	w := newWorld(t)
	w.powerOn(orders())
	for _, step := range []string{"modules", "network", "clock", "plan", "root", "overlay", "files", "handover"} {
		w.await(step, true, 5*time.Minute)
	}
	w.await("ready", true, 10*time.Minute)
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
	// The keeper renews the lease (T1 is 40 s), under the node's name.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := w.router.WaitLog(ctx, "DHCPACK(eth0) "+w.address()+" "+mac.String()+" pi-51"); err != nil {
		t.Errorf("the lease is not renewed: %v", err)
	}
	t.Log(w.mustSSH("uname -a; systemctl --failed --no-legend; systemd-analyze; free -m; ps -eo pid,rss,args | grep -i [b]ramble; journalctl -b -p warning --no-pager | grep -i -e bramble -e nbd || true"))

	// systemd spares the keeper when it kills what is left, so that it can still read the root to the end.
	if _, err := w.ssh(time.Minute, "sudo systemctl reboot"); err != nil {
		t.Logf("the connection ends with the system: %v", err)
	}
	select {
	case <-w.off:
	case <-time.After(3 * time.Minute):
		t.Error("the board does not reboot")
	}
}

// TestTrouble has nothing ready when the board comes, and takes everything away once more while systemd starts.
func TestTrouble(t *testing.T) {
	w := newWorld(t)
	w.stopHTTP()
	w.stopNBD()
	w.powerOn(orders())
	w.awaitLine("FAILED: The time cannot be fetched from "+httpAddr, time.Minute)
	w.startHTTP()
	if r := w.await("clock", false, time.Minute); !strings.Contains(r.Text, "connection refused") {
		t.Errorf("the appliance learns of its own absence: %q", r.Text)
	}
	w.await("clock", true, time.Minute)
	if r := w.await("root", false, time.Minute); !strings.Contains(r.Text, "does not give the root") {
		t.Errorf("the root fails with %q", r.Text)
	}
	w.startNBD()
	w.await("root", true, time.Minute)
	w.await("handover", true, time.Minute)
	time.Sleep(5 * time.Second)
	w.stopHTTP()
	w.stopNBD()
	time.Sleep(20 * time.Second)
	w.startNBD()
	w.startHTTP()
	w.await("ready", true, 5*time.Minute)
	if got := w.mustSSH("systemctl is-system-running --wait"); got != "running" {
		t.Errorf("the system is %s: %s", got, w.mustSSH("systemctl --failed --no-legend"))
	}
}

package nodefiles

import (
	"fmt"
	"strings"

	"bramble/firstboot/wire"
)

const written = "# Written by bramble for this boot; changes are gone after a reboot.\n"

func (s Spec) identity() []file {
	return []file{
		text("etc/hostname", s.Name+"\n"),
		text("etc/hosts", "127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\n"+
			"ff02::1\t\tip6-allnodes\nff02::2\t\tip6-allrouters\n\n127.0.1.1\t"+s.Name+"\n"),
		// With "uninitialized" in it, systemd would take every boot for the first one and enable what the image's
		// presets name, the wizards among them.
		text("etc/machine-id", MachineID(s.MachineIDSeed, s.MAC)+"\n"),
		// The image names its SD card's partitions, which are not there.
		text("etc/fstab", written+"proc /proc proc defaults 0 0\n"),
	}
}

// network leaves the root's interface to stage 1: whoever configures it anew cuts the root off.
func (s Spec) network() []file {
	return []file{
		text("etc/NetworkManager/conf.d/90-bramble.conf", fmt.Sprintf(
			"%s[main]\n# resolv.conf has what stage 1's lease says.\ndns=none\n\n[keyfile]\nunmanaged-devices=mac:%s\n", written, s.MAC)),
		text("etc/systemd/network/00-bramble.network", fmt.Sprintf(
			"%s[Match]\nMACAddress=%s\n\n[Link]\nUnmanaged=yes\n", written, s.MAC)),
	}
}

// login opens the door for one user, by key.
func (s Spec) login() []file {
	files := []file{
		text("etc/ssh/sshd_config.d/00-bramble.conf", written+
			"PasswordAuthentication no\nKbdInteractiveAuthentication no\n"+
			"Banner none\n"+ // userconf-pi's warns that nobody can log in
			"AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/authorized_keys.d/%u /run/bramble/keys/%u\n"+ // the last by the agent
			"HostKey /etc/ssh/ssh_host_ed25519_key\n"),
		text(units+"bramble-hostkey.service", hostKeyUnit),
		enabled("/usr/lib/systemd/system/ssh.service", "multi-user.target"),
		enabled("/etc/systemd/system/bramble-hostkey.service", "ssh.service"),
		// Both make keys of all kinds, and the first removes those that are there.
		masked("regenerate_ssh_host_keys.service"),
		masked("sshd-keygen.service"),
		// sshd is started by the service, not by a connection, so that "ready" is true.
		masked("ssh.socket"),
	}
	if s.User == "" {
		return files
	}
	return append(files,
		text("etc/ssh/authorized_keys.d/"+s.User, written+strings.Join(append(s.Keys, ""), "\n")),
		file{name: "etc/sudoers.d/010_bramble", data: written + s.User + " ALL=(ALL) NOPASSWD: ALL\n", mode: 0o440},
	)
}

// An Ed25519 key costs a Pi 3 milliseconds, an RSA key seconds.
const hostKeyUnit = written + `[Unit]
Description=Make this node's SSH host key
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
`

// Agent is where the agent's program is: on the overlay, which is RAM, so that a root that stalls does not stop it.
const Agent = "/usr/local/lib/bramble/firstboot"

// agent is what runs after the boot: the agent, or just a word that one can log in.
func (s Spec) agent() []file {
	if len(s.Agent) == 0 {
		return []file{
			text(units+"bramble-ready.service", readyUnit),
			enabled("/etc/systemd/system/bramble-ready.service", "multi-user.target"),
		}
	}
	return []file{
		{name: strings.TrimPrefix(Agent, "/"), data: string(s.Agent), mode: 0o755},
		text("etc/bramble/ca.pem", s.CA),
		text(units+"bramble-agent.service", agentUnit),
		enabled("/etc/systemd/system/bramble-agent.service", "multi-user.target"),
	}
}

// The agent waits for sshd itself: it is to run even if sshd does not.
const agentUnit = written + `[Unit]
Description=Make this node what bramble's configuration says
After=bramble-hostkey.service
StartLimitIntervalSec=0

[Service]
ExecStart=` + Agent + `
Restart=always
RestartSec=2
OOMScoreAdjust=-900
`

const readyUnit = written + `[Unit]
Description=Tell bramble that one can log in
After=ssh.service
ConditionPathExists=` + wire.Stage1 + `

[Service]
ExecStart=` + wire.Stage1 + ` ready
`

// quiet switches off what an image does on its first boot, since every boot is one, and what needs its SD card.
func quiet() []file {
	files := []file{
		text("etc/cloud/cloud-init.disabled", ""),
		// Newer than the image's /usr: its caches (ldconfig, hwdb, sysusers, the journal's catalogue) are as its packages
		// left them, and need not be made again at every boot (systemd-update-done.service(8)).
		text("etc/.updated", ""),
		text("var/.updated", ""),
		// Swap on the RAM overlay would be RAM for RAM; compressed RAM is good.
		text("etc/rpi/swap.conf.d/90-bramble.conf", written+"[Main]\nMechanism=zram\n"),
		// Raspberry Pi OS lets the watchdog reset a board after 16 seconds without systemd. While the appliance is away,
		// systemd may wait for the root much longer, and a board that resets then finds nobody to boot from. Kernels
		// before 6.8 know no longer time than 15 seconds.
		text("etc/systemd/system.conf.d/90-bramble.conf", written+"[Manager]\nRuntimeWatchdogSec=0\n"),
	}
	for _, unit := range []string{
		"userconfig.service",            // userconf-pi: asks for a user name on the console, and blocks every login
		"systemd-firstboot.service",     // asks for the locale and the like
		"rpi-resize.service",            // raspberrypi-sys-mods, trixie: grows the root partition
		"resize2fs_once.service",        // the same in bookworm and before, an init script
		"systemd-growfs-root.service",   //
		"apply_noobs_os_config.service", // raspberrypi-sys-mods: reads an SD card
		"dphys-swapfile.service",        // bookworm and before: a swap file on the overlay
		"rpi-eeprom-update.service",     // writes to the boot partition
	} {
		files = append(files, masked(unit))
	}
	return files
}

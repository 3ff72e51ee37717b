package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"bramble/firstboot/wire"
)

// Files that give sshd its certificate.
const (
	hostCert   = hostKey + "-cert.pub"
	sshdConfig = "etc/ssh/sshd_config.d/01-bramble-certificate.conf"
)

// certified tells whether sshd has the certificate of the node's identity.
func (a *Agent) certified() bool {
	var identity wire.EnrollAnswer
	return a.load(identityFile, &identity) == nil && a.has("ssh")() && readLine(a.path(hostCert)) == strings.TrimSpace(identity.SSHCert)
}

// certify gives sshd its certificate. A configuration that sshd does not like is taken back: nobody is locked out.
func (a *Agent) certify(ctx context.Context) (wire.StepReport, error) {
	var identity wire.EnrollAnswer
	if err := a.load(identityFile, &identity); err != nil {
		return wire.StepReport{}, err
	}
	if strings.TrimSpace(identity.SSHCert) == "" {
		return wire.StepReport{}, errors.New("the appliance gave no certificate for the SSH host key")
	}
	if err := replace(a.path(hostCert), []byte(strings.TrimSpace(identity.SSHCert)+"\n"), 0o644); err != nil {
		return wire.StepReport{}, err
	}
	line := "# Written by bramble for this boot; changes are gone after a reboot.\nHostCertificate /" + hostCert + "\n"
	if err := replace(a.path(sshdConfig), []byte(line), 0o644); err != nil {
		return wire.StepReport{}, err
	}
	if err := a.Command(ctx, "/usr/sbin/sshd", "-t"); err != nil {
		return wire.StepReport{}, errors.Join(fmt.Errorf("sshd does not take the host certificate: %w", err), os.Remove(a.path(sshdConfig)))
	}
	if err := a.Command(ctx, "systemctl", "try-reload-or-restart", "ssh.service"); err != nil {
		return wire.StepReport{}, fmt.Errorf("sshd does not read its host certificate: %w", err)
	}
	return wire.StepReport{Text: "sshd shows a host certificate."}, a.write("ssh", nil)
}

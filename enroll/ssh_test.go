package enroll

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"bramble/node"
)

func newState() node.State { return node.State{MAC: alpha, Boot: "a1", Name: "pi-a"} }

// serveSSH is a node's sshd: it shows the certificate, lets everybody in and answers every command with status 0.
func serveSSH(t *testing.T, b board, line string) net.Addr {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(key.(*ssh.Certificate), b.host)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(signer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answer(c, config)
		}
	}()
	return l.Addr()
}

func answer(c net.Conn, config *ssh.ServerConfig) {
	defer c.Close()
	_, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for open := range channels {
		channel, asked, err := open.Accept()
		if err != nil {
			return
		}
		for r := range asked {
			_ = r.Reply(r.Type == "exec" || r.Type == "env", nil)
			if r.Type == "exec" {
				_, _ = channel.SendRequest("exit-status", false, []byte{0, 0, 0, 0})
				channel.Close()
			}
		}
	}
}

func knownHosts(t *testing.T, a *Authority) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(path, []byte(a.KnownHostsLine("*")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// One line in known_hosts, and 200 boots with a fresh host key each: nobody is ever asked or warned.
func TestReprovisions(t *testing.T) {
	w := newWorld(t, Anybody)
	w.at = time.Now() // knownhosts has a real clock
	check, err := knownhosts.New(knownHosts(t, w.Authority))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		boot := node.BootID(fmt.Sprintf("r%d", i))
		w.boot(alpha, boot)
		b := newBoard(t, w.Authority, alpha, boot)
		addr := serveSSH(t, b, w.welcome(addrA, b.request).SSHCert)
		for _, name := range []string{"pi-a", "pi-a.local", addrA.String()} {
			if err := shake(addr, name, check); err != nil {
				t.Fatalf("boot %d, as %s: %v", i, name, err)
			}
		}
		if shake(addr, "pi-b", check) == nil {
			t.Fatalf("boot %d: pi-a passes for pi-b", i)
		}
	}
	if n := w.count(node.Alarm); n != 0 {
		t.Errorf("%d alarms", n)
	}
	other := newWorld(t, Anybody)
	other.at = w.at
	other.boot(alpha, "a1")
	b := newBoard(t, other.Authority, alpha, "a1")
	if shake(serveSSH(t, b, other.welcome(addrA, b.request).SSHCert), "pi-a", check) == nil {
		t.Error("another appliance's node is believed")
	}
}

// shake is an ssh client's beginning: it knows the node by name, and what the known_hosts file says.
func shake(addr net.Addr, name string, check ssh.HostKeyCallback) error {
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	config := &ssh.ClientConfig{User: "pi", Timeout: 10 * time.Second, HostKeyCallback: check, HostKeyAlgorithms: []string{ssh.CertAlgoECDSA256v01}}
	c, _, _, err := ssh.NewClientConn(conn, net.JoinHostPort(name, "22"), config)
	if err == nil {
		c.Close()
	}
	return err
}

// The real ssh believes the certificate, and ssh-keygen reads it.
func TestOpenSSH(t *testing.T) {
	for _, tool := range []string{"ssh", "ssh-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is not installed: install openssh-client", tool)
		}
	}
	w := newWorld(t, Anybody)
	w.at = time.Now() // real programs have real clocks
	w.boot(alpha, "a9")
	b := newBoard(t, w.Authority, alpha, "a9")
	got := w.welcome(addrA, b.request)
	file := filepath.Join(t.TempDir(), "host-cert.pub")
	if err := os.WriteFile(file, []byte(got.SSHCert), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ssh-keygen", "-L", "-f", file).CombinedOutput()
	for _, want := range []string{"host certificate", `Key ID: "pi-a b8:27:eb:00:00:01 a9"`, "pi-a.local", "10.0.0.1", "from 1970-01-01"} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("ssh-keygen -L, %v, lacks %q:\n%s", err, want, out)
		}
	}
	hosts := knownHosts(t, w.Authority)
	_, port, err := net.SplitHostPort(serveSSH(t, b, got.SSHCert).String())
	if err != nil {
		t.Fatal(err)
	}
	login := func(hosts, alias string) (string, error) {
		out, err := exec.Command("ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile="+hosts,
			"-o", "GlobalKnownHostsFile=/dev/null", "-o", "HostKeyAlias="+alias, "-o", "UpdateHostKeys=no", "-p", port, "-l", "pi", "--", "127.0.0.1", "true").CombinedOutput()
		return string(out), err
	}
	if out, err := login(hosts, "pi-a"); err != nil || out != "" {
		t.Errorf("ssh says %v: %s", err, out)
	}
	if out, err := login(hosts, "pi-b"); err == nil || !strings.Contains(out, "verification failed") {
		t.Errorf("ssh took pi-a for pi-b: %v, %s", err, out)
	}
	if out, err := login(knownHosts(t, newWorld(t, Anybody).Authority), "pi-a"); err == nil || !strings.Contains(out, "verification failed") {
		t.Errorf("ssh believes another appliance's CA: %v, %s", err, out)
	}
}

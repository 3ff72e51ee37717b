package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"bramble/node"
	"bramble/web/api"
)

func sshCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ssh NODE [COMMAND...]", Short: "Log in to a node; its host key is checked by the appliance's certificate", Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().SetInterspersed(false) // what comes after NODE is for ssh
	ask := appliance(cmd)
	login := cmd.Flags().StringP("user", "l", "", "login (default: the one that bramble made)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := ask().Node(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if !d.Addr.IsValid() {
			return fmt.Errorf("no address of %s is known yet; it is at the stage %s", d.Name, d.Stage)
		}
		program, err := exec.LookPath("ssh")
		if err != nil {
			return fmt.Errorf("the program ssh is not installed; on Debian: sudo apt install openssh-client: %w", err)
		}
		e, err := ask().Enrolment(cmd.Context())
		if err != nil {
			return err
		}
		hosts, err := keepKnownHosts(e.KnownHosts)
		if err != nil {
			return err
		}
		if !d.Enrolled {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s has not enrolled in this boot, so that nobody vouches for its host key: compare it with the console.\n", d.Name)
		}
		argv := sshArgs(d.Node, cmp.Or(*login, d.Next.User, "pi"), hosts, args[1:])
		return fmt.Errorf("ssh cannot be started: %w", syscall.Exec(program, argv, os.Environ()))
	}
	return cmd
}

// sshArgs is ssh's whole command line.
func sshArgs(n api.Node, login, hosts string, command []string) []string {
	argv := []string{"ssh"}
	for _, o := range sshOptions(n, hosts) {
		argv = append(argv, "-o", o)
	}
	return append(append(argv, "-l", login, "--", n.Addr.String()), command...)
}

// sshOptions make ssh trust the appliance's certificates only, and know the node by its name.
func sshOptions(n api.Node, hosts string) []string {
	strict := "yes"
	if !n.Enrolled {
		strict = "ask"
	}
	return []string{"UserKnownHostsFile=" + hosts, "GlobalKnownHostsFile=/dev/null", "HostKeyAlias=" + n.Name, "StrictHostKeyChecking=" + strict, "UpdateHostKeys=no"}
}

// keepKnownHosts writes the file that ssh and salt-ssh are pointed to.
func keepKnownHosts(line string) (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("there is no place for a known_hosts file: %w", err)
	}
	dir = filepath.Join(dir, "bramble")
	path := filepath.Join(dir, "known_hosts")
	if err = os.MkdirAll(dir, 0o700); err == nil {
		err = os.WriteFile(path+".new", []byte(line+"\n"), 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return "", fmt.Errorf("the known_hosts file cannot be written: %w", err)
	}
	return path, nil
}

func knownHostsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "known-hosts", Short: "Print the known_hosts line that makes ssh trust every node's host key", Args: cobra.NoArgs,
		Long: "Print the known_hosts line that makes ssh trust every node's host key, after any number of boots:\n\n  bramble known-hosts --hosts 'pi-*,10.0.0.*' >> ~/.ssh/known_hosts",
	}
	ask := appliance(cmd)
	hosts := cmd.Flags().String("hosts", "*", "names and addresses that the appliance may vouch for, as known_hosts writes patterns")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		e, err := ask().Enrolment(cmd.Context())
		if err != nil {
			return err
		}
		if *hosts == "" || strings.ContainsAny(*hosts, " \t\r\n") {
			return fmt.Errorf("%q is not a list of patterns; write pi-*,10.0.0.*", *hosts)
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.Replace(e.KnownHosts, " * ", " "+*hosts+" ", 1))
		return err
	}
	return cmd
}

func rosterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "roster", Short: "Print a salt-ssh roster of the nodes that one can log in to", Args: cobra.NoArgs,
		Long: "Print a salt-ssh roster of the nodes that one can log in to. It holds no passwords: ssh uses your keys.\n\n  bramble roster > roster && salt-ssh --roster-file=roster '*' test.ping",
	}
	ask := appliance(cmd)
	login := cmd.Flags().StringP("user", "l", "", "login (default: the one that bramble made)")
	key := cmd.Flags().String("key", "", "file with the private key that salt-ssh uses (default: what salt-ssh does)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		e, err := ask().Enrolment(cmd.Context())
		if err != nil {
			return err
		}
		hosts, err := keepKnownHosts(e.KnownHosts)
		if err != nil {
			return err
		}
		all, err := ask().Nodes(cmd.Context())
		if err != nil {
			return err
		}
		for _, n := range all {
			if !n.Enrolled || n.Frozen || !n.Addr.IsValid() || n.Stage < node.StageLogin {
				continue
			}
			d, err := ask().Node(cmd.Context(), n.MAC.String())
			if err != nil {
				return err
			}
			if err := rosterEntry(cmd.OutOrStdout(), n, cmp.Or(*login, d.Next.User, "pi"), *key, hosts); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// rosterEntry writes one node. JSON is YAML, so that no text of a board's can break out.
func rosterEntry(w io.Writer, n api.Node, login, key, hosts string) error {
	entry := struct {
		Host    string   `json:"host"`
		User    string   `json:"user"`
		Sudo    bool     `json:"sudo"`
		Key     string   `json:"priv,omitempty"`
		Options []string `json:"ssh_options"`
	}{n.Addr.String(), login, login != "root", key, sshOptions(n, hosts)}
	id, err1 := json.Marshal(n.Name)
	text, err2 := json.Marshal(entry)
	_, err := fmt.Fprintf(w, "%s: %s\n", id, text)
	return errors.Join(err1, err2, err)
}

func approveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "approve NODE [CODE]", Short: "Let a node join that waits for you, after comparing its code", Args: cobra.RangeArgs(1, 2),
		Long: "Let a node join that waits for you. CODE is what its console shows; without it, the code that the appliance knows is printed.",
	}
	ask := appliance(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 2 {
			return ask().Approve(cmd.Context(), args[0], args[1])
		}
		d, err := ask().Node(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if d.Waiting == "" {
			return fmt.Errorf("%s does not wait for approval", d.Name)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s waits with the code %s. If its console shows the same: bramble approve %[1]s %[2]s\n", d.Name, d.Waiting)
		return err
	}
	return cmd
}

func windowCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "window DURATION", Short: "Let unknown boards join for a time, like 1h; 0 closes the window", Args: cobra.ExactArgs(1)}
	ask := appliance(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		open, err := time.ParseDuration(args[0])
		if err != nil || open < 0 {
			return fmt.Errorf("%q is not a time; write 30m or 1h", args[0])
		}
		return ask().OpenWindow(cmd.Context(), open)
	}
	return cmd
}

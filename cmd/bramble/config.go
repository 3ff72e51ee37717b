package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bramble/boot"
	"bramble/configs"
	"bramble/configs/change"
	findings "bramble/configs/policy"
	"bramble/configs/repo"
	"bramble/node"
	"bramble/web/api"
	"bramble/web/client"
)

// openConfig opens the configuration in git; a push to it is checked by this program.
func openConfig(s configs.Settings, token string, record func(node.Event), log *slog.Logger) (*repo.Store, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("bramble's own program is not found, so that pushes could not be checked: %w", err)
	}
	return repo.Open(repo.Options{
		Dir: filepath.Join(s.StateDir, "config"), URL: s.ConfigRepo, Branch: s.ConfigBranch, States: s.States, Pillars: s.Pillars,
		Poll: s.ConfigPoll, Key: s.ConfigKey, Hosts: s.ConfigHosts, Token: token, Check: []string{self, "config", "check", "-"}, Record: record, Log: log,
	})
}

// rulesAt are the rules of an older commit, for boot.Desk.At.
func rulesAt(store *repo.Store, base func() boot.Rules) func(string) (boot.Rules, bool) {
	return func(commit string) (boot.Rules, bool) {
		then, err := store.At(commit)
		if err != nil {
			return boot.Rules{}, false
		}
		return then.Rules(base()), true
	}
}

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check the configuration in git, and show what holds"}
	cmd.AddCommand(&cobra.Command{
		Use: "check [DIR]", Short: "Say what is wrong with a working tree, before a push does", Args: cobra.MaximumNArgs(1),
		Long: "Say what is wrong with a working tree (default: the one here), before a push does. With - a tar is read from standard input.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return checkConfig(cmd.OutOrStdout(), cmd.InOrStdin(), append(args, ".")[0])
		},
	})
	show := &cobra.Command{Use: "show", Short: "Show which commit holds, and why a newer one does not", Args: cobra.NoArgs}
	ask := appliance(show)
	show.RunE = func(cmd *cobra.Command, _ []string) error {
		var now configState
		if err := askJSON(cmd.Context(), ask(), "/config", &now); err != nil {
			return err
		}
		return now.print(cmd.OutOrStdout())
	}
	cmd.AddCommand(show)
	return cmd
}

func checkConfig(w io.Writer, stdin io.Reader, dir string) error {
	var found []findings.Finding
	var err error
	if dir == "-" {
		found, err = repo.CheckTar(stdin)
	} else {
		found, err = repo.CheckDir(dir)
	}
	if err != nil {
		return err
	}
	if len(found) > 0 {
		fmt.Fprintln(w, findings.Join(found))
		return fmt.Errorf("the configuration has %s and would be refused", count(len(found), "mistake"))
	}
	if dir != "-" {
		fmt.Fprintln(w, "The configuration is well.")
	}
	return nil
}

func planCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "plan NODE", Short: "Say what a power cycle now would change on a board", Args: cobra.ExactArgs(1)}
	ask := appliance(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var answer change.Answer
		if err := askJSON(cmd.Context(), ask(), "/nodes/"+url.PathEscape(args[0])+"/plan", &answer); err != nil {
			return err
		}
		return printPlan(cmd.OutOrStdout(), answer)
	}
	return cmd
}

func printPlan(w io.Writer, a change.Answer) error {
	switch {
	case !a.Serve:
		_, err := fmt.Fprintf(w, "%s would not be booted. %s\n", a.Node, a.Reason)
		return err
	case len(a.Changes) == 0:
		fmt.Fprintf(w, "A power cycle of %s would change nothing. %s\n", a.Node, a.Reason)
	default:
		fmt.Fprintf(w, "A power cycle of %s would make %s. %s\n", a.Node, count(len(a.Changes), "change"), a.Reason)
	}
	if a.Running != a.Next {
		fmt.Fprintf(w, "commit %s → %s\n", orWord(a.Running, "none"), orWord(a.Next, "none"))
	}
	if a.Note != "" {
		fmt.Fprintln(w, a.Note)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range a.Changes {
		switch {
		case c.Before == "" || c.Before == c.Name:
			fmt.Fprintf(t, "%s\t%s %s\t%s\n", c.What, sign(c), c.Name, without(c.After, c.Name))
		case c.After == "" || c.After == c.Name:
			fmt.Fprintf(t, "%s\t%s %s\t%s\n", c.What, sign(c), c.Name, without(c.Before, c.Name))
		default:
			fmt.Fprintf(t, "%s\t~ %s\t%s → %s\n", c.What, c.Name, c.Before, c.After)
		}
	}
	return t.Flush()
}

func sign(c change.Change) string {
	if c.After == "" {
		return "-"
	}
	return "+"
}

// without is a value that is more than the name of what changed.
func without(value, name string) string {
	if value == name {
		return ""
	}
	return value
}

// askJSON gets a path of the API that the configuration has for itself.
func askJSON(ctx context.Context, c *client.Client, path string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Base+api.Prefix+path, nil)
	if err != nil {
		return fmt.Errorf("%q is not the address of an appliance: %w", c.Base, err)
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("the appliance at %s does not answer; does bramble serve run there? %w", c.Base, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("the answer of %s breaks off: %w", c.Base, err)
	}
	if answer.StatusCode != http.StatusOK {
		var problem struct{ Detail string }
		if json.Unmarshal(text, &problem) != nil || problem.Detail == "" {
			problem.Detail = fmt.Sprintf("the appliance answered %s; is it a bramble of the same version?", answer.Status)
		}
		return errors.New(problem.Detail)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("the answer of %s cannot be understood; is it a bramble of the same version? %w", c.Base, err)
	}
	return nil
}

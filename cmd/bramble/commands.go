package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bramble/configs"
	"bramble/images"
	"bramble/node"
	"bramble/web/api"
	"bramble/web/client"
)

// command is the command line.
func command() *cobra.Command {
	root := &cobra.Command{
		Use: "bramble", Short: "Bring Raspberry Pis to life over the network", Version: version,
		SilenceUsage: true, SilenceErrors: true, CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.AddCommand(serveCommand(), imageCommand(), nodesCommand(), nodeCommand(), eventsCommand(), forgetCommand())
	root.AddCommand(configCommand(), planCommand())
	root.AddCommand(sshCommand(), knownHostsCommand(), rosterCommand(), approveCommand(), windowCommand())
	return root
}

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Serve every Raspberry Pi on a network", Args: cobra.NoArgs,
		Long: "Serve every Raspberry Pi on a network. A setting comes from its flag, else from the environment (" + configs.EnvPrefix +
			"_STATE_DIR for --state-dir),\nelse from the settings file (state-dir: …), else it is the default shown here.",
	}
	configs.AddFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := configs.Load(cmd.Flags())
		if err != nil {
			return err
		}
		var level slog.Level
		if err := level.UnmarshalText([]byte(s.LogLevel)); err != nil {
			return err
		}
		return serve(cmd.Context(), s, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})))
	}
	return cmd
}

// appliance makes the client for a command, by its --server flag.
func appliance(cmd *cobra.Command) func() *client.Client {
	server := cmd.Flags().String("server", "http://127.0.0.1:8080", "the appliance to ask")
	token := cmd.Flags().String("token-file", "/var/lib/bramble/token", "file with the admin token, if it is needed and can be read")
	return func() *client.Client {
		text, _ := os.ReadFile(*token)
		return &client.Client{Base: strings.TrimRight(*server, "/"), Token: strings.TrimSpace(string(text))}
	}
}

func nodesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "nodes", Short: "List the boards", Args: cobra.NoArgs}
	ask := appliance(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		all, err := ask().Nodes(cmd.Context())
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tSTAGE\tADDRESS\tMODEL\tSERIAL\tMAC\tBOOTS\tIMAGE")
		for _, n := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", n.Name, n.Stage, address(n.State), orWord(string(n.Model), "-"), n.Serial, n.MAC, n.Boots,
				orWord(n.ImageName, n.Image))
		}
		return w.Flush()
	}
	return cmd
}

func address(n node.State) string {
	if !n.Addr.IsValid() {
		return "-"
	}
	return n.Addr.String()
}

func nodeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "node NODE", Short: "Show one board: state, plan with its reason, timeline", Args: cobra.ExactArgs(1)}
	output := cmd.Flags().BoolP("output", "o", false, "show the end of what each step of its agent printed, too")
	ask := appliance(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := ask().Node(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		show(cmd.OutOrStdout(), d)
		if !*output {
			return nil
		}
		all, err := ask().Output(cmd.Context(), args[0])
		for _, o := range all {
			fmt.Fprintf(cmd.OutOrStdout(), "\n--- %s, %s\n%s\n", o.Step, o.Time.Local().Format("15:04:05"), strings.TrimRight(o.Text, "\n"))
		}
		return err
	}
	return cmd
}

func show(w io.Writer, d api.Detail) {
	fmt.Fprintf(w, "%s  %s  serial %s  model %s  address %s\n", d.Name, d.MAC, d.Serial, orWord(string(d.Model), "unknown"), address(d.State))
	fmt.Fprintf(w, "stage   %s", d.Stage)
	if !d.ReadyTime.IsZero() {
		fmt.Fprintf(w, ", %s after the first DISCOVER", d.ReadyTime.Sub(d.BootTime).Round(100*time.Millisecond))
	}
	fmt.Fprintf(w, "\nimage   %s\nreason  %s\n", orWord(d.ImageName, d.Image), d.Reason)
	if d.Next.Image != d.Image || d.Next.Reason != d.Reason {
		fmt.Fprintf(w, "next    %s\n", d.Next.Reason)
	}
	if d.Problem != "" || d.Explain != "" {
		fmt.Fprintf(w, "trouble %s\n", orWord(d.Explain, d.Problem))
	}
	fmt.Fprintln(w)
	for _, line := range d.Timeline {
		fmt.Fprintf(w, "%8s  %s\n", offset(line.Time.Sub(d.BootTime)), line.Sentence)
	}
}

func offset(d time.Duration) string { return fmt.Sprintf("+%.1f s", d.Seconds()) }

func eventsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "events [NODE]", Short: "Show what happened, of one board or of all", Args: cobra.MaximumNArgs(1)}
	ask := appliance(cmd)
	follow := cmd.Flags().BoolP("follow", "f", false, "go on with what happens")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		who := strings.Join(args, "")
		known := map[node.MAC]string{} // names that earlier lines told
		print := func(l api.Line) error {
			if l.Name != "" {
				known[l.Node] = l.Name
			}
			subject := orWord(known[l.Node], l.Node.String())
			if l.Node.IsZero() {
				subject = "bramble"
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s  %-12s %s\n", l.Time.Local().Format("15:04:05.000"), subject, l.Sentence)
			return err
		}
		if *follow {
			return ask().Follow(cmd.Context(), 0, who, print)
		}
		all, err := ask().Events(cmd.Context(), 0, who, 1000)
		for _, l := range all {
			err = errors.Join(err, print(l))
		}
		return err
	}
	return cmd
}

func forgetCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "forget NODE", Short: "Forget a board and its history", Args: cobra.ExactArgs(1)}
	ask := appliance(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return ask().Forget(cmd.Context(), args[0]) }
	return cmd
}

func inspect(w io.Writer, r images.Report) error {
	fmt.Fprintf(w, "%s  %s\n%s, %s, %s\n\n", list(r.Names), r.ID, r.OS, r.Architecture, images.Bytes(r.Size))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range r.Parts {
		fmt.Fprintf(t, "partition %d\t%s\t%s\tat %d\t%s\n", p.Number, orWord(p.FSType, "unknown"), p.Label, p.Offset, images.Bytes(p.Size))
	}
	for _, k := range r.Kernels {
		fmt.Fprintf(t, "%s\tLinux %s\n", k.File, orWord(k.Release, "of an unknown version"))
	}
	for _, f := range r.Boot {
		fmt.Fprintf(t, "%s\t%s\n", f.Name, images.Bytes(f.Size))
	}
	for _, p := range r.Problems {
		fmt.Fprintf(t, "problem\t%s\n", p)
	}
	return t.Flush()
}

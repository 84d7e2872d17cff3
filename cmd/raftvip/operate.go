package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/api"
)

// groupFlag is for commands that are about one ownership group.
func groupFlag(c *cobra.Command, group *string) {
	c.Flags().StringVarP(group, "group", "g", "", "the ownership `GROUP`, where there are several (ownership separate)")
}

func transferCommand(g *globals) *cobra.Command {
	var in api.TransferRequest
	c := &cobra.Command{
		Use:   "transfer [NODE]",
		Short: "Move the addresses now, to a node or to the best one",
		Long: `Move the addresses now, to a node or to the best other one. They stay there, also
when another node has a higher priority, until a check fails there or the next move.
With ownership separate each group has an owner of its own: name one with --group.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				in.Node = args[0]
			}
			return call(cmd.Context(), cmd.OutOrStdout(), g, api.PathTransfer, in, func(r api.TransferResult) string {
				return fmt.Sprintf("moved from %s to %s; handing over took %s", r.From, r.To, seconds(r.Took))
			})
		},
	}
	groupFlag(c, &in.Group)
	g.jsonFlag(c)
	return c
}

func drillCommand(g *globals) *cobra.Command {
	var in api.DrillRequest
	c := &cobra.Command{
		Use:   "drill",
		Short: "Move the addresses to the best other node and back, and measure the gap",
		Long: `Move the addresses to the best other node and back, while a third node asks the
network every millisecond who answers for the first address. The gaps that it saw
are printed and recorded in the history.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(cmd.ErrOrStderr(), "moving the addresses there and back; this takes some seconds ...")
			return call(cmd.Context(), cmd.OutOrStdout(), g, api.PathDrill, in, func(r api.DrillResult) string {
				lines := []string{fmt.Sprintf("%s, watched from %s:", r.Address, r.Observer)}
				for _, m := range r.Moves {
					lines = append(lines, fmt.Sprintf("%s -> %s: gap %s", m.From, m.To, seconds(m.Gap)))
				}
				return strings.Join(lines, "\n")
			})
		},
	}
	groupFlag(c, &in.Group)
	g.jsonFlag(c)
	return c
}

// nodeOrSelf is the name of the node named, or of the one whose daemon is asked.
func nodeOrSelf(cmd *cobra.Command, g *globals, args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	var st api.Status
	if err := g.client().Call(cmd.Context(), api.PathStatus, struct{}{}, &st); err != nil {
		return "", err
	}
	return st.Node.Name, nil
}

func drainCommand(g *globals) *cobra.Command {
	return setDrain(g, true, "drain [NODE]", "Keep a node from owning, and move the addresses away from it")
}

func undrainCommand(g *globals) *cobra.Command {
	return setDrain(g, false, "undrain [NODE]", "Let a drained node own again")
}

// forceSilence is the flag of commands that may leave nobody who answers.
func forceSilence(c *cobra.Command, force *bool) {
	c.Flags().BoolVar(force, "force", false, "even if no node is left that may own: all addresses fall silent")
}

func setDrain(g *globals, drained bool, use, short string) *cobra.Command {
	in := api.DrainRequest{Drained: drained}
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := nodeOrSelf(cmd, g, args)
			if err != nil {
				return err
			}
			in.Node = node
			return call(cmd.Context(), cmd.OutOrStdout(), g, api.PathDrain, in, func(api.Done) string {
				if drained {
					return node + " does not own from now on"
				}
				return node + " may own again"
			})
		},
	}
	if drained {
		forceSilence(c, &in.Force)
	}
	g.jsonFlag(c)
	return c
}

func vipCommand(g *globals) *cobra.Command {
	c := &cobra.Command{Use: "vip", Short: "List, add or delete virtual addresses"}
	list := &cobra.Command{
		Use: "list", Short: "List the virtual addresses", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var vips []api.VIP
			if err := g.client().Call(cmd.Context(), api.PathVIPs, struct{}{}, &vips); err != nil {
				return err
			}
			if g.json {
				return printJSON(cmd.OutOrStdout(), vips)
			}
			var rows [][]string
			for _, v := range vips {
				rows = append(rows, []string{v.Prefix.String(), v.Instance, dash(v.Dev), dash(v.Owner)})
			}
			table(cmd.OutOrStdout(), "ADDRESS\tINSTANCE\tINTERFACE\tOWNER", rows)
			return nil
		},
	}
	g.jsonFlag(list)
	var in api.VIPRequest
	add := &cobra.Command{
		Use: "add ADDRESS[/LENGTH][@INTERFACE]", Short: "Add a virtual address to the cluster", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if in.Prefix, in.Dev, err = parseNewVIP(args[0]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "asking the network whether %s is in use ...\n", in.Prefix.Addr())
			return call(cmd.Context(), cmd.OutOrStdout(), g, api.PathVIPAdd, in, func(api.Done) string {
				return fmt.Sprintf("virtual address %s added", in.Prefix)
			})
		},
	}
	add.Flags().StringVar(&in.Instance, "instance", "", "`INSTANCE` to add it to (default: default)")
	add.Flags().BoolVar(&in.Force, "force", false, "add it even if another machine answers for it")
	g.jsonFlag(add)
	var forceDel bool
	del := &cobra.Command{
		Use: "del ADDRESS", Short: "Delete a virtual address from the cluster", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix, _, err := parseVIP(args[0])
			if err != nil {
				return err
			}
			return call(cmd.Context(), cmd.OutOrStdout(), g, api.PathVIPDel, api.VIPRequest{Prefix: prefix, Force: forceDel}, func(api.Done) string {
				return fmt.Sprintf("virtual address %s deleted", prefix.Addr())
			})
		},
	}
	del.Flags().BoolVar(&forceDel, "force", false, "even if it is the last one")
	g.jsonFlag(del)
	c.AddCommand(list, add, del)
	needCommand(c)
	return c
}

func moveHereCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "move-here",
		Short: "Bind a data directory that came from another machine to this one",
		Long: `Bind the data directory to this machine: its node lives here from now on, and nowhere
else. The other members stop listening to the machine where it was. Say it only if
no daemon runs, or will run again, with a copy of the directory elsewhere. The daemon
must not run here either while it is said.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := g.settings().LoadConfig()
			if err != nil {
				return err
			}
			data, err := store.OpenDataDir(c.Raft.DataDir)
			if err != nil {
				if errors.Is(err, store.ErrDataDirInUse) {
					return api.WithHint(err, "stop the daemon first: systemctl stop raftvip")
				}
				return err
			}
			defer data.Close()
			if err := data.MoveHere(); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s belongs to this machine now; start the daemon\n", data.Path())
			return nil
		},
	}
}

func nodeCommand(g *globals) *cobra.Command {
	c := &cobra.Command{Use: "node", Short: "List, remove or promote nodes"}
	list := &cobra.Command{
		Use: "list", Short: "List the members", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st api.Status
			if err := g.client().Call(cmd.Context(), api.PathStatus, struct{}{}, &st); err != nil {
				return err
			}
			if g.json {
				return printJSON(cmd.OutOrStdout(), st.Nodes)
			}
			printNodes(cmd.OutOrStdout(), st.Nodes)
			return nil
		},
	}
	g.jsonFlag(list)
	request := func(use, short, path string, in *api.NodeRequest) *cobra.Command {
		sub := &cobra.Command{
			Use: use, Short: short, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				in.Node = args[0]
				return call(cmd.Context(), cmd.OutOrStdout(), g, path, in, func(d api.Done) string { return d.Message })
			},
		}
		g.jsonFlag(sub)
		return sub
	}
	var removal, promotion api.NodeRequest
	remove := request("remove NODE", "Remove a member, dead or alive; it cannot come back under its old identity", api.PathRemove, &removal)
	forceSilence(remove, &removal.Force)
	c.AddCommand(moveHereCommand(g), list, remove, request("promote NODE", "Make a non-voter that has caught up a voter now", api.PathPromote, &promotion))
	needCommand(c)
	return c
}

func leaveCommand(g *globals) *cobra.Command {
	var in api.LeaveRequest
	c := &cobra.Command{
		Use: "leave", Short: "Leave the cluster and stop the daemon",
		Long: `Leave the cluster and stop the daemon. Its identity is used up: a daemon that is
started again, by systemd too, only says so. To join again later, move the data
directory away first.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return call(cmd.Context(), cmd.OutOrStdout(), g, api.PathLeave, in, func(d api.Done) string {
				return d.Message + "; under systemd: systemctl disable --now raftvip"
			})
		},
	}
	forceSilence(c, &in.Force)
	g.jsonFlag(c)
	return c
}

func tokenCommand(g *globals) *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "Make, list or revoke join tokens"}
	var in api.TokenRequest
	create := &cobra.Command{
		Use: "create", Short: "Make a token with which a node may join", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return call(cmd.Context(), cmd.OutOrStdout(), g, api.PathToken, in, func(t api.Token) string {
				return fmt.Sprintf("Good for %s until %s. On the new node:\n\n    %s\n", count(t.Uses, "node"), t.Expires.Local().Format(time.DateTime), t.Join)
			})
		},
	}
	create.Flags().DurationVar(&in.TTL, "ttl", time.Hour, "how long it is good")
	create.Flags().IntVar(&in.Uses, "uses", 1, "for how many nodes it is good")
	g.jsonFlag(create)
	list := &cobra.Command{
		Use: "list", Short: "List the tokens that are not used up", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var tokens []api.Token
			if err := g.client().Call(cmd.Context(), api.PathTokens, struct{}{}, &tokens); err != nil {
				return err
			}
			if g.json {
				return printJSON(cmd.OutOrStdout(), tokens)
			}
			var rows [][]string
			for _, t := range tokens {
				state := "good until " + t.Expires.Local().Format(time.DateTime)
				if time.Now().After(t.Expires) {
					state = "expired " + t.Expires.Local().Format(time.DateTime)
				}
				rows = append(rows, []string{t.ID, fmt.Sprint(t.Uses), state})
			}
			table(cmd.OutOrStdout(), "TOKEN\tNODES\tSTATE", rows)
			return nil
		},
	}
	g.jsonFlag(list)
	revoke := &cobra.Command{
		Use: "revoke TOKEN", Short: "Revoke a token, by its name in the list", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return call(cmd.Context(), cmd.OutOrStdout(), g, api.PathRevoke, api.TokenRevoke{ID: args[0]}, func(api.Done) string {
				return "token " + args[0] + " revoked"
			})
		},
	}
	g.jsonFlag(revoke)
	c.AddCommand(create, list, revoke)
	needCommand(c)
	return c
}

func reloadCommand(g *globals) *cobra.Command {
	var in api.ReloadRequest
	c := &cobra.Command{
		Use:   "reload",
		Short: "Read the configuration again and propose its cluster-wide part",
		Long: `Have the daemon read its configuration again. What concerns this node (priority,
checks, interfaces) takes effect at once; addresses and timing are proposed to the
cluster, which asks the network first whether somebody has a new address. A file
with an error changes nothing. One that would undo newer changes of the cluster, or
take away the last address or the last node that may own, is refused without --force.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return call(cmd.Context(), cmd.OutOrStdout(), g, api.PathReload, in, func(r api.ReloadResult) string {
				lines := []string{"reloaded " + r.File}
				if r.File == "" {
					lines[0] = "reloaded; there is no configuration file"
				}
				lines = append(lines, r.Warnings...)
				for _, ch := range r.Changes {
					lines = append(lines, "cluster: "+ch)
				}
				return strings.Join(lines, "\n")
			})
		},
	}
	c.Flags().BoolVar(&in.Force, "force", false, "take new addresses even if another machine answers for them, and do what leaves no address or undoes newer changes")
	g.jsonFlag(c)
	return c
}

var errNotRoot = errors.New("not permitted: this command must run as root")

func requireRoot() error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	return nil
}

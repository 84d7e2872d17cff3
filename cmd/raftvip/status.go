package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/printable"
)

func statusCommand(g *globals) *cobra.Command {
	var watch bool
	var only string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the cluster, who owns the addresses, and why",
		Long: `Show the cluster, who owns the addresses, and why. The exit code is for monitoring,
on any node: 0 if the owner answers for all addresses and nobody else does; 4 if this
node knows no leader; 5 if nobody owns the addresses; 6 if this node cannot tell who
does; 7 if an address is on a node that does not own it and not kept silent there, or
another machine has claimed it within the last 30 s; 8 if the owner does not answer
for one; 1 if two machines hold one node's identity, a node was put back to an older
state, or states differ. The worst one that applies is given, in this order.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, out := g.client(), cmd.OutOrStdout()
			for {
				var st api.Status
				if err := client.Call(cmd.Context(), api.PathStatus, struct{}{}, &st); err != nil {
					return err
				}
				if err := keepGroup(&st, only); err != nil {
					return err
				}
				if watch && !g.json {
					fmt.Fprint(out, "\033[H\033[2J")
				}
				if err := printStatus(out, st, g.json); err != nil {
					return err
				}
				if !watch {
					if code := exitOf(st, time.Now()); code != exitOK {
						return quietError{code}
					}
					if len(st.Findings) > 0 {
						return quietError{exitError}
					}
					return nil
				}
				select {
				case <-time.After(time.Second):
				case <-cmd.Context().Done():
					return nil
				}
			}
		},
	}
	g.jsonFlag(c)
	c.Flags().BoolVar(&watch, "watch", false, "show again each second")
	groupFlag(c, &only)
	return c
}

// keepGroup leaves one group of a status, by its name; "" all.
func keepGroup(st *api.Status, name string) error {
	if name == "" {
		return nil
	}
	var names []string
	for _, gr := range st.Groups {
		if gr.Name == name {
			st.Groups = []api.Group{gr}
			for i := range st.Nodes { // as where there is only this one
				for _, n := range gr.Nodes {
					if n.Name == st.Nodes[i].Name {
						st.Nodes[i].Arithmetic, st.Nodes[i].Priority = n.Arithmetic, n.Priority
					}
				}
			}
			return nil
		}
		names = append(names, gr.Name)
	}
	return api.WithHint(fmt.Errorf("no group %q", name), "the groups are: "+strings.Join(names, ", "))
}

// claimFresh is how long another machine's claim of an owned address counts for the
// exit code; it is shown for longer. The clocks of the nodes are taken to agree.
const claimFresh = 30 * time.Second

// exitOf is the exit code of status.
func exitOf(st api.Status, now time.Time) int {
	if st.Standalone {
		return exitOfStandalone(st.VRRP)
	}
	if st.Cluster.Leader == "" {
		return exitNoQuorum
	}
	has := func(kind string) bool {
		return slices.ContainsFunc(st.Groups, func(g api.Group) bool {
			return slices.ContainsFunc(g.Troubles, func(t api.Trouble) bool { return t.Kind == kind })
		})
	}
	unowned := func(unknown bool) bool {
		return slices.ContainsFunc(st.Groups, func(g api.Group) bool {
			return g.Owner == "" && g.Unknown == unknown && len(g.Addresses) > 0
		})
	}
	switch {
	case unowned(false):
		return exitNobody
	case unowned(true):
		return exitUnknown
	case has(api.TroubleStray), claimed(st.Nodes, now):
		return exitStray
	case has(api.TroubleDown):
		return exitDown
	}
	return exitOK
}

// claimed tells whether another machine has just claimed an address of the owner's, or
// uses a node's own, of which it seldom speaks: that counts for as long as it is shown.
func claimed(nodes []api.Node, now time.Time) bool {
	return slices.ContainsFunc(nodes, func(n api.Node) bool {
		return len(n.AddressClaims) > 0 || slices.ContainsFunc(n.Claims, func(c api.Claim) bool { return now.Sub(c.Last) < claimFresh })
	})
}

// exitOfStandalone is that of a node whose instances are all "vrrp only": another
// router may well be master, but what this node is to have it has to have.
func exitOfStandalone(all []api.VirtualRouter) int {
	for _, v := range all {
		if v.State == "fault" {
			return exitDown
		}
		for _, a := range v.Addresses {
			if v.Up && a.State != "present" {
				return exitDown
			}
		}
	}
	return exitOK
}

func printStatus(w io.Writer, st api.Status, asJSON bool) error {
	if asJSON {
		return printJSON(w, st)
	}
	for _, text := range st.Warnings {
		fmt.Fprintln(w, "warning:", text)
	}
	if len(st.Warnings) > 0 {
		fmt.Fprintln(w)
	}
	if st.Standalone {
		fmt.Fprintf(w, "node      %s\ncluster   none: every instance is vrrp only\n", st.Node.Name)
		printVRRP(w, st.VRRP)
		printGuard(w, st.Guard)
		printConfig(w, st.Config)
		return nil
	}
	fmt.Fprintf(w, "node      %s (%s)\n", st.Node.Name, st.Node.Address)
	if st.Phase != "" {
		fmt.Fprintf(w, "waiting   %s\n", st.Phase)
	}
	leader := st.Cluster.Leader
	if leader == "" {
		leader = "none"
	}
	fmt.Fprintf(w, "cluster   %s, leader %s, term %d, %s\n", st.Cluster.ID, leader, st.Cluster.Term, votersText(st.Cluster))
	if len(st.Groups) == 1 {
		printGroup(w, st.Groups[0])
	} else {
		printGroups(w, st.Groups)
	}
	printVRRP(w, st.VRRP)
	if len(st.Nodes) > 0 {
		fmt.Fprintln(w)
	}
	printNodes(w, st.Nodes)
	printGuard(w, st.Guard)
	printConfig(w, st.Config)
	return nil
}

// votersText says how many voters there are and how many may fail, as far as it is known.
func votersText(c api.Cluster) string {
	text := count(c.Voters, "voter")
	switch {
	case c.Reachable == 0:
		return text
	case c.Reachable < c.Voters:
		text += fmt.Sprintf(", %d of them answer", c.Reachable)
	}
	if c.Tolerates == 0 {
		return text + ", survives no further loss"
	}
	return text + fmt.Sprintf(", survives the loss of %d", c.Tolerates)
}

func printGroup(w io.Writer, g api.Group) {
	fmt.Fprintf(w, "owner     %s\n", ownerText(g))
	if g.Why != "" {
		fmt.Fprintf(w, "why       %s\n", printable.Line(g.Why))
	}
	here := "here      " + g.State
	if g.LeaseRemaining > 0 {
		here += ", lease " + seconds(g.LeaseRemaining)
	}
	fmt.Fprintln(w, here)
	if len(g.Addresses) == 0 {
		fmt.Fprintln(w, "\nno virtual addresses; add one with: raftvip vip add ADDRESS/LENGTH@INTERFACE")
		return
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, a := range g.Addresses {
		state := a.State
		if a.Problem != "" {
			state += ": " + a.Problem
		}
		rows = append(rows, []string{a.Prefix.String(), a.Instance, dash(a.Link), state})
	}
	table(w, "ADDRESS\tINSTANCE\tINTERFACE\tHERE", rows)
}

// printGroups shows several groups, a line for each, and why where nobody owns.
func printGroups(w io.Writer, groups []api.Group) {
	fmt.Fprintln(w)
	var rows [][]string
	for _, g := range groups {
		owner, here := ownerText(g), g.State
		if g.LeaseRemaining > 0 {
			here += ", lease " + seconds(g.LeaseRemaining)
		}
		var nodes []string
		for _, n := range g.Nodes {
			text := fmt.Sprintf("%s %d", n.Name, n.Priority)
			if !n.Eligible {
				text = n.Name + " -"
			}
			nodes = append(nodes, text)
		}
		rows = append(rows, []string{g.Name, owner, fmt.Sprint(len(g.Addresses)), here, strings.Join(nodes, ", ")})
	}
	table(w, "GROUP\tOWNER\tADDRESSES\tHERE\tPRIORITIES", rows)
	for _, text := range unownedWhy(groups) {
		fmt.Fprintln(w, text)
	}
	fmt.Fprintln(w)
	rows = nil
	for _, g := range groups {
		for _, a := range g.Addresses {
			state := a.State
			if a.Problem != "" {
				state += ": " + a.Problem
			}
			rows = append(rows, []string{a.Prefix.String(), g.Name, a.Instance, dash(a.Link), state})
		}
	}
	table(w, "ADDRESS\tGROUP\tINSTANCE\tINTERFACE\tHERE", rows)
}

// unownedWhy says why groups have no owner, once for those that lack it for one reason.
func unownedWhy(groups []api.Group) (lines []string) {
	var whys []string
	names := make(map[string][]string)
	for _, g := range groups {
		if g.Owner == "" && g.Why != "" && len(g.Addresses) > 0 {
			if names[g.Why] == nil {
				whys = append(whys, g.Why)
			}
			names[g.Why] = append(names[g.Why], g.Name)
		}
	}
	for _, why := range whys {
		lines = append(lines, strings.Join(names[why], ", ")+": "+printable.Line(why))
	}
	return lines
}

func ownerText(g api.Group) string {
	switch {
	case g.Unknown:
		return "not known here"
	case g.Owner == "":
		return "nobody"
	}
	return g.Owner
}

func printNodes(w io.Writer, nodes []api.Node) {
	if len(nodes) == 0 {
		return
	}
	// With several groups a node has a priority in each, and they are in the table above.
	header, priorities := "NODE\tADDRESS\tROLE\tSTATE", slices.ContainsFunc(nodes, func(n api.Node) bool { return n.Arithmetic != "" })
	if priorities {
		header += "\tPRIORITY"
	}
	var rows [][]string
	for _, n := range nodes {
		row := []string{n.Name, n.Address, n.Role, nodeState(n)}
		if priorities {
			row = append(row, dash(n.Arithmetic))
		}
		rows = append(rows, row)
	}
	table(w, header, rows)
	for _, n := range nodes {
		for _, in := range n.Checks {
			for _, t := range in.Terms {
				if t.Known && !t.OK {
					fmt.Fprintf(w, "%s: %s %s %s\n", n.Name, t.Kind, t.Name, printable.Line(t.Detail))
				}
			}
		}
	}
}

// nodeState is one word, and a reason where one is needed.
func nodeState(n api.Node) string {
	switch {
	case !n.Alive:
		if n.ReportAge < 0 {
			return "unknown"
		}
		return "silent for " + seconds(n.ReportAge)
	case len(n.Owns) > 0 && n.Owns[0] != "default", len(n.Owns) > 1:
		return "owner of " + strings.Join(n.Owns, ", ")
	case n.Owner:
		return "owner"
	case n.Drained:
		return "drained"
	case !n.Eligible:
		return "not eligible: " + n.Why
	}
	return "standby"
}

func printGuard(w io.Writer, g api.Guard) {
	fmt.Fprintf(w, "\nguard     %s", g.Kind)
	var attached []string
	for _, i := range g.Interfaces {
		if i.Attached {
			attached = append(attached, i.Name)
		}
	}
	if len(attached) > 0 {
		fmt.Fprintf(w, " on %s", strings.Join(attached, " "))
	}
	fmt.Fprintf(w, "\n          %s\n", g.Guarantee)
	for _, i := range g.Interfaces {
		if !i.Attached {
			fmt.Fprintf(w, "          not on %s: %s\n", i.Name, i.Problem)
		}
	}
	for _, r := range g.Refused {
		fmt.Fprintf(w, "          not used: %s\n", strings.ReplaceAll(r, "\n", "; "))
	}
}

func printConfig(w io.Writer, c api.Config) {
	if c.File == "" {
		fmt.Fprintln(w, "config    no file")
	} else {
		fmt.Fprintf(w, "config    %s, read %s\n", c.File, c.LoadedAt.Local().Format(time.DateTime))
	}
	if c.Error != "" {
		fmt.Fprintln(w, "          the last reload changed nothing:")
		for _, line := range strings.Split(c.Error, "\n") {
			fmt.Fprintf(w, "          %s\n", line)
		}
	}
	if len(c.Warnings) > 0 {
		fmt.Fprintf(w, "          %s; see them with: raftvip check-config %s\n", count(len(c.Warnings), "warning"), c.File)
	}
	for _, d := range c.Drift {
		fmt.Fprintf(w, "          drift: %s\n", d)
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func historyCommand(g *globals) *cobra.Command {
	var last int
	var only string
	c := &cobra.Command{
		Use:   "history",
		Short: "Show who owned the addresses, when and why",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if last < 0 {
				return usageError{fmt.Errorf("--last %d: must not be negative; 0 shows all", last)}
			}
			var moves []api.Move
			if err := g.client().Call(cmd.Context(), api.PathHistory, struct{}{}, &moves); err != nil {
				return err
			}
			several := slices.ContainsFunc(moves, func(m api.Move) bool { return m.Group != moves[0].Group })
			if only != "" {
				moves = slices.DeleteFunc(moves, func(m api.Move) bool { return m.Group != only })
			}
			if last > 0 && len(moves) > last {
				moves = moves[len(moves)-last:]
			}
			if g.json {
				return printJSON(cmd.OutOrStdout(), moves)
			}
			var rows [][]string
			head := "#\tWHEN\tTERM\tOWNER\tGAP\tWHY"
			if several {
				head = "GROUP\t" + head
			}
			for _, m := range moves {
				row := []string{
					fmt.Sprint(m.Seq), m.At.Local().Format("2006-01-02 15:04:05.000"), fmt.Sprint(m.Term),
					dash(m.From) + " -> " + dash(m.To), gapText(m), m.Reason,
				}
				if several {
					row = append([]string{m.Group}, row...)
				}
				rows = append(rows, row)
			}
			table(cmd.OutOrStdout(), head, rows)
			return nil
		},
	}
	g.jsonFlag(c)
	c.Flags().IntVarP(&last, "last", "n", 0, "only the last `N` (default all)")
	groupFlag(c, &only)
	return c
}

// gapText is how long clients were without an answer, from the least to the most that
// it can have been.
func gapText(m api.Move) string {
	most, least := seconds(m.Gap), seconds(m.GapLeast)
	switch {
	case m.To == "" || m.From == "" && m.Gap == 0:
		return "-"
	case m.Gap == 0:
		return "unknown"
	case m.GapLeast == 0:
		return "up to " + most
	case most == least:
		return most
	}
	return least + " to " + most
}

// call runs one request and prints its answer, or a line of text for people.
func call[Out any](ctx context.Context, w io.Writer, g *globals, path string, in any, text func(Out) string) error {
	var out Out
	if err := g.client().Call(ctx, path, in, &out); err != nil {
		return err
	}
	if g.json {
		return printJSON(w, out)
	}
	if t := text(out); t != "" {
		fmt.Fprintln(w, t)
	}
	return nil
}

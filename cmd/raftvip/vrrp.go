package main

import (
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/raftvip/raftvip/internal/api"
)

// printVRRP shows the instances that speak VRRP.
func printVRRP(w io.Writer, all []api.VirtualRouter) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, v := range all {
		mode := v.Mode
		if v.Mode == "hybrid" && v.Entitled {
			mode += ", speaks"
		}
		rows = append(rows, []string{
			v.Instance, mode, fmt.Sprintf("%d on %s", v.VRID, dash(v.Interface)), v.State, fmt.Sprint(v.Priority), masterText(v),
		})
	}
	table(w, "VRRP\tMODE\tROUTER\tHERE\tPRIORITY\tMASTER", rows)
	for _, v := range all {
		if v.Why != "" {
			fmt.Fprintf(w, "%s: %s\n", v.Instance, v.Why)
		}
		fmt.Fprintf(w, "%s: version %d, every %s, %s\n", v.Instance, v.Version, seconds(v.AdvertInt), wayText(v))
		if v.Mode == "only" {
			printPlain(w, v)
		}
		for _, p := range v.Problems {
			fmt.Fprintf(w, "%s: %s %s; %d times, last %s ago\n", v.Instance, speakerText(p.From, p.Node), p.Text, p.Count, seconds(p.Age))
		}
	}
}

// printPlain shows what is not shown with a group.
func printPlain(w io.Writer, v api.VirtualRouter) {
	fmt.Fprintf(w, "%s: %s\n", v.Instance, v.Guarantee)
	if v.Check != nil {
		fmt.Fprintf(w, "%s: priority %s\n", v.Instance, v.Check.Arithmetic())
	}
	for _, a := range v.Addresses {
		state := a.State
		if a.Problem != "" {
			state += ": " + a.Problem
		}
		fmt.Fprintf(w, "%s: %s on %s %s\n", v.Instance, a.Prefix, dash(a.Link), state)
	}
}

// masterText says who is master.
func masterText(v api.VirtualRouter) string {
	switch {
	case v.State == "master":
		return "this node"
	case v.Master == nil:
		return "-"
	}
	return fmt.Sprintf("%s, priority %d", speakerText(v.Master.Address, v.Master.Node), v.Master.Priority)
}

func speakerText(a netip.Addr, node string) string {
	if node == "" {
		return a.String()
	}
	return fmt.Sprintf("%s (node %s)", a, node)
}

// wayText says how advertisements travel.
func wayText(v api.VirtualRouter) string {
	if !v.Source.IsValid() {
		return "silent"
	}
	var to []string
	for _, d := range v.Destinations {
		to = append(to, d.String())
	}
	return fmt.Sprintf("from %s to %s, %d sent, %d received", v.Source, strings.Join(to, " "), v.Sent, v.Received)
}

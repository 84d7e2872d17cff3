package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/raftvip/raftvip/internal/chaos/trial"
)

// report is everything measured; it is what the JSON file holds.
type report struct {
	Env     trial.Env        `json:"environment"`
	N       int              `json:"n"`
	Gaps    []gap            `json:"gaps"`
	Ratios  []ratio          `json:"ratios"`
	Costs   []cost           `json:"idle"`
	Startup trial.Summary    `json:"startup_single_node"`
	Sizes   map[string]int64 `json:"binary_bytes"`
	Errors  []string         `json:"errors,omitempty"`

	products []string
	faults   []trial.Fault
}

func isRaftvip(product string) bool { return strings.HasPrefix(product, "raftvip") }

func (r *report) gap(product, fault string) (gap, bool) {
	for _, g := range r.Gaps {
		if g.Product == product && g.Fault == fault && len(g.Trials) > 0 {
			return g, true
		}
	}
	return gap{}, false
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\n%v\n", r.Env)
	if len(r.Gaps) > 0 {
		r.printGaps(w)
	}
	if len(r.Ratios) > 0 {
		r.printRatios(w)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.Costs) > 0 {
		fmt.Fprintln(w, "\nIdle, one IPv4 and one IPv6 address:")
		fmt.Fprintln(t, "product\tnode\tCPU %\tRSS MiB")
		for _, c := range r.Costs {
			node := c.Node
			if c.Owner {
				node += " (owner)"
			}
			fmt.Fprintf(t, "%s\t%s\t%.2f\t%.1f\n", c.Product, node, c.CPU, float64(c.RSS)/(1<<20))
		}
		t.Flush()
	}
	if r.Startup.N > 0 {
		fmt.Fprintf(w, "\nStart-up of a single node until it answers: %s ms (n = %d)\n", pair(r.Startup), r.Startup.N)
	}
	for _, name := range []string{"raftvip", "keepalived"} {
		if n := r.Sizes[name]; n > 0 {
			fmt.Fprintf(w, "Size of %s: %.1f MiB\n", name, float64(n)/(1<<20))
		}
	}
	for _, e := range r.Errors {
		fmt.Fprintln(w, "not measured:", e)
	}
}

func pair(s trial.Summary) string { return trial.Millis(s.Median) + " / " + trial.Millis(s.Worst) }

func (r *report) printGaps(w io.Writer) {
	fmt.Fprintf(w, `
Gap seen by a client, ms, median / worst, n = %d. "two N": two nodes answered, for
N ms (median), as long as the fault lasted; where the client reached both, as on
kill -9 and SIGSTOP, the gap beside it means little.
detection: ms after which an owner is taken for dead. stall: the longest time, ms,
in which the machine itself stood still during a trial.

`, r.N)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	head := []string{"product", "detection"}
	for _, f := range r.faults {
		head = append(head, f.Title)
	}
	fmt.Fprintln(t, strings.Join(slices.Concat(head, []string{"stall"}), "\t"))
	for _, p := range r.products {
		row, detection, stall := []string{}, "-", "-"
		for _, f := range r.faults {
			g, ok := r.gap(p, f.Name)
			if !ok {
				row = append(row, "-")
				continue
			}
			cell := pair(g.Gap)
			if g.Overlap.Worst > 0 {
				cell += " two " + trial.Millis(g.Overlap.Median)
			}
			if g.Problems > 0 {
				cell += fmt.Sprintf(" (%d failed)", g.Problems)
			}
			row = append(row, cell)
			detection = trial.Millis(g.Detection)
		}
		if s := r.stall(p); s != "" {
			stall = s
		}
		fmt.Fprintln(t, strings.Join(slices.Concat([]string{p, detection}, row, []string{stall}), "\t"))
	}
	t.Flush()
	fmt.Fprint(w, "\nThe same in units of the detection time:\n\n")
	fmt.Fprintln(t, strings.Join(head, "\t"))
	for _, p := range r.products {
		row := []string{p, "1"}
		for _, f := range r.faults {
			g, ok := r.gap(p, f.Name)
			if !ok {
				row = append(row, "-")
				continue
			}
			row = append(row, fmt.Sprintf("%.2f / %.2f", g.Times[0], g.Times[1]))
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	t.Flush()
}

func (r *report) stall(product string) string {
	var worst trial.Summary
	for _, g := range r.Gaps {
		if g.Product == product {
			worst.Worst = max(worst.Worst, g.Stall)
		}
	}
	return trial.Millis(worst.Worst)
}

func (r *report) printRatios(w io.Writer) {
	fmt.Fprint(w, `
Median gap of keepalived by that of raftvip, where detection times are comparable;
over 1: raftvip is faster; "-": two keepalived nodes answered the client.

`)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "fault\traftvip\tkeepalived\tratio")
	for _, x := range r.Ratios {
		v := "-"
		if x.Ratio > 0 {
			v = fmt.Sprintf("%.2f", x.Ratio)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", x.Fault, x.Raftvip, x.Keepalived, v)
	}
	t.Flush()
}

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
)

func pair(s trial.Summary) string {
	if s.N == 0 {
		return "-"
	}
	return trial.Millis(s.Median) + " / " + trial.Millis(s.Worst)
}

// A grid is a Markdown table.
type grid struct{ rows [][]string }

func table(head ...string) *grid { return &grid{rows: [][]string{head}} }

func (g *grid) add(cells ...string) { g.rows = append(g.rows, cells) }

// write writes the table with aligned columns, or nothing if it has no rows.
func (g *grid) write(w io.Writer) {
	if len(g.rows) < 2 {
		return
	}
	widths := make([]int, len(g.rows[0]))
	for _, r := range g.rows {
		for i, c := range r {
			r[i] = strings.ReplaceAll(c, "|", `\|`)
			widths[i] = max(widths[i], len([]rune(r[i])), 3)
		}
	}
	line := func(r []string) {
		for i, c := range r {
			fmt.Fprintf(w, "| %s%s ", c, strings.Repeat(" ", widths[i]-len([]rune(c))))
		}
		fmt.Fprintln(w, "|")
	}
	line(g.rows[0])
	rule := make([]string, len(widths))
	for i, n := range widths {
		rule[i] = strings.Repeat("-", n)
	}
	line(rule)
	for _, r := range g.rows[1:] {
		line(r)
	}
	fmt.Fprintln(w)
}

func times(r float64) string {
	if r == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", r)
}

// markdown writes the report for people.
func (r *report) markdown(w io.Writer) {
	fmt.Fprintf(w, "# Benchmark of %s, %s\n\n", r.Env.Commit, r.Env.Started.UTC().Format(time.DateOnly))
	if !r.Complete {
		fmt.Fprint(w, "**Not complete**: the run ended, or was ended, before its time.\n\n")
	}
	if r.Dirty {
		fmt.Fprint(w, "**The tree had changes** that are not in the commit.\n\n")
	}
	k := r.Env.Keepalived
	if k == "" {
		k = "no keepalived"
	}
	fmt.Fprintf(w, "Linux %s, %d CPUs, load average at the start %.2f, %s, %s. Took %s.\nFlags: `%s`\n\n",
		r.Env.Kernel, r.Env.CPUs, r.Env.Load, r.Env.Go, k, short(r.Took), strings.Join(r.Flags, " "))
	fmt.Fprintf(w, `Cells with a slash are median / worst, in milliseconds unless another unit is named. A trial is clean if
no processor stood still for longer than %s ms; "all" has every trial. README.md tells how to read the rest.

`, trial.Millis(r.Threshold))
	r.writeTargets(w)
	r.writeGaps(w)
	r.writeElections(w)
	r.writeAddresses(w)
	r.writeLoad(w)
	r.writeTuning(w)
	r.writeOwners(w)
	r.writeCosts(w)
	if len(r.Errors) > 0 {
		fmt.Fprint(w, "## Not measured\n\n")
		for _, e := range r.Errors {
			fmt.Fprintf(w, "- %s\n", strings.ReplaceAll(e, "\n", " "))
		}
	}
}

func (r *report) writeTargets(w io.Writer) {
	if len(r.Targets) == 0 {
		return
	}
	fmt.Fprint(w, "## Targets\n\n")
	n := 0
	t := table("what", "target", "measured", "n", "result")
	for _, v := range r.Targets {
		t.add(v.What, v.Target, v.Got, fmt.Sprint(v.N), string(v.Status))
		if v.Status == met {
			n++
		}
	}
	fmt.Fprintf(w, "%d of %d met.\n\n", n, len(r.Targets))
	t.write(w)
}

func (r *report) writeGaps(w io.Writer) {
	for _, part := range []struct {
		title   string
		planned bool
	}{{"Gap seen by a client: failures", false}, {"Gap seen by a client: planned moves", true}} {
		t := gapTable(r.Gaps, part.planned)
		if len(t.rows) > 1 {
			fmt.Fprintf(w, "## %s\n\n", part.title)
			t.write(w)
		}
	}
}

func gapTable(gaps []gap, planned bool) *grid {
	t := table("what", "product", "detection", "n", "all", "clean", "stalled", "by detection", "two answered", "keepalived by raftvip", "target", "result")
	sorted := slices.Clone(gaps)
	var order []string
	for _, g := range gaps {
		if !slices.Contains(order, g.Fault) {
			order = append(order, g.Fault)
		}
	}
	slices.SortStableFunc(sorted, func(a, b gap) int { return slices.Index(order, a.Fault) - slices.Index(order, b.Fault) })
	for _, g := range sorted {
		if g.Planned != planned {
			continue
		}
		all, by := pair(g.Gap.All), "-"
		if g.Detection > 0 && !planned && g.Gap.All.N > 0 {
			by = fmt.Sprintf("%.2f / %.2f", float64(g.Gap.All.Median)/float64(g.Detection), float64(g.Gap.All.Worst)/float64(g.Detection))
		}
		if g.Hidden {
			all, by = all+" (hidden)", "-"
		}
		n := fmt.Sprint(g.Gap.All.N)
		if len(g.Problems) > 0 {
			n += fmt.Sprintf(" (%d failed)", len(g.Problems))
		}
		against := times(g.Ratio)
		if g.Ratio > 0 {
			against += " (" + g.Against + ")"
		}
		v, ok := g.judge()
		if !ok {
			v.Target, v.Status = "-", "-"
		}
		t.add(g.Title, g.Product, trial.Millis(g.Detection), n, all, pair(g.Gap.Clean), fmt.Sprint(g.Gap.Stalled), by, pair(g.Overlap), against, v.Target, string(v.Status))
	}
	return t
}

func (r *report) writeElections(w io.Writer) {
	if len(r.Elections) == 0 {
		return
	}
	fmt.Fprint(w, "## Elections after failures\n\n")
	t := table("product", "failures", "best node at the first attempt", "best node won", "moves per failure", "others during stalls")
	sum := election{Product: "all"}
	for _, e := range r.Elections {
		sum.add(e)
	}
	for _, e := range append(slices.Clone(r.Elections), sum) {
		n := float64(e.Failures)
		t.add(e.Product, fmt.Sprint(e.Failures), fmt.Sprintf("%d (%.1f %%)", e.First, 100*float64(e.First)/n), fmt.Sprint(e.Best), fmt.Sprintf("%.2f", float64(e.Moves)/n), fmt.Sprint(e.Stalled))
	}
	t.write(w)
}

func (r *report) writeAddresses(w io.Writer) {
	if len(r.Addresses) == 0 {
		return
	}
	fmt.Fprint(w, "## Many addresses\n\n")
	t := table("addresses", "product", "node", "n", "stalled", "first", "median one", "last", "last, clean", "first to last", "keepalived by raftvip", "target", "result")
	for _, a := range r.Addresses {
		what := fmt.Sprintf("%d %s", a.Count, a.Family)
		if a.Instances {
			what += ", an instance each"
		}
		n := fmt.Sprint(a.Spread.All.N)
		if len(a.Problems) > 0 {
			n += fmt.Sprintf(" (%d failed)", len(a.Problems))
		}
		v, ok := a.judge()
		if !ok {
			v.Target, v.Status = "-", "-"
		}
		t.add(what, a.Product, a.Kind, n, fmt.Sprint(a.Spread.Stalled), pair(a.First.All), pair(a.Median.All), pair(a.Last.All), pair(a.Last.Clean), pair(a.Spread.All), times(a.Ratio), v.Target, string(v.Status))
	}
	t.write(w)
}

func (r *report) writeLoad(w io.Writer) {
	if len(r.Load) == 0 {
		return
	}
	fmt.Fprintf(w, "## False failovers with %d busy loops\n\n", busyLoops)
	t := table("at the same time", "product", "detection", "seconds", "false failovers", "during stalls", "new terms", "silences", "longest silence", "two answered", "machine stalls", "longest stall")
	last := ""
	for _, l := range r.Load {
		window := l.Window
		if window == last {
			window = ""
		}
		last = l.Window
		t.add(window, l.Product, trial.Millis(l.Detection), fmt.Sprintf("%.0f", l.For.Seconds()), fmt.Sprint(l.Failovers), fmt.Sprint(l.Excused), fmt.Sprint(l.Terms),
			fmt.Sprint(l.Silences), trial.Millis(l.Silent), trial.Millis(l.Overlap), fmt.Sprint(l.Stalls), trial.Millis(l.Stall))
	}
	t.write(w)
}

func (r *report) writeTuning(w io.Writer) {
	if len(r.Tuning) == 0 {
		return
	}
	fmt.Fprintf(w, "## Ways to run it, with %d busy loops\n\n", busyLoops)
	t := table("product", "what", "n", "all", "clean", "stalled", "two answered")
	for _, g := range r.Tuning {
		t.add(g.Product, g.Title, fmt.Sprint(g.Gap.All.N), pair(g.Gap.All), pair(g.Gap.Clean), fmt.Sprint(g.Gap.Stalled), pair(g.Overlap))
	}
	t.write(w)
}

func (r *report) writeOwners(w io.Writer) {
	if len(r.Owners) == 0 {
		return
	}
	fmt.Fprint(w, "## Power loss of a node with many owners\n\n")
	t := table("groups", "product", "detection", "n", "stalled", "first elsewhere", "last elsewhere", "last, clean")
	for _, o := range r.Owners {
		n := fmt.Sprint(o.Last.All.N)
		if len(o.Problems) > 0 {
			n += fmt.Sprintf(" (%d failed)", len(o.Problems))
		}
		t.add(fmt.Sprint(o.Groups), o.Product, trial.Millis(o.Detection), n, fmt.Sprint(o.Last.Stalled), pair(o.First.All), pair(o.Last.All), pair(o.Last.Clean))
	}
	t.write(w)
}

func (r *report) writeCosts(w io.Writer) {
	if len(r.Costs) > 0 {
		fmt.Fprint(w, "## Idle\n\n")
		t := table("product", "voters", "addresses", "groups", "node", "CPU % of one", "RSS MiB", "packets/s sent", "received", "longest stall")
		for _, c := range r.Costs {
			t.add(c.Product, fmt.Sprint(c.Voters), fmt.Sprint(c.Addresses), fmt.Sprint(max(c.Groups, 1)), c.Node+" ("+c.role()+")", fmt.Sprintf("%.2f", c.CPU), fmt.Sprintf("%.1f", mib(c.RSS)),
				fmt.Sprintf("%.1f", c.Sent), fmt.Sprintf("%.1f", c.Received), trial.Millis(c.Stall))
		}
		t.write(w)
	}
	if len(r.Sizes) == 0 {
		return
	}
	fmt.Fprint(w, "## Size and start-up\n\n")
	t := table("what", "n", "value")
	for _, name := range []string{"raftvip", "keepalived"} {
		if n := r.Sizes[name]; n > 0 {
			t.add("program "+name, "1", fmt.Sprintf("%.1f MiB", mib(n)))
		}
	}
	if s := r.Startup; s.All.N > 0 {
		t.add("single node, from start until it answers", fmt.Sprint(s.All.N), fmt.Sprintf("%s ms; %s ms in %d clean", pair(s.All), pair(s.Clean), s.Clean.N))
	}
	t.write(w)
}

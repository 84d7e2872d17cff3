package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
)

// table is the outcome of all series.
type table struct {
	env    trial.Env
	faults []trial.Fault
	rows   []series
}

type series struct {
	guard   string // "" for keepalived
	results []trial.Result
	err     error // why there are no more
}

func (m *table) add(p trial.Product, rs []trial.Result, err error) {
	s := series{results: rs, err: err}
	if r, ok := p.(trial.Raftvip); ok {
		s.guard = r.Guard
	}
	m.rows = append(m.rows, s)
}

func (m *table) keepalived() (s series, ok bool) {
	for _, r := range m.rows {
		if r.guard == "" {
			return r, true
		}
	}
	return series{}, false
}

func overlap(r trial.Result) time.Duration { return r.Overlap }
func stall(r trial.Result) time.Duration   { return r.Stall }

// gap is the longest of the whole trial: a return of the addresses counts as well.
func gap(r trial.Result) time.Duration { return max(r.Gap, r.HealGap) }

// print writes the matrix: a line for each fault and guard, and what the same
// fault did to keepalived beside it.
func (m *table) print(w io.Writer) {
	fmt.Fprintf(w, "\n%v\n", m.env)
	fmt.Fprint(w, `
overlap: ms in which two nodes answered for one address, worst (keepalived: median / worst)
late:    announcements by a node that did not hold the address any more
gap:     ms in which a client got no answer, until all was healed, median / worst
stall:   longest ms in which this machine stood still meanwhile

`)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\t| raftvip\t\t\t\t\t| keepalived\t\t\t|")
	fmt.Fprintln(t, "fault\t| guard\tn\toverlap\tlate\tgap\t| n\toverlap\tgap\t| stall")
	peer, _ := m.keepalived()
	for _, f := range m.faults {
		title := f.Title
		theirs := trial.Select(peer.results, f.Name)
		for _, s := range m.rows {
			if s.guard == "" {
				continue
			}
			mine := trial.Select(s.results, f.Name)
			fmt.Fprintf(t, "%s\t| %s\t%s\t%s\n", title, s.guard, ours(mine), beside(theirs, mine))
			title = ""
		}
	}
	t.Flush()
	fmt.Fprint(w, `
An overlap of keepalived lasts as long as the fault does, since its kernel goes on
answering; where two answer, its client sees no gap. keepalived has no planned
move, so it is stopped instead.
`)
	if peer.err != nil {
		fmt.Fprintln(w, "keepalived could not be tested further:", peer.err)
	}
}

// ours are the four columns from n to gap.
func ours(rs []trial.Result) string {
	if len(rs) == 0 {
		return "0\t-\t-\t-"
	}
	late := 0
	for _, r := range rs {
		late += len(r.Strays)
	}
	return fmt.Sprintf("%d\t%s\t%d\t%s", len(rs), trial.Millis(trial.Of(rs, overlap).Worst), late, pair(trial.Of(rs, gap)))
}

// beside are the columns of keepalived, and the machine's stall in the trials of
// the line.
func beside(theirs, mine []trial.Result) string {
	stalled := trial.Millis(max(trial.Of(mine, stall).Worst, trial.Of(theirs, stall).Worst))
	if len(theirs) == 0 {
		return "| -\t-\t-\t| " + stalled
	}
	return fmt.Sprintf("| %d\t%s\t%s\t| %s", len(theirs), pair(trial.Of(theirs, overlap)), pair(trial.Of(theirs, gap)), stalled)
}

func pair(s trial.Summary) string { return trial.Millis(s.Median) + " / " + trial.Millis(s.Worst) }

// document is what the JSON file holds.
func (m *table) document() any {
	type entry struct {
		Product string         `json:"product"`
		Guard   string         `json:"guard,omitempty"`
		Error   string         `json:"error,omitempty"`
		Results []trial.Result `json:"results"`
	}
	doc := struct {
		Env    trial.Env `json:"environment"`
		Series []entry   `json:"series"`
	}{Env: m.env}
	for _, s := range m.rows {
		e := entry{Product: "raftvip", Guard: s.guard, Results: s.results}
		if s.guard == "" {
			e.Product = "keepalived"
		}
		if s.err != nil {
			e.Error = s.err.Error()
		}
		doc.Series = append(doc.Series, e)
	}
	return doc
}

// verdict is an error that lists everything raftvip did wrong.
func (m *table) verdict() error {
	var errs []error
	for _, s := range m.rows {
		if s.guard == "" {
			continue
		}
		if s.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.guard, s.err))
		}
		for _, r := range s.results {
			if r.OK() {
				continue
			}
			what := append(append([]string{}, r.Violations...), r.Strays...)
			if r.Problem != "" {
				what = append(what, r.Problem)
			}
			errs = append(errs, fmt.Errorf("%s: %s: %s", s.guard, r.Fault, strings.Join(what, "; ")))
		}
	}
	return errors.Join(errs...)
}

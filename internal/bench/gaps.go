package main

import (
	"context"
	"fmt"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
)

// A gap is how long a client got no answer because of one thing that was done.
type gap struct {
	Product string `json:"product"`
	Ours    bool   `json:"ours"`
	// Detection is how long the nodes wait before they take the owner for dead.
	Detection time.Duration `json:"detection_ns"`
	Fault     string        `json:"fault"`
	Title     string        `json:"title"`
	Planned   bool          `json:"planned"`
	Gap       timing        `json:"gap"`
	// Overlap is how long two nodes answered, until all was healed.
	Overlap trial.Summary `json:"overlap"`
	// Hidden: the client was answered by a node that should not have, so that the
	// gap means little.
	Hidden bool `json:"gap_hidden_by_overlap"`
	// Against and Ratio: the keepalived whose detection time is nearest, and by what
	// its median gap is longer. 0: nothing to compare with.
	Against string  `json:"against,omitempty"`
	Ratio   float64 `json:"keepalived_by_raftvip,omitempty"`
	// Problems are trials that did not go as they should, which have no gap.
	Problems []string `json:"problems,omitempty"`
}

// Thawing takes the addresses away from the daemon that took over, or not: it is
// no part of the gap, so it may come soon.
const holdFault = 300 * time.Millisecond

// gapSeries is a step: one fault done several times to one product. The faults of
// one product make one step, so that they share its cluster.
func (b *bench) gapSeries(section string, p trial.Product, detection time.Duration, faults []trial.Fault, n int) step {
	per := b.trialTakes(p, detection)
	return step{
		section: section, theirs: !ours(p), name: p.Name(), takes: opening + per*time.Duration(n*len(faults)),
		run: func(ctx context.Context) error {
			s := trial.Series{
				Product: p, Setup: trial.Setup{Check: hasFault(faults, "check")}, Faults: faults, Trials: n,
				Hold: holdFault, HoldThaws: holdFault,
				Report: func(r trial.Result) {
					b.plan.advance(per)
					b.plan.note("%-24s %-9s gap %s ms, overlap %s ms, stall %s ms, took %s s %s", r.Product, r.Fault, trial.Millis(r.Gap), trial.Millis(r.Overlap), trial.Millis(r.FaultStall), fmt.Sprintf("%.1f", r.Took.Seconds()), r.Problem)
				},
			}
			rs, err := s.Run(ctx)
			for _, f := range faults {
				if mine := trial.Select(rs, f.Name); len(mine) > 0 {
					b.rep.Gaps = append(b.rep.Gaps, gapOf(p, f, mine, b.threshold))
					b.rep.count(p, f, mine)
				}
			}
			return err
		},
	}
}

func hasFault(faults []trial.Fault, name string) bool {
	for _, f := range faults {
		if f.Name == name {
			return true
		}
	}
	return false
}

func gapOf(p trial.Product, f trial.Fault, rs []trial.Result, threshold time.Duration) gap {
	g := gap{Product: p.Name(), Ours: ours(p), Fault: f.Name, Title: f.Title, Planned: f.Planned}
	var samples []sample
	for _, r := range rs {
		g.Detection = max(g.Detection, r.Detection)
		if r.Problem != "" {
			g.Problems = append(g.Problems, r.Problem)
			continue
		}
		samples = append(samples, sample{r.Gap, r.FaultStall})
	}
	g.Gap = timingOf(samples, threshold)
	// A trial with a problem may have had two owners all the same.
	g.Overlap = trial.Of(rs, func(r trial.Result) time.Duration { return r.Overlap })
	during := trial.Of(rs, func(r trial.Result) time.Duration { return r.FaultOverlap })
	g.Hidden = during.Median > 0 && !f.CutsClient
	return g
}

func ours(p trial.Product) bool {
	_, ok := p.(trial.Raftvip)
	return ok
}

// comparableWithin is by what factor detection times may differ for gaps after a
// failure to be compared. Planned moves do not wait for it.
const comparableWithin = 2

// compare pairs each raftvip with the keepalived whose detection time is nearest.
func (r *report) compare() {
	for i := range r.Gaps {
		g := &r.Gaps[i]
		g.Against, g.Ratio = "", 0
		if !g.Ours || g.Gap.All.N == 0 {
			continue
		}
		var best *gap
		for j := range r.Gaps {
			k := &r.Gaps[j]
			like := k.Fault == g.Fault || g.Planned && k.Fault == "term" && !r.hasTheirs(g.Fault)
			if k.Ours || !like || k.Gap.All.N == 0 || !g.Planned && apart(k.Detection, g.Detection) > comparableWithin {
				continue
			}
			if best == nil || apart(k.Detection, g.Detection) < apart(best.Detection, g.Detection) {
				best = k
			}
		}
		if best == nil {
			continue
		}
		g.Against = best.Product
		if best.Fault != g.Fault {
			g.Against += ", " + best.Title
		}
		if !best.Hidden {
			g.Ratio = ratio(best.Gap.All.Median, g.Gap.All.Median)
		}
	}
}

// hasTheirs tells whether the fault was done to keepalived at all. It has no
// transfer and no drain, so that its operator stops it instead.
func (r *report) hasTheirs(fault string) bool {
	for _, g := range r.Gaps {
		if !g.Ours && g.Fault == fault {
			return true
		}
	}
	return false
}

// apart is by what factor two times differ.
func apart(a, b time.Duration) float64 {
	f := float64(a) / float64(b)
	if f < 1 {
		f = 1 / f
	}
	return f
}

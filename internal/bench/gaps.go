package main

import (
	"context"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
)

// A gap is how long a client got no answer because of one fault.
type gap struct {
	Product string `json:"product"`
	// Detection is how long the nodes wait before they take the owner for dead.
	Detection time.Duration `json:"detection_ns"`
	Fault     string        `json:"fault"`
	Gap       trial.Summary `json:"gap"`
	// Times is the gap in units of Detection: its median and worst.
	Times [2]float64 `json:"gap_by_detection"`
	// Overlap is how long two nodes answered during the fault.
	Overlap trial.Summary `json:"overlap"`
	// Hidden: the client was answered by a node that should not have, so that the
	// gap means little.
	Hidden bool `json:"gap_hidden_by_overlap"`
	// Stall is the longest time in which the machine stood still.
	Stall    time.Duration  `json:"machine_stall_worst_ns"`
	Problems int            `json:"problems"`
	Trials   []trial.Result `json:"trials"`
}

// A ratio compares the medians of two gaps where both products detect a dead
// owner in about the same time.
type ratio struct {
	Fault      string  `json:"fault"`
	Raftvip    string  `json:"raftvip"`
	Keepalived string  `json:"keepalived"`
	Ratio      float64 `json:"keepalived_by_raftvip"` // 0: not comparable
}

// Thawing takes the addresses away from the daemon that took over, or not: it is
// no part of the gap, so it may come soon.
const thawAfter = 300 * time.Millisecond

// gaps does every fault to every product.
func (b *bench) gaps(ctx context.Context, rep *report) error {
	if len(b.fault) == 0 {
		return nil
	}
	var products []trial.Product
	for _, h := range b.heartbeat {
		products = append(products, b.raftvip(h, 0))
	}
	for _, k := range b.advert {
		products = append(products, k)
	}
	for _, p := range products {
		faults := b.fault
		if _, ok := p.(trial.Keepalived); ok {
			faults = nil
			for _, f := range b.fault {
				if f.Name != "transfer" { // it has none
					faults = append(faults, f)
				}
			}
		}
		rs, err := trial.Series{
			Product: p, Faults: faults, Trials: b.n, Hold: thawAfter, HoldThaws: thawAfter,
			Report: func(r trial.Result) {
				note("%-22s %-9s gap %s ms, overlap %s ms, stall %s ms %s", r.Product, r.Fault, trial.Millis(r.Gap), trial.Millis(r.FaultOverlap), trial.Millis(r.Stall), r.Problem)
			},
		}.Run(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			note("%s: %v", p.Name(), err)
			rep.Errors = append(rep.Errors, err.Error())
		}
		for _, f := range faults {
			rep.Gaps = append(rep.Gaps, gapOf(p, f, trial.Select(rs, f.Name)))
		}
		rep.products = append(rep.products, p.Name())
	}
	rep.faults = b.fault
	rep.compare()
	return nil
}

func gapOf(p trial.Product, f trial.Fault, rs []trial.Result) gap {
	g := gap{Product: p.Name(), Fault: f.Name, Trials: rs}
	var good []trial.Result
	for _, r := range rs {
		if r.Problem != "" {
			g.Problems++
			continue
		}
		good = append(good, r)
	}
	g.Gap = trial.Of(good, func(r trial.Result) time.Duration { return r.Gap })
	g.Overlap = trial.Of(good, func(r trial.Result) time.Duration { return r.FaultOverlap })
	g.Hidden = g.Overlap.Median > 0 && !f.CutsClient
	g.Stall = trial.Of(good, func(r trial.Result) time.Duration { return r.Stall }).Worst
	for _, r := range good {
		g.Detection = r.Detection
	}
	if g.Detection > 0 {
		g.Times = [2]float64{float64(g.Gap.Median) / float64(g.Detection), float64(g.Gap.Worst) / float64(g.Detection)}
	}
	return g
}

// comparableWithin is by what factor detection times may differ for gaps to be compared.
const comparableWithin = 2

// compare pairs each raftvip with the keepalived whose detection time is nearest.
func (r *report) compare() {
	for _, g := range r.Gaps {
		if !isRaftvip(g.Product) || g.Gap.N == 0 {
			continue
		}
		var best *gap
		for i, k := range r.Gaps {
			if isRaftvip(k.Product) || k.Fault != g.Fault || k.Gap.N == 0 {
				continue
			}
			if apart(k, g) > comparableWithin {
				continue
			}
			if best == nil || apart(k, g) < apart(*best, g) {
				best = &r.Gaps[i]
			}
		}
		if best == nil {
			continue
		}
		x := ratio{Fault: g.Fault, Raftvip: g.Product, Keepalived: best.Product}
		if !best.Hidden && g.Gap.Median > 0 {
			x.Ratio = float64(best.Gap.Median) / float64(g.Gap.Median)
		}
		r.Ratios = append(r.Ratios, x)
	}
}

// apart is by what factor two detection times differ.
func apart(a, b gap) float64 {
	f := float64(a.Detection) / float64(b.Detection)
	if f < 1 {
		f = 1 / f
	}
	return f
}

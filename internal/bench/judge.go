package main

import (
	"fmt"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
)

// A status is what came of a target.
type status string

const (
	met    status = "met"
	missed status = "missed"
	// stalled: missed, but met by the trials during which the machine did not stall.
	stalled status = "missed; met without stalls"
)

// A verdict is one target of DESIGN.md, and what was measured.
type verdict struct {
	What   string `json:"what"`
	Target string `json:"target"`
	Got    string `json:"got"`
	N      int    `json:"n"`
	Status status `json:"status"`
}

// within judges a timing by its median and its worst.
func within(what string, t timing, median, worst time.Duration) (verdict, bool) {
	if t.All.N == 0 {
		return verdict{}, false
	}
	ok := func(s trial.Summary) bool { return s.N > 0 && s.Median <= median && s.Worst <= worst }
	v := verdict{
		What: what, N: t.All.N, Status: missed, Got: pair(t.All) + " ms",
		Target: fmt.Sprintf("<= %s / %s ms", trial.Millis(median), trial.Millis(worst)),
	}
	switch {
	case ok(t.All):
		v.Status = met
	case t.Stalled > 0 && ok(t.Clean):
		v.Status = stalled
		v.Got += fmt.Sprintf("; %s ms in %d clean trials", pair(t.Clean), t.Clean.N)
	}
	return v, true
}

// The targets of DESIGN.md section 13.
const (
	plannedMedian, plannedWorst = 3 * time.Millisecond, 15 * time.Millisecond
	lastV4, lastV6              = 15 * time.Millisecond, 50 * time.Millisecond
	idleCPU                     = 0.5      // percent of a processor
	idleRSS                     = 25 << 20 // bytes
	firstAttempts               = 0.99
	enoughElections             = 200
)

// failureGap is the target for a failure, by the heartbeat timeout.
func failureGap(h time.Duration) (median, worst time.Duration) {
	return h*11/10 + 5*time.Millisecond, h*3/2 + 20*time.Millisecond
}

func yes(ok bool) status {
	if ok {
		return met
	}
	return missed
}

// judge compares everything that was measured with its target. What was not
// measured has no verdict.
func (r *report) judge() []verdict {
	var vs []verdict
	add := func(v verdict, ok bool) {
		if ok {
			vs = append(vs, v)
		}
	}
	for _, g := range r.Gaps {
		add(g.judge())
	}
	if sum, n := r.overlap(); n > 0 {
		vs = append(vs, verdict{"time with two answering nodes, any fault", "0", trial.Millis(sum) + " ms", n, yes(sum == 0)})
	}
	vs = append(vs, r.judgeElections()...)
	for _, a := range r.Addresses {
		add(a.judge())
	}
	vs = append(vs, r.judgeLoad()...)
	return append(vs, r.judgeIdle()...)
}

// judge has a verdict for raftvip only. A priority change has no target of its own:
// it is a planned move as well.
func (g gap) judge() (verdict, bool) {
	if !g.Ours {
		return verdict{}, false
	}
	median, worst := plannedMedian, plannedWorst
	if !g.Planned {
		median, worst = failureGap(g.Detection)
	}
	v, ok := within(fmt.Sprintf("%s, %s: gap", g.Product, g.Title), g.Gap, median, worst)
	if ok && len(g.Problems) > 0 {
		v.Status = missed
		v.Got += fmt.Sprintf("; %d trials failed", len(g.Problems))
	}
	return v, ok
}

// judge has a verdict for 1000 addresses of raftvip in one instance.
func (a addresses) judge() (verdict, bool) {
	limit := lastV4
	if a.Family == "IPv6" {
		limit = lastV6
	}
	if !a.Ours || a.Instances {
		return verdict{}, false
	}
	v, ok := within(fmt.Sprintf("%d %s addresses, %s: last", a.Count, a.Family, a.Kind), a.Last, limit, limit)
	v.Target = fmt.Sprintf("<= %s ms", trial.Millis(limit))
	return v, ok
}

func (r *report) judgeElections() []verdict {
	var all election
	for _, e := range r.Elections {
		all.add(e)
	}
	if all.Failures == 0 {
		return nil
	}
	share := float64(all.First) / float64(all.Failures)
	return []verdict{
		{
			"elections won by the best node at the first attempt", fmt.Sprintf(">= %.0f %% of at least %d", 100*firstAttempts, enoughElections),
			fmt.Sprintf("%.1f %%", 100*share), all.Failures, yes(share >= firstAttempts && all.Failures >= enoughElections),
		},
		{
			"address moves per failure", "1", fmt.Sprintf("%.2f", float64(all.Moves)/float64(all.Failures)), all.Failures,
			yes(all.MovedOnce == all.Failures),
		},
	}
}

// judgeLoad compares the false failovers at each heartbeat timeout with those of
// the keepalived that notices a failure as soon, in the same window.
func (r *report) judgeLoad() []verdict {
	var vs []verdict
	for _, l := range r.Load {
		if !l.Ours || l.Variant != "" {
			continue
		}
		got := fmt.Sprintf("%d (%d during stalls)", l.Failovers, l.Excused)
		if l.Default {
			s := yes(l.Failovers == 0)
			if s == missed && l.Failovers == l.Excused {
				s = stalled
			}
			vs = append(vs, verdict{l.Product + ": false failovers under load", "0", got, 1, s})
		}
		if k, ok := r.besides(l); ok {
			vs = append(vs, verdict{
				l.Product + ": false failovers under load beside " + k.Product,
				fmt.Sprintf("<= %d", k.Failovers), got, 1, yes(l.Failovers <= k.Failovers),
			})
		}
	}
	return vs
}

// besides returns the keepalived in the same window whose detection time is
// nearest, by its ratio.
func (r *report) besides(l load) (load, bool) {
	var best load
	found := false
	for _, k := range r.Load {
		if k.Ours || k.Window != l.Window || k.Detection <= 0 {
			continue
		}
		if !found || apart(k.Detection, l.Detection) < apart(best.Detection, l.Detection) {
			best, found = k, true
		}
	}
	return best, found
}

func (r *report) judgeIdle() []verdict {
	var vs []verdict
	for _, c := range r.Costs {
		if !c.Ours || c.Voters != 3 || c.Addresses != 1 {
			continue
		}
		what := fmt.Sprintf("idle, 3 voters, 1 address, %s (%s): ", c.Node, c.role())
		vs = append(vs,
			verdict{what + "processor", fmt.Sprintf("<= %.1f %% of one", idleCPU), fmt.Sprintf("%.2f %%", c.CPU), 1, yes(c.CPU <= idleCPU)},
			verdict{what + "memory", fmt.Sprintf("<= %.0f MiB", mib(idleRSS)), fmt.Sprintf("%.1f MiB", mib(c.RSS)), 1, yes(c.RSS <= idleRSS)},
		)
	}
	return vs
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

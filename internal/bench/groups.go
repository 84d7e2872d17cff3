package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/chaos/trial"
	"github.com/raftvip/raftvip/internal/testnet"
)

// An owners row is what happens to many owners, each of an address of its own, when the
// node that has them all loses power.
type owners struct {
	Product string `json:"product"`
	Ours    bool   `json:"ours"`
	Groups  int    `json:"groups"`
	// Detection is the time after which an owner counts as failed.
	Detection time.Duration `json:"detection_ns"`
	// First and Last are when the first and the last address answer elsewhere, from the
	// dead node's last answer.
	First    timing   `json:"first"`
	Last     timing   `json:"last"`
	Problems []string `json:"problems,omitempty"`
}

// groupCounts are how many owners there are in this section.
var groupCounts = []int{16, 64}

// groupSteps are the steps of the section groups: what owners cost that are spread over the
// nodes, beside one alone, and how long it takes until all of them are elsewhere.
func (b *bench) groupSteps() []step {
	one := trial.Setup{V4: 1}
	out := []step{b.costStepOf("groups", b.raftvip(0), one, 1)}
	theirs := trial.Keepalived{Version: 3, Advert: 100 * time.Millisecond}
	if len(b.adverts) > 0 {
		out = append(out, b.costStepOf("groups", theirs, one, 1))
	}
	for _, n := range groupCounts {
		spread := trial.Setup{V4: n, Instances: true, Separate: true, Spread: true}
		out = append(out, b.costStepOf("groups", b.raftvip(0), spread, n))
		if len(b.adverts) > 0 {
			out = append(out, b.costStepOf("groups", theirs, spread, n))
		}
	}
	for _, n := range groupCounts {
		out = append(out, b.ownersStep(b.raftvip(0), defaultHeartbeat, n, b.n))
		if len(b.adverts) > 0 {
			out = append(out, b.ownersStep(theirs, theirs.Detection(), n, b.trialsOf(theirs)))
		}
	}
	return out
}

// ownersStep is a step: power losses of a node that has all owners.
func (b *bench) ownersStep(p trial.Product, detection time.Duration, groups, n int) step {
	per := b.trialTakes(p, detection) + announcing
	return step{
		section: "groups", theirs: !ours(p), name: fmt.Sprintf("%s: power loss of the owner of %d groups", p.Name(), groups),
		takes: 2*opening + per*time.Duration(n),
		run: func(ctx context.Context) error {
			row := owners{Product: p.Name(), Ours: ours(p), Groups: groups, Detection: detection}
			var first, last []sample
			err := b.losses(ctx, p, groups, n, per, func(t takeover, err error, stall time.Duration) {
				if err != nil {
					row.Problems = append(row.Problems, err.Error())
					return
				}
				first, last = append(first, sample{t.first, stall}), append(last, sample{t.last, stall})
			})
			row.First, row.Last = timingOf(first, b.threshold), timingOf(last, b.threshold)
			b.rep.Owners = append(b.rep.Owners, row)
			return err
		},
	}
}

func (b *bench) losses(ctx context.Context, p trial.Product, groups, n int, per time.Duration, add func(takeover, error, time.Duration)) (err error) {
	r, err := trial.Open(ctx, p, trial.Setup{V4: groups, Instances: true, Separate: true, Interval: 2 * time.Millisecond})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b.plan.advance(2 * opening)
	faults, err := trial.Find("power")
	if err != nil {
		return err
	}
	for range n {
		res, err := r.Try(ctx, faults[0], announcing)
		if err != nil {
			return err
		}
		b.rep.addOverlap(p, res)
		b.plan.advance(per)
		if res.Problem != "" {
			add(takeover{}, errors.New(res.Problem), 0)
			continue
		}
		// The node comes back, and takes them all again.
		answers := slices.DeleteFunc(r.Prober.Since(res.Began), func(a testnet.Answer) bool { return a.At > res.Healed })
		anns := r.Capture.Announcements(netip.Addr{})
		t, err := takeoverOf(answers, anns, res.Began, res.During, len(r.VIPs), groups, netip.Addr.Is4)
		stall := r.Control.Within(res.Began, boottime.Now())
		add(t, err, stall)
		b.plan.note("%-24s %d groups: first %s, last %s ms, stall %s ms %s", p.Name(), groups, trial.Millis(t.first), trial.Millis(t.last), trial.Millis(stall), brief(err))
	}
	return nil
}

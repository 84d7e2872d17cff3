package main

import (
	"context"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
)

// An election counts what followed from failures of the owner. The term tells how
// many elections there were: each attempt makes a new one.
type election struct {
	Product  string `json:"product"`
	Failures int    `json:"failures"`
	// First: the term rose by exactly one, and the eligible node with the highest
	// effective priority won.
	First int `json:"best_at_first_attempt"`
	// Best: it won, at whatever attempt.
	Best int `json:"best"`
	// Moves is how often the addresses went to another node, and MovedOnce the
	// failures after which they did once.
	Moves     int `json:"moves"`
	MovedOnce int `json:"moved_once"`
	// Stalled is in how many of those that were not won at the first attempt the
	// machine stood still.
	Stalled int `json:"others_during_stalls"`
}

func (e *election) add(o election) {
	e.Failures += o.Failures
	e.First += o.First
	e.Best += o.Best
	e.Moves += o.Moves
	e.MovedOnce += o.MovedOnce
	e.Stalled += o.Stalled
}

// count adds the trials of a fault that ended in an election.
func (r *report) count(p trial.Product, f trial.Fault, rs []trial.Result) {
	if !ours(p) || f.Planned {
		return
	}
	e := electionOf(p.Name(), rs, r.Threshold)
	if e.Failures == 0 {
		return
	}
	for i := range r.Elections {
		if r.Elections[i].Product == e.Product {
			r.Elections[i].add(e)
			return
		}
	}
	r.Elections = append(r.Elections, e)
}

// electionOf counts a trial in which nobody took over as an election not won, not
// as none.
func electionOf(product string, rs []trial.Result, threshold time.Duration) election {
	e := election{Product: product}
	for _, r := range rs {
		if r.From == "" || r.Best == "" {
			continue // it did not come to the fault
		}
		e.Failures++
		e.Moves += r.Moves
		if r.Moves == 1 {
			e.MovedOnce++
		}
		won := r.During == r.Best
		if won {
			e.Best++
		}
		switch {
		case won && r.Elections == 1:
			e.First++
		case r.FaultStall > threshold:
			e.Stalled++
		}
	}
	return e
}

// moreElections is a step: failures until there were enough, those of other
// sections included.
func (b *bench) moreElections(want, sofar int) step {
	n := max(0, want-sofar)
	p := b.raftvip(0)
	per := b.trialTakes(p, defaultHeartbeat)
	return step{
		section: "elections", name: "kill -9 of the owner until there were enough", takes: opening + per*time.Duration(n),
		run: func(ctx context.Context) error {
			have := 0
			for _, e := range b.rep.Elections {
				have += e.Failures
			}
			if have >= want {
				return nil
			}
			faults, err := trial.Find("kill")
			if err != nil {
				return err
			}
			return b.gapSeries("elections", p, defaultHeartbeat, faults, want-have).run(ctx)
		},
	}
}

package main

import (
	"context"
	"errors"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
	"github.com/raftvip/raftvip/internal/sched"
)

// variants are ways to run the same program, the usual one first.
func (b *bench) variants(h time.Duration) []trial.Product {
	variant := func(name string, env ...string) trial.Product {
		p := b.raftvip(h)
		p.Variant, p.Env = name, env
		return p
	}
	return []trial.Product{
		variant("as shipped"),
		variant("nice -10", sched.EnvNice+"=-10"),
		variant("SCHED_RR 1", sched.EnvRealTime+"=1"),
		variant("locked memory", sched.EnvLock+"=1"),
		variant("GOGC=400", "GOGC=400"),
	}
}

// tunings are steps: all variants in one window under load, then the gap of each
// after kill -9 and of a planned move, under the same load.
func (b *bench) tunings(h time.Duration, n int) ([]step, error) {
	ps := b.variants(h)
	steps := []step{b.windowStep("tuning", "ways to run it, at the same time", ps, b.busyFor)}
	faults, err := trial.Find("kill", "transfer")
	if err != nil {
		return nil, err
	}
	for _, p := range ps {
		s := b.gapSeries("tuning", p, h, faults, n)
		alone := s.run
		s.name += ", busy processors"
		s.run = func(ctx context.Context) error { return b.underLoad(ctx, func() error { return alone(ctx) }) }
		steps = append(steps, s)
	}
	return steps, nil
}

// underLoad keeps the results of what is done under load apart from the others.
func (b *bench) underLoad(ctx context.Context, do func() error) error {
	lab, err := b.emptyLab(ctx)
	if err != nil {
		return err
	}
	stop, err := burn(lab.Client(0))
	if err != nil {
		return errors.Join(err, lab.Close())
	}
	calm := b.rep.apartFrom()
	err = do()
	stop()
	b.rep.Tuning = append(b.rep.Tuning, calm()...)
	return errors.Join(err, lab.Close())
}

// apartFrom returns a function that takes out the gaps, and forgets the elections,
// that were added since: they say nothing of an ordinary machine.
func (r *report) apartFrom() func() []gap {
	gaps, elections := len(r.Gaps), append([]election(nil), r.Elections...)
	return func() []gap {
		added := append([]gap(nil), r.Gaps[gaps:]...)
		r.Gaps, r.Elections = r.Gaps[:gaps], elections
		return added
	}
}

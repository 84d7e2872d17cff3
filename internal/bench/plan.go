package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// A step is a part of the run after which the results so far are saved.
type step struct {
	section, name string
	// takes is about how long it takes on a quiet machine with two processors.
	takes time.Duration
	run   func(ctx context.Context) error
	// theirs: it is about keepalived alone, whose failure is only a finding.
	theirs bool
}

// bound is how long a step about keepalived alone may take.
func (s step) bound() time.Duration { return 3*s.takes + time.Minute }

// A plan is all steps of a run, and how far it has come.
type plan struct {
	steps []step
	out   io.Writer
	now   func() time.Time

	started time.Time
	done    time.Duration // what the steps done so far were to take
	current time.Duration // the same of the current step
	within  time.Duration // how much of that is done
}

func (p *plan) total() time.Duration {
	var sum time.Duration
	for _, s := range p.steps {
		sum += s.takes
	}
	return sum
}

// left is how long the rest will take, if the estimates go on being as wrong as
// they were so far.
func (p *plan) left() time.Duration {
	done := p.done + min(p.within, p.current)
	left := p.total() - done
	const judge = 30 * time.Second // before, chance says more than experience
	if done > judge {
		left = time.Duration(float64(left) * float64(p.now().Sub(p.started)) / float64(done))
	}
	return max(left, 0).Round(time.Second)
}

// note tells that something goes on.
func (p *plan) note(format string, args ...any) {
	fmt.Fprintf(p.out, "[%6s left] %s\n", short(p.left()), fmt.Sprintf(format, args...))
}

// advance says that a part of the current step is done.
func (p *plan) advance(d time.Duration) { p.within += d }

// run does the steps. save is called after each, also after the one that was
// interrupted; failed with what a step could not do. An error is that of the
// context or of save.
func (p *plan) run(ctx context.Context, save func() error, failed func(step, error)) error {
	p.started = p.now()
	for i, s := range p.steps {
		p.current, p.within = s.takes, 0
		p.note("step %d of %d: %s: %s", i+1, len(p.steps), s.section, s.name)
		bounded, cancel := ctx, context.CancelFunc(func() {})
		if s.theirs {
			// A pair that does not settle with so many addresses must not hold up the rest.
			bounded, cancel = context.WithTimeoutCause(ctx, s.bound(), fmt.Errorf("it did not end within %s", short(s.bound())))
		}
		err := s.run(bounded)
		if err != nil && bounded.Err() != nil {
			err = errors.Join(context.Cause(bounded), err)
		}
		cancel()
		if err != nil {
			failed(s, err)
		}
		if e := save(); e != nil {
			return e
		}
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), fmt.Errorf("ended before its time, at step %d of %d", i+1, len(p.steps)))
		}
		p.done += s.takes
		p.current, p.within = 0, 0
	}
	return nil
}

// short prints a time as people say it.
func short(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return fmt.Sprintf("%d min", (d+30*time.Second)/time.Minute)
	default:
		return fmt.Sprintf("%d s", d/time.Second)
	}
}

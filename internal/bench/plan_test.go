package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestPlan: results are saved after every step, a failed one does not end the run,
// and the time left follows from how long the steps took.
func TestPlan(t *testing.T) {
	now := time.Unix(0, 0)
	var out bytes.Buffer
	p := &plan{out: &out, now: func() time.Time { return now }}
	var left []time.Duration
	wrong := errors.New("wrong")
	takesTwice := func(err error) func(context.Context) error {
		return func(context.Context) error {
			now = now.Add(time.Minute)
			p.advance(30 * time.Second)
			left = append(left, p.left())
			now = now.Add(time.Minute)
			return err
		}
	}
	p.steps = []step{
		{section: "a", name: "first", takes: time.Minute, run: takesTwice(nil)},
		{section: "b", name: "second", takes: time.Minute, run: takesTwice(wrong)},
		{section: "c", name: "third", takes: time.Minute, run: takesTwice(nil)},
	}
	saved := 0
	var failed []string
	err := p.run(t.Context(), func() error { saved++; return nil }, func(s step, err error) {
		if !errors.Is(err, wrong) {
			t.Error(err)
		}
		failed = append(failed, s.name)
	})
	if err != nil || saved != 3 || len(failed) != 1 || failed[0] != "second" {
		t.Errorf("%v, saved %d times, failed %v", err, saved, failed)
	}
	// The first estimate is of half a minute, which says nothing yet.
	if want := []time.Duration{150 * time.Second, 180 * time.Second, 60 * time.Second}; len(left) != 3 || left[0] != want[0] || left[1] != want[1] || left[2] != want[2] {
		t.Errorf("left: %v, want %v", left, want)
	}
	if !strings.Contains(out.String(), "step 2 of 3: b: second") {
		t.Errorf("progress:\n%s", &out)
	}
}

// TestPlanBounded: a keepalived that does not settle ends its own step only.
func TestPlanBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plan{out: &bytes.Buffer{}, now: time.Now}
		later := false
		p.steps = []step{
			{section: "theirs", takes: time.Minute, theirs: true, run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
			{section: "ours", takes: time.Minute, run: func(context.Context) error { later = true; return nil }},
		}
		began := time.Now()
		var failed error
		err := p.run(t.Context(), func() error { return nil }, func(s step, err error) { failed = err })
		if err != nil || !later || failed == nil || !strings.Contains(failed.Error(), "did not end within 4 min") || time.Since(began) != 240*time.Second {
			t.Errorf("%v, failed %v, later step done: %v, after %v", err, failed, later, time.Since(began))
		}
	})
}

// TestPlanEnded: what a step has measured before Ctrl-C is saved.
func TestPlanEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := &plan{out: &bytes.Buffer{}, now: time.Now}
	later := false
	p.steps = []step{
		{takes: time.Second, run: func(context.Context) error { cancel(); return ctx.Err() }},
		{takes: time.Second, run: func(context.Context) error { later = true; return nil }},
	}
	saved := 0
	err := p.run(ctx, func() error { saved++; return nil }, func(step, error) {})
	if !errors.Is(err, context.Canceled) || saved != 1 || later {
		t.Errorf("%v, saved %d times, later step done: %v", err, saved, later)
	}
	full := errors.New("disk full")
	p.steps = p.steps[1:]
	if err := p.run(t.Context(), func() error { return full }, func(step, error) {}); !errors.Is(err, full) {
		t.Errorf("results could not be saved: %v", err)
	}
}

package main

import (
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
)

const ms = time.Millisecond

// TestTiming: a trial during which the machine stood still counts in All, and is
// only left out of Clean.
func TestTiming(t *testing.T) {
	got := timingOf([]sample{{5 * ms, 0}, {400 * ms, 30 * ms}, {7 * ms, 10 * ms}, {6 * ms, 2 * ms}}, 10*ms)
	if want := (trial.Summary{N: 4, Median: 6500 * time.Microsecond, Worst: 400 * ms}); got.All != want {
		t.Errorf("all: %+v, want %+v", got.All, want)
	}
	if want := (trial.Summary{N: 3, Median: 6 * ms, Worst: 7 * ms}); got.Clean != want {
		t.Errorf("clean: %+v, want %+v", got.Clean, want)
	}
	if got.Stalled != 1 || len(got.Samples) != 4 {
		t.Errorf("%d stalled of %d samples", got.Stalled, len(got.Samples))
	}
	if none := timingOf(nil, ms); none.All.N != 0 || none.Clean.N != 0 {
		t.Errorf("nothing: %+v", none)
	}
}

func TestRatio(t *testing.T) {
	for _, tt := range []struct {
		theirs, ours time.Duration
		want         float64
	}{{30 * ms, 10 * ms, 3}, {0, 10 * ms, 0}, {10 * ms, 0, 0}} {
		if got := ratio(tt.theirs, tt.ours); got != tt.want {
			t.Errorf("%v by %v: %v, want %v", tt.theirs, tt.ours, got, tt.want)
		}
	}
}

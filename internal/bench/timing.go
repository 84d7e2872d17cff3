package main

import (
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
)

// A sample is one time, and the longest time in which the machine itself stood
// still while it was taken.
type sample struct {
	Value time.Duration `json:"ns"`
	Stall time.Duration `json:"stall_ns"`
}

// A timing is the same thing measured several times. No sample is left out of All;
// Clean is without those during which the machine stood still for longer than a
// threshold.
type timing struct {
	All     trial.Summary `json:"all"`
	Clean   trial.Summary `json:"clean"`
	Stalled int           `json:"stalled"`
	Samples []sample      `json:"samples"`
}

// timingOf sums the samples up.
func timingOf(samples []sample, threshold time.Duration) timing {
	t := timing{Samples: samples}
	var all, clean []time.Duration
	for _, s := range samples {
		all = append(all, s.Value)
		if s.Stall > threshold {
			t.Stalled++
			continue
		}
		clean = append(clean, s.Value)
	}
	t.All, t.Clean = trial.Summarize(all), trial.Summarize(clean)
	return t
}

// ratio is theirs by ours, 0 if there is none.
func ratio(theirs, ours time.Duration) float64 {
	if ours <= 0 || theirs <= 0 {
		return 0
	}
	return float64(theirs) / float64(ours)
}

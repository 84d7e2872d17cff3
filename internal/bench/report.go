package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
)

// report is everything measured; it is what the JSON file holds. Times are in
// nanoseconds.
type report struct {
	Env   trial.Env `json:"environment"`
	Dirty bool      `json:"dirty"`
	Flags []string  `json:"flags"`
	// Complete: all steps were done.
	Complete bool          `json:"complete"`
	Took     time.Duration `json:"took_ns"`
	// Threshold is what the machine may stand still in a clean trial.
	Threshold time.Duration `json:"stall_threshold_ns"`
	Targets   []verdict     `json:"targets"`

	Gaps      []gap            `json:"gaps,omitempty"`
	Elections []election       `json:"elections,omitempty"`
	Addresses []addresses      `json:"addresses,omitempty"`
	Load      []load           `json:"load,omitempty"`
	Costs     []cost           `json:"idle,omitempty"`
	Owners    []owners         `json:"groups,omitempty"`
	Tuning    []gap            `json:"tuning_under_load,omitempty"`
	Startup   timing           `json:"startup_single_node"`
	Sizes     map[string]int64 `json:"binary_bytes,omitempty"`
	// Overlaps are the times in which two raftvip nodes answered that no row has.
	Overlaps []time.Duration `json:"other_overlaps_ns,omitempty"`
	Errors   []string        `json:"errors,omitempty"`
}

// addOverlap keeps the judgement of a trial that has no row of its own.
func (r *report) addOverlap(p trial.Product, res trial.Result) {
	if ours(p) {
		r.Overlaps = append(r.Overlaps, res.Overlap)
	}
}

// overlap is how long two raftvip nodes answered for one address, in all that was
// done: the worst of each row. judged is how many trials and windows were looked at.
func (r *report) overlap() (sum time.Duration, judged int) {
	for _, gs := range [][]gap{r.Gaps, r.Tuning} {
		for _, g := range gs {
			if g.Ours {
				sum += g.Overlap.Worst
				judged += g.Overlap.N
			}
		}
	}
	for _, l := range r.Load {
		if l.Ours {
			sum += l.Overlap
			judged++
		}
	}
	for _, d := range r.Overlaps {
		sum += d
	}
	return sum, judged + len(r.Overlaps)
}

// errOverlap: the promise that matters most was broken.
var errOverlap = errors.New("two raftvip nodes answered for one address")

func (r *report) verdict() error {
	if sum, _ := r.overlap(); sum > 0 {
		return fmt.Errorf("%w, for %v in all", errOverlap, sum)
	}
	return nil
}

// name is what the report's files are called, without the ending.
func (r *report) name() string {
	return r.Env.Started.UTC().Format(time.DateOnly) + "-" + strings.NewReplacer("/", "_", " ", "_").Replace(r.Env.Commit)
}

// save writes the report as it is now to DIR/DATE-COMMIT.json and .md. A file is
// whole at any time.
func (r *report) save(dir string) error {
	r.compare()
	r.compareAddresses()
	r.Targets = r.judge()
	r.Took = time.Since(r.Env.Started)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("save results: %w", err)
	}
	base := filepath.Join(dir, r.name())
	if err := trial.WriteJSON(base+".json.new", r); err != nil {
		return fmt.Errorf("save results: %w", err)
	}
	var b strings.Builder
	r.markdown(&b)
	if err := os.WriteFile(base+".md.new", []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("save results: %w", err)
	}
	return errors.Join(os.Rename(base+".json.new", base+".json"), os.Rename(base+".md.new", base+".md"))
}

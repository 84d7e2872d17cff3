package trial

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// A Series is several trials of each of some faults on one product.
type Series struct {
	Product Product
	Setup   Setup // but for what follows from the fault: PeerNetwork, Spare, many addresses
	Faults  []Fault
	Trials  int
	// Hold is how long a fault lasts at least; HoldThaws where the daemon wakes up
	// again, which should be long after.
	Hold, HoldThaws time.Duration
	// Report is called after each trial.
	Report func(Result)
}

// Run makes the trials. One that could not be made has a Problem in its Result;
// the next begins with a product that has been started anew. An error means that
// no more could be made.
func (s Series) Run(ctx context.Context) ([]Result, error) {
	faults := slices.Clone(s.Faults)
	// Those with the same lab one after another.
	slices.SortStableFunc(faults, func(a, b Fault) int { return cmp.Compare(setupOf(a), setupOf(b)) })
	var out []Result
	var r *Rig
	shut := func() error {
		if r == nil {
			return nil
		}
		err := r.Close()
		r = nil
		return err
	}
	defer func() { _ = shut() }()
	for _, f := range faults {
		for range s.Trials {
			setup := s.Setup
			setup.PeerNetwork, setup.Spare = f.PeerNetwork, f.Spare
			if f.Many && setup.V4+setup.V6 == 0 {
				setup.V4 = manyAddresses
			}
			if r != nil && r.Setup != setup {
				if err := shut(); err != nil {
					return out, err
				}
			}
			if r == nil {
				var err error
				if r, err = Open(ctx, s.Product, setup); err != nil {
					return out, err
				}
			}
			hold := s.Hold
			if f.Thaws {
				hold = s.HoldThaws
			}
			res, err := r.Try(ctx, f, hold)
			if ctx.Err() != nil {
				return out, context.Cause(ctx)
			}
			if err != nil {
				res.problem(err)
			}
			if res.Problem != "" {
				res.Logs = r.Logs(3000)
				if err := shut(); err != nil {
					return append(out, res), err
				}
			}
			out = append(out, res)
			if s.Report != nil {
				s.Report(res)
			}
		}
	}
	return out, shut()
}

func setupOf(f Fault) int {
	switch {
	case f.PeerNetwork:
		return 1
	case f.Many:
		return 2
	case f.Spare:
		return 3
	}
	return 0
}

// A Summary is what several times come to.
type Summary struct {
	N      int           `json:"n"`
	Median time.Duration `json:"median_ns"`
	Worst  time.Duration `json:"worst_ns"`
}

// Summarize returns the summary of the times; the median of an even number is the
// mean of the two in the middle.
func Summarize(ds []time.Duration) Summary {
	if len(ds) == 0 {
		return Summary{}
	}
	ds = slices.Clone(ds)
	slices.Sort(ds)
	n := len(ds)
	return Summary{N: n, Median: (ds[(n-1)/2] + ds[n/2]) / 2, Worst: ds[n-1]}
}

// Of gathers one figure of all results.
func Of(rs []Result, figure func(Result) time.Duration) Summary {
	var ds []time.Duration
	for _, r := range rs {
		ds = append(ds, figure(r))
	}
	return Summarize(ds)
}

// Select returns the results of one fault.
func Select(rs []Result, fault string) []Result {
	var out []Result
	for _, r := range rs {
		if r.Fault == fault {
			out = append(out, r)
		}
	}
	return out
}

// Millis prints a time in milliseconds, as tables have it.
func Millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms != 0 && ms < 100 {
		return fmt.Sprintf("%.1f", ms)
	}
	return fmt.Sprintf("%.0f", ms)
}

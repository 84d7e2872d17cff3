package check

import (
	"time"

	"github.com/raftvip/raftvip/internal/config"
)

// A status is the present state of one tracker, whatever instances it has an
// effect on.
type status struct {
	known  bool
	ok     bool
	detail string
	output string
	since  time.Time
	// stale says why there is no newer result, or is "".
	stale string
}

// links is the state of the interfaces; nil: not known yet.
type links map[string]linkStatus

type linkStatus struct {
	up    bool
	since time.Time
}

// status returns the state of the interface; one that is missing is down.
func (l links) status(name string) status {
	if l == nil {
		return status{}
	}
	st, exists := l[name]
	s := status{known: true, ok: st.up, since: st.since}
	switch {
	case !exists:
		s.detail = "does not exist"
	case st.up:
		s.detail = "is up"
	default:
		s.detail = "is down"
	}
	return s
}

// evaluate calculates the report of an instance from the states of scripts and
// interfaces. A script that has no entry has no result yet.
//
// The interface of the instance counts with weight 0 unless dont_track_primary,
// also where track_interface names it with a weight (observed with keepalived
// 2.2.7): an owner whose interface is down serves nobody.
func evaluate(in *config.Instance, scripts map[string]status, ifs links) InstanceReport {
	r := InstanceReport{
		Name:         in.Name,
		Base:         in.Priority,
		NoPreempt:    in.NoPreempt,
		PreemptDelay: in.PreemptDelay,
	}
	add := func(kind, name string, weight int, reverse bool, s status) {
		r.Terms = append(r.Terms, Term{
			Kind: kind, Name: name, Weight: weight, Reverse: reverse,
			Known: s.known, OK: s.ok, Detail: s.detail, Output: s.output, Since: s.since, Stale: s.stale,
		})
	}
	own := in.Interface != "" && !in.DontTrackPrimary
	for _, t := range in.TrackInterfaces {
		if t.Name == in.Interface && t.Weight == 0 && !t.Reverse {
			own = false // already there
		}
	}
	if own {
		add(KindInterface, in.Interface, 0, false, ifs.status(in.Interface))
	}
	for _, t := range in.TrackInterfaces {
		add(KindInterface, t.Name, t.Weight, t.Reverse, ifs.status(t.Name))
	}
	for _, t := range in.TrackScripts {
		add(KindScript, t.Name, t.Weight, t.Reverse, scripts[t.Name])
	}
	r.finish()
	return r
}

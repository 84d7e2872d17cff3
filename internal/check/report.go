package check

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kinds of trackers.
const (
	KindScript    = "script"
	KindInterface = "interface"
)

// defaultPriority is the priority of a node whose file names no instance.
const defaultPriority = 100

// A Term is the effect of one tracker on one instance.
type Term struct {
	Kind string `json:"kind"` // KindScript or KindInterface
	Name string `json:"name"`
	// Weight is as configured; 0: no effect on the priority, but a fault. Reverse
	// turns the sign of what is applied, and with weight 0 makes OK the fault.
	Weight  int  `json:"weight"`
	Reverse bool `json:"reverse,omitempty"`
	// Known is false before the first result; then OK is false too.
	Known bool `json:"known"`
	// OK: the script succeeds or the interface is up (after rise and fall).
	OK bool `json:"ok"`
	// Applied is what is added to the priority now; nothing before the first result.
	Applied int `json:"applied"`
	// Detail is the last result in words, such as "failed (exited with status 1)".
	Detail string `json:"detail,omitempty"`
	// Output is the end of what the failing script wrote.
	Output string `json:"output,omitempty"`
	// Stale says why the script could not be run of late, though nothing is known to be
	// wrong with what it checks, or is "". Its last result counts.
	Stale string `json:"stale,omitempty"`
	// Since is when OK last changed, by the wall clock: to be shown only.
	Since time.Time `json:"since,omitzero"`
}

// bad says whether the tracker is known to be in its worse state.
func (t Term) bad() bool { return t.Known && t.OK == t.Reverse }

// gain is what the tracker adds to the priority in the state given by ok.
// A positive weight counts while OK, a negative one while not, and reverse turns
// the sign of what is counted (observed with keepalived 2.2.7: weight 6 reverse
// takes 6 off while the script succeeds).
func (t Term) gain(ok bool) int {
	switch {
	case ok != (t.Weight > 0):
		return 0
	case t.Reverse:
		return -t.Weight
	}
	return t.Weight
}

// fault returns the reason for which the tracker puts its instance in fault, or
// "".
func (t Term) fault() string {
	switch {
	case t.Weight != 0 || !t.bad():
		return ""
	case t.Reverse:
		return fmt.Sprintf("%s %s %s (reverse: that is the fault)", t.Kind, t.Name, t.Detail)
	}
	s := fmt.Sprintf("%s %s %s", t.Kind, t.Name, t.Detail)
	if line := lastLine(t.Output); line != "" {
		s += ": " + line
	}
	return s
}

// An InstanceReport is the state of one vrrp_instance on this node.
type InstanceReport struct {
	Name string `json:"name"`
	// Base is the configured priority. Effective is that with all weights, limited
	// to 1..254; a base of 255 is never changed. Total is the sum before the limit.
	Base      int    `json:"base"`
	Effective int    `json:"effective"`
	Total     int    `json:"total"`
	Terms     []Term `json:"terms,omitempty"`
	// Faults says why the instance cannot be owned here; empty if it can.
	Faults []string `json:"faults,omitempty"`
	// Degraded: a weighted tracker is known to be in its worse state.
	Degraded bool `json:"degraded"`
	// Ready: each tracker has given a first result.
	Ready bool `json:"ready"`
	// NoPreempt and PreemptDelay are as configured.
	NoPreempt    bool          `json:"nopreempt"`
	PreemptDelay time.Duration `json:"preempt_delay"` // nanoseconds
}

// finish calculates everything that follows from Base and Terms.
func (r *InstanceReport) finish() {
	r.Total, r.Ready, r.Degraded, r.Faults = r.Base, true, false, nil
	for i := range r.Terms {
		t := &r.Terms[i]
		t.Applied = 0
		if !t.Known {
			r.Ready = false
		}
		if f := t.fault(); f != "" && !slices.Contains(r.Faults, f) {
			r.Faults = append(r.Faults, f)
		}
		if t.Weight != 0 && t.Known && r.Base != 255 {
			t.Applied = t.gain(t.OK)
			r.Total += t.Applied
			r.Degraded = r.Degraded || t.bad()
		}
	}
	r.Effective = r.Base
	if r.Base != 255 {
		r.Effective = min(max(r.Total, 1), 254)
	}
}

// Arithmetic shows how the effective priority comes about: the base, the terms
// that are applied, and in parentheses what is missing. Examples:
//
//	107 = 101 + 6 chk_lb
//	97 = 101 - 4 chk_sshd (chk_lb failing: +6 not counted)
//	254 = 250 + 50 chk_lb (300, limited to 254)
func (r InstanceReport) Arithmetic() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d = %d", r.Effective, r.Base)
	var notes []string
	weighted := false
	for _, t := range r.Terms {
		weighted = weighted || t.Weight != 0
		switch missing := t.gain(!t.OK); {
		case t.Applied > 0:
			fmt.Fprintf(&b, " + %d %s", t.Applied, t.Name)
		case t.Applied < 0:
			fmt.Fprintf(&b, " - %d %s", -t.Applied, t.Name)
		case t.Weight == 0 || r.Base == 255:
		case !t.Known:
			notes = append(notes, t.Name+" has no result yet")
		case missing <= 0:
		case t.OK:
			notes = append(notes, fmt.Sprintf("%s ok (reverse): +%d not counted", t.Name, missing))
		case t.Kind == KindInterface:
			notes = append(notes, fmt.Sprintf("%s down: +%d not counted", t.Name, missing))
		default:
			notes = append(notes, fmt.Sprintf("%s failing: +%d not counted", t.Name, missing))
		}
	}
	switch {
	case r.Base == 255 && weighted:
		notes = append(notes, "255 is the address owner: weights do not count")
	case r.Effective != r.Total:
		notes = append(notes, fmt.Sprintf("%d, limited to %d", r.Total, r.Effective))
	}
	if len(notes) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(notes, "; "))
	}
	return b.String()
}

// Lowered names the weighted trackers that are in their worse state and says what they
// cost, such as "chk_lb failing: 106 to 101"; "" if there is none.
func (r InstanceReport) Lowered() string {
	var bad []string
	full := r.Total
	for _, t := range r.Terms {
		if t.Weight == 0 || !t.bad() || r.Base == 255 {
			continue
		}
		full += t.gain(!t.OK) - t.gain(t.OK)
		word := " failing"
		switch {
		case t.Reverse:
			word = " ok (reverse)"
		case t.Kind == KindInterface:
			word = " down"
		}
		bad = append(bad, t.Name+word)
	}
	if len(bad) == 0 {
		return ""
	}
	return fmt.Sprintf("%s: %d to %d", strings.Join(bad, ", "), min(max(full, 1), 254), r.Effective)
}

// A Report is the state of one ownership group on this node: what the node tells
// the leader. It is never changed after it has been given out.
type Report struct {
	// Ready: all instances are.
	Ready bool `json:"ready"`
	// Faults are the reasons why the node cannot own, of all instances, each once.
	Faults []string `json:"faults,omitempty"`
	// Degraded: some instance is.
	Degraded bool `json:"degraded"`
	// Priority is the effective priority of the group on this node; see [Combine].
	Priority int `json:"priority"`
	// NoPreempt: some instance has nopreempt. PreemptDelay is the longest one.
	NoPreempt    bool             `json:"nopreempt"`
	PreemptDelay time.Duration    `json:"preempt_delay"` // nanoseconds
	Instances    []InstanceReport `json:"instances,omitempty"`
}

// Combine joins the reports of instances that move together.
//
// A fault of one is a fault of all. The priority is that of the instance if
// there is one, else the sum of all: then the loss of any of them counts, and
// when the files of two nodes agree on which node is better, so does the sum.
// (With the minimum the loss of all others would go unseen, with the maximum that
// of the worst.) Sums are above 255; they are compared with sums only, since all
// nodes have the same instances. A node without instances has priority 100.
func Combine(instances []InstanceReport) Report {
	r := Report{Ready: true, Instances: instances}
	for _, in := range instances {
		r.Ready = r.Ready && in.Ready
		r.Degraded = r.Degraded || in.Degraded
		r.Priority += in.Effective
		r.NoPreempt = r.NoPreempt || in.NoPreempt
		r.PreemptDelay = max(r.PreemptDelay, in.PreemptDelay)
		for _, f := range in.Faults {
			if !slices.Contains(r.Faults, f) {
				r.Faults = append(r.Faults, f)
			}
		}
	}
	if len(instances) == 0 {
		r.Priority = defaultPriority
	}
	return r
}

// Lowered is that of the instances; with more than one each is named.
func (r Report) Lowered() string {
	var parts []string
	for _, in := range r.Instances {
		if text := in.Lowered(); text != "" {
			if len(r.Instances) > 1 {
				text = in.Name + ": " + text
			}
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, "; ")
}

// Arithmetic shows how Priority comes about, in one line.
func (r Report) Arithmetic() string {
	switch len(r.Instances) {
	case 0:
		return fmt.Sprintf("%d (default: no instance configured)", r.Priority)
	case 1:
		return r.Instances[0].Arithmetic()
	}
	parts := make([]string, len(r.Instances))
	for i, in := range r.Instances {
		parts[i] = fmt.Sprintf("%s: %s", in.Name, in.Arithmetic())
	}
	return fmt.Sprintf("%d = sum of %s", r.Priority, strings.Join(parts, ", "))
}

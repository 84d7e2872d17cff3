package testnet

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Answer says that a holder answered for an address. Instants are on any one
// clock; a holder is a host name, a hardware address, whatever tells nodes apart.
type Answer struct {
	At     time.Duration
	VIP    netip.Addr
	Holder string

	// Probe is the number of the question that was answered, from 1; zero if
	// that is not known.
	Probe uint64
}

// Hold says that a holder held, or believed it held, an address from From until
// just before To.
type Hold struct {
	VIP      netip.Addr
	Holder   string
	From, To time.Duration
}

// Violation is a time in which two holders had one address. From answers it is
// known to a probe interval; From equals To if they met in one probe only.
type Violation struct {
	VIP      netip.Addr
	Holders  [2]string // sorted
	From, To time.Duration
}

// Duration returns how long the two holders are known to have overlapped.
func (v Violation) Duration() time.Duration { return v.To - v.From }

// String gives the violation on one line.
func (v Violation) String() string {
	return fmt.Sprintf("%v: %s and %s from %v for %v", v.VIP, v.Holders[0], v.Holders[1], v.From, v.Duration())
}

// Report is the judgement of promise P1.
type Report struct {
	Violations []Violation // by time
	// Overlap is the total time with two or more holders of an address, summed
	// over addresses.
	Overlap time.Duration
	// Answers counts answers (of CheckP1) or holds (of CheckHolds) by address and
	// holder. No violation among no answers proves nothing.
	Answers map[netip.Addr]map[string]int
}

// Err returns nil if there is no violation, else an error that lists the first
// few.
func (r Report) Err() error {
	if len(r.Violations) == 0 {
		return nil
	}
	var b strings.Builder
	for i, v := range r.Violations {
		if i == 5 {
			fmt.Fprintf(&b, "\n\tand %d more", len(r.Violations)-i)
			break
		}
		fmt.Fprintf(&b, "\n\t%v", v)
	}
	return fmt.Errorf("P1 violated: two holders of one address %d times, %v in all:%s", len(r.Violations), r.Overlap, b.String())
}

// DefaultWindow is the interval at which a Prober asks unless told otherwise.
const DefaultWindow = time.Millisecond

// CheckP1 judges answers seen from outside: at most one holder answers for an
// address at any instant. The window is the interval at which was asked.
//
// Answers are samples, so this is what is taken to follow from them. Answers of
// one holder no more than 2.5 windows apart are one run: it held the address all
// the time between, one lost probe being allowed for. (To give an address away
// and get it back takes longer.) So are answers to one question and the next,
// however far apart an observer that stalled asked them. Two runs of different holders are a violation if
//
//   - they overlap in time: A answered, B answered, A answered again. The
//     overlap lasts from the first answer of the later to the last of the one
//     that ended first;
//   - or they meet in one probe: both answered the same question. Where the
//     questions are not known (Answer.Probe is zero), answers less than half a
//     window apart are taken to be to the same one.
//
// A clean change, A A A B B B, is none, however short the pause; neither is a
// return, A A B B A A, if A was silent for more than 2.5 windows. The order of
// the answers does not matter. CheckP1 changes nothing it is given.
func CheckP1(answers []Answer, window time.Duration) Report {
	if window <= 0 {
		window = DefaultWindow
	}
	as := slices.Clone(answers)
	slices.SortStableFunc(as, func(a, b Answer) int {
		return cmp.Or(a.VIP.Compare(b.VIP), cmp.Compare(a.Holder, b.Holder), cmp.Compare(a.At, b.At))
	})
	rep := Report{Answers: map[netip.Addr]map[string]int{}}
	var runs []run
	for _, a := range as {
		count(rep.Answers, a.VIP, a.Holder)
		if n := len(runs); n > 0 {
			r := &runs[n-1]
			next := a.Probe != 0 && a.Probe == r.probes[1]+1
			if r.vip == a.VIP && r.holder == a.Holder && (next || a.At-r.to <= window*5/2) {
				r.to = a.At
				r.probes[0], r.probes[1] = min(r.probes[0], a.Probe), max(r.probes[1], a.Probe)
				continue
			}
		}
		runs = append(runs, run{vip: a.VIP, holder: a.Holder, from: a.At, to: a.At, probes: [2]uint64{a.Probe, a.Probe}})
	}
	rep.Violations = clashes(runs, func(a, b run) bool {
		first, last := max(a.from, b.from), min(a.to, b.to)
		if first < last {
			return true
		}
		if a.probes[0] != 0 && b.probes[0] != 0 {
			return max(a.probes[0], b.probes[0]) <= min(a.probes[1], b.probes[1])
		}
		return first-last < window/2
	}, probeTags*window)
	rep.Overlap = total(rep.Violations)
	return rep
}

// CheckHolds judges what nodes say they hold, in a simulation where everything is
// known: intervals of two holders of one address must not overlap. One that
// begins at the instant another ends does not.
func CheckHolds(holds []Hold) Report {
	rep := Report{Answers: map[netip.Addr]map[string]int{}}
	var runs []run
	for _, h := range holds {
		count(rep.Answers, h.VIP, h.Holder)
		if h.From < h.To {
			runs = append(runs, run{vip: h.VIP, holder: h.Holder, from: h.From, to: h.To})
		}
	}
	rep.Violations = clashes(runs, func(a, b run) bool { return max(a.from, b.from) < min(a.to, b.to) }, 0)
	rep.Overlap = total(rep.Violations)
	return rep
}

// run is a time in which one holder had the address.
type run struct {
	vip      netip.Addr
	holder   string
	from, to time.Duration
	probes   [2]uint64 // first and last; zero if not known
}

// clashes returns a violation for each pair of runs of different holders that
// meet, as told by the given function. Runs further apart than slack never do.
func clashes(runs []run, meet func(a, b run) bool, slack time.Duration) []Violation {
	slices.SortFunc(runs, func(a, b run) int {
		return cmp.Or(a.vip.Compare(b.vip), cmp.Compare(a.from, b.from), cmp.Compare(a.holder, b.holder))
	})
	var out []Violation
	var open []run // of this address, not yet over
	for _, r := range runs {
		open = slices.DeleteFunc(open, func(o run) bool { return o.vip != r.vip || o.to+slack < r.from })
		for _, o := range open {
			if o.holder == r.holder || !meet(o, r) {
				continue
			}
			v := Violation{VIP: r.vip, Holders: [2]string{o.holder, r.holder}, From: max(o.from, r.from), To: min(o.to, r.to)}
			if v.To < v.From {
				v.From, v.To = v.To, v.From
			}
			slices.Sort(v.Holders[:])
			out = append(out, v)
		}
		open = append(open, r)
	}
	slices.SortStableFunc(out, func(a, b Violation) int { return cmp.Or(cmp.Compare(a.From, b.From), a.VIP.Compare(b.VIP)) })
	return out
}

// total returns the time covered by the violations, each address counted once
// however many holders it had.
func total(vs []Violation) time.Duration {
	byVIP := map[netip.Addr][]Violation{}
	for _, v := range vs {
		byVIP[v.VIP] = append(byVIP[v.VIP], v)
	}
	var sum time.Duration
	for _, vs := range byVIP {
		end := vs[0].From // sorted by From
		for _, v := range vs {
			if v.To > end {
				sum += v.To - max(v.From, end)
				end = v.To
			}
		}
	}
	return sum
}

func count(m map[netip.Addr]map[string]int, vip netip.Addr, holder string) {
	if m[vip] == nil {
		m[vip] = map[string]int{}
	}
	m[vip][holder]++
}

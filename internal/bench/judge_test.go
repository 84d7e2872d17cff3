package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// of is a timing of values taken while the machine did not stall.
func of(values ...time.Duration) timing {
	var ss []sample
	for _, v := range values {
		ss = append(ss, sample{Value: v})
	}
	return timingOf(ss, 10*ms)
}

func TestWithin(t *testing.T) {
	stall := 20 * ms
	for _, tt := range []struct {
		name string
		t    timing
		want status
	}{
		{"met", of(9*ms, 10*ms, 20*ms), met},
		{"at the limits", of(10*ms, 10*ms, 20*ms), met},
		{"median over", of(9*ms, 11*ms, 11*ms), missed},
		{"worst over", of(9*ms, 9*ms, 21*ms), missed},
		{"worst over in a stall", timingOf([]sample{{9 * ms, 0}, {9 * ms, 0}, {90 * ms, stall}}, 10*ms), stalled},
		{"a stall, and missed without it too", timingOf([]sample{{30 * ms, 0}, {9 * ms, 0}, {90 * ms, stall}}, 10*ms), missed},
		{"nothing but stalls", timingOf([]sample{{30 * ms, stall}}, 10*ms), missed},
	} {
		if v, ok := within(tt.name, tt.t, 10*ms, 20*ms); !ok || v.Status != tt.want || v.N != tt.t.All.N {
			t.Errorf("%s: %+v, %v; want %s", tt.name, v, ok, tt.want)
		}
	}
	if _, ok := within("nothing", timing{}, ms, ms); ok {
		t.Error("what was not measured has a verdict")
	}
}

// TestTargets: the verdicts follow from the data and the numbers of DESIGN.md.
func TestTargets(t *testing.T) {
	r := report{
		Gaps: []gap{
			{Product: "raftvip H=100ms", Ours: true, Title: "kill -9", Detection: 100 * ms, Gap: of(115*ms, 170*ms, 100*ms)},
			{Product: "raftvip H=100ms", Ours: true, Title: "freeze", Detection: 100 * ms, Gap: of(116*ms, 116*ms)},
			{Product: "raftvip", Ours: true, Title: "drain", Planned: true, Detection: 300 * ms, Gap: of(3*ms, 3*ms, 15*ms)},
			{Product: "raftvip", Ours: true, Title: "SIGTERM", Planned: true, Detection: 300 * ms, Gap: of(4*ms, 4*ms)},
			{Product: "raftvip", Ours: true, Title: "failed check", Planned: true, Gap: of(ms), Problems: []string{"nobody took over"}},
			{Product: "keepalived v3 100ms", Title: "kill -9", Gap: of(time.Second)},
		},
		Elections: []election{{Failures: 150, First: 150, Moves: 150, MovedOnce: 150}, {Failures: 50, First: 48, Moves: 51, MovedOnce: 49}},
		Addresses: []addresses{
			{Product: "raftvip", Ours: true, Count: 1000, Family: "IPv4", Kind: "fresh", Last: of(15 * ms)},
			{Product: "raftvip", Ours: true, Count: 1000, Family: "IPv6", Kind: "again", Last: of(51 * ms)},
			{Product: "raftvip", Ours: true, Count: 250, Family: "IPv4", Instances: true, Last: of(51 * ms)},
			{Product: "keepalived", Count: 1000, Family: "IPv4", Last: of(time.Second)},
		},
		Load: []load{
			{Window: "a", Product: "raftvip H=300ms", Ours: true, Default: true, Detection: 300 * ms, Failovers: 1, Excused: 1},
			{Window: "a", Product: "keepalived near", Detection: 289 * ms, Failovers: 1},
			{Window: "a", Product: "keepalived far", Detection: 3600 * ms},
			{Window: "b", Product: "raftvip H=30ms", Ours: true, Detection: 30 * ms, Failovers: 2},
			{Window: "b", Product: "keepalived 10ms", Detection: 36 * ms, Failovers: 1},
			{Window: "c", Product: "raftvip tuned", Ours: true, Variant: "nice", Detection: 30 * ms, Failovers: 9},
		},
		Costs: []cost{
			{Product: "raftvip", Ours: true, Voters: 3, Addresses: 1, Node: "n1", Owner: true, CPU: 0.5, RSS: 25 << 20},
			{Product: "raftvip", Ours: true, Voters: 3, Addresses: 1, Node: "n2", CPU: 0.51, RSS: 25<<20 + 1},
			{Product: "raftvip", Ours: true, Voters: 5, Addresses: 1, CPU: 9},
			{Product: "keepalived", Voters: 2, Addresses: 1, CPU: 9},
		},
	}
	want := map[string]status{
		"raftvip H=100ms, kill -9: gap":                                      met,
		"raftvip H=100ms, freeze: gap":                                       missed,
		"raftvip, drain: gap":                                                met,
		"raftvip, SIGTERM: gap":                                              missed,
		"raftvip, failed check: gap":                                         missed,
		"elections won by the best node at the first attempt":                met,
		"address moves per failure":                                          missed,
		"1000 IPv4 addresses, fresh: last":                                   met,
		"1000 IPv6 addresses, again: last":                                   missed,
		"raftvip H=300ms: false failovers under load":                        stalled,
		"raftvip H=300ms: false failovers under load beside keepalived near": met,
		"raftvip H=30ms: false failovers under load beside keepalived 10ms":  missed,
		"idle, 3 voters, 1 address, n1 (owner): processor":                   met,
		"idle, 3 voters, 1 address, n1 (owner): memory":                      met,
		"idle, 3 voters, 1 address, n2 (standby): processor":                 missed,
		"idle, 3 voters, 1 address, n2 (standby): memory":                    missed,
		// Windows count as looked at; no row above has an overlap.
		"time with two answering nodes, any fault": met,
	}
	got := map[string]status{}
	for _, v := range r.judge() {
		got[v.What] = v.Status
		if want[v.What] != v.Status {
			t.Errorf("%s: %s (%s, got %s), want %q", v.What, v.Status, v.Target, v.Got, want[v.What])
		}
	}
	for what := range want {
		if _, ok := got[what]; !ok {
			t.Errorf("%s: no verdict", what)
		}
	}
	if vs := (&report{}).judge(); len(vs) != 0 {
		t.Errorf("an empty report has verdicts: %+v", vs)
	}
}

// TestTooFew: a perfect share of too few elections is not the target.
func TestTooFew(t *testing.T) {
	r := report{Elections: []election{{Failures: 199, First: 199, Moves: 199, MovedOnce: 199}}}
	vs := r.judge()
	if len(vs) != 2 || vs[0].Status != missed || vs[1].Status != met {
		t.Errorf("%+v", vs)
	}
}

// TestOverlap: wherever two raftvip nodes answered, the run fails; keepalived's
// are findings.
func TestOverlap(t *testing.T) {
	two := trialSummary(1, ms)
	for _, tt := range []struct {
		name string
		r    report
		bad  bool
	}{
		{"none", report{Gaps: []gap{{Ours: true, Overlap: trialSummary(20, 0)}}}, false},
		{"keepalived", report{Gaps: []gap{{Overlap: two}}, Load: []load{{Overlap: ms}}}, false},
		{"a gap", report{Gaps: []gap{{Ours: true, Overlap: two}}}, true},
		{"tuning", report{Tuning: []gap{{Ours: true, Overlap: two}}}, true},
		{"load", report{Load: []load{{Ours: true, Overlap: ms}}}, true},
		{"addresses", report{Overlaps: []time.Duration{0, ms}}, true},
	} {
		err := tt.r.verdict()
		if errors.Is(err, errOverlap) != tt.bad {
			t.Errorf("%s: %v", tt.name, err)
		}
		for _, v := range tt.r.judge() {
			if strings.HasPrefix(v.What, "time with two") && (v.Status == missed) != tt.bad {
				t.Errorf("%s: %+v", tt.name, v)
			}
		}
	}
}

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
)

func TestParse(t *testing.T) {
	ok := options{n: 1, heartbeats: "1s,50ms", adverts: "v2/1s,v3/10ms", faults: "kill,transfer"}
	b, err := ok.parse()
	if err != nil || len(b.heartbeat) != 2 || len(b.advert) != 2 || b.advert[1] != (trial.Keepalived{Version: 3, Advert: 10 * time.Millisecond}) {
		t.Errorf("%+v, %v", b, err)
	}
	for _, bad := range []options{
		{n: 0}, {n: 1, heartbeats: "fast"}, {n: 1, adverts: "v4/1s"}, {n: 1, adverts: "1s"}, {n: 1, faults: "meteor"},
	} {
		if _, err := bad.parse(); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

// TestReport: who is compared with whom, and that a trial with a problem counts as
// such and not as a time.
func TestReport(t *testing.T) {
	ms := time.Millisecond
	kill, _ := trial.Find("kill", "term")
	results := func(detection time.Duration, overlap time.Duration, gaps ...time.Duration) []trial.Result {
		var rs []trial.Result
		for _, g := range gaps {
			r := trial.Result{Detection: detection, Gap: g, FaultOverlap: overlap}
			if g < 0 {
				r.Problem = "nobody took over"
			}
			rs = append(rs, r)
		}
		return rs
	}
	r := report{faults: kill}
	for _, x := range []struct {
		p trial.Product
		f int
		r []trial.Result
	}{
		{trial.Raftvip{Heartbeat: 300 * ms}, 0, results(300*ms, 0, 310*ms, 290*ms, -1)},
		{trial.Raftvip{Heartbeat: 300 * ms}, 1, results(300*ms, 0, 2*ms)},
		{trial.Keepalived{Version: 3, Advert: 100 * ms}, 0, results(360*ms, 700*ms, 0)},
		{trial.Keepalived{Version: 3, Advert: 100 * ms}, 1, results(360*ms, 0, 60*ms)},
		{trial.Keepalived{Version: 2, Advert: time.Second}, 1, results(3600*ms, 0, 600*ms)},
	} {
		r.Gaps = append(r.Gaps, gapOf(x.p, kill[x.f], x.r))
	}
	r.products = []string{"raftvip H=300ms", "keepalived v3 100ms", "keepalived v2 1s"}
	r.compare()
	if g := r.Gaps[0]; g.Gap != (trial.Summary{N: 2, Median: 300 * ms, Worst: 310 * ms}) || g.Problems != 1 || g.Times[0] != 1 {
		t.Errorf("summary %+v", g)
	}
	want := []ratio{
		{"kill", "raftvip H=300ms", "keepalived v3 100ms", 0},
		{"term", "raftvip H=300ms", "keepalived v3 100ms", 30},
	}
	if len(r.Ratios) != 2 || r.Ratios[0] != want[0] || r.Ratios[1] != want[1] {
		t.Errorf("ratios %+v, want %+v", r.Ratios, want)
	}
	var b strings.Builder
	r.print(&b)
	for _, s := range []string{"300 / 310 (1 failed)", "0 / 0 two 700", "30.00"} {
		if !strings.Contains(b.String(), s) {
			t.Errorf("%q is not in\n%s", s, b.String())
		}
	}
}

package main

import (
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
)

func trialSummary(n int, worst time.Duration) trial.Summary {
	return trial.Summary{N: n, Median: worst, Worst: worst}
}

// find returns one fault by its name.
func find(t *testing.T, name string) trial.Fault {
	t.Helper()
	fs, err := trial.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return fs[0]
}

func TestGapOf(t *testing.T) {
	p := trial.Raftvip{Heartbeat: 300 * ms}
	rs := []trial.Result{
		{Gap: 310 * ms, Detection: 300 * ms}, {Gap: 290 * ms, Detection: 300 * ms, FaultStall: 50 * ms, Stall: 90 * ms},
		{Gap: 1, Detection: 300 * ms, Problem: "nobody took over", Overlap: 3 * ms},
	}
	g := gapOf(p, find(t, "kill"), rs, 10*ms)
	if g.Gap.All != (trial.Summary{N: 2, Median: 300 * ms, Worst: 310 * ms}) || g.Gap.Stalled != 1 || len(g.Problems) != 1 || g.Hidden || !g.Ours || g.Planned {
		t.Errorf("%+v", g)
	}
	if g.Overlap.Worst != 3*ms || g.Overlap.N != 3 {
		t.Errorf("the overlap of a trial with a problem is lost: %+v", g.Overlap)
	}
	two := []trial.Result{{FaultOverlap: 700 * ms, Overlap: 700 * ms}}
	k := trial.Keepalived{Version: 3, Advert: 100 * ms}
	if g := gapOf(k, find(t, "kill"), two, ms); !g.Hidden || g.Ours {
		t.Errorf("two answered the client, so its gap is hidden: %+v", g)
	}
	if g := gapOf(k, find(t, "power"), two, ms); g.Hidden {
		t.Error("after a power loss the client reaches one node only, and its gap is seen")
	}
}

// TestCompare: who is compared with whom.
func TestCompare(t *testing.T) {
	our := func(h time.Duration, fault string, planned bool, d time.Duration) gap {
		return gap{Product: "raftvip " + h.String(), Ours: true, Detection: h, Fault: fault, Planned: planned, Gap: of(d)}
	}
	their := func(detection time.Duration, fault, title string, planned, hidden bool, d time.Duration) gap {
		return gap{Product: "keepalived " + detection.String(), Detection: detection, Fault: fault, Title: title, Planned: planned, Hidden: hidden, Gap: of(d)}
	}
	r := report{Gaps: []gap{
		our(300*ms, "power", false, 300*ms), our(1000*ms, "power", false, 1000*ms), our(300*ms, "kill", false, 30*ms),
		our(300*ms, "term", true, 2*ms), our(300*ms, "drain", true, 3*ms),
		their(360*ms, "power", "power loss", false, false, 330*ms), their(3600*ms, "power", "power loss", false, false, 3000*ms),
		their(360*ms, "kill", "kill -9", false, true, 0),
		their(360*ms, "term", "SIGTERM", true, false, 60*ms), their(36*ms, "term", "SIGTERM", true, false, 12*ms),
	}}
	r.compare()
	for i, want := range []struct {
		against string
		ratio   float64
	}{
		{"keepalived 360ms", 1.1},
		{"", 0}, // none within a factor of two
		{"keepalived 360ms", 0},
		{"keepalived 360ms", 30},
		{"keepalived 360ms, SIGTERM", 20}, // it has no drain
	} {
		if g := r.Gaps[i]; g.Against != want.against || g.Ratio < want.ratio-0.01 || g.Ratio > want.ratio+0.01 {
			t.Errorf("%s, %s: %v against %q, want %v against %q", g.Product, g.Fault, g.Ratio, g.Against, want.ratio, want.against)
		}
	}
}

func TestElectionOf(t *testing.T) {
	first := trial.Result{From: "n1", Best: "n2", During: "n2", Elections: 1, Moves: 1}
	change := func(f func(*trial.Result)) trial.Result { r := first; f(&r); return r }
	got := electionOf("raftvip", []trial.Result{
		first, first,
		change(func(r *trial.Result) { r.Elections = 2 }),
		change(func(r *trial.Result) { r.Elections, r.During, r.Moves, r.FaultStall = 2, "n2", 2, 50*ms }),
		change(func(r *trial.Result) { r.During = "n3" }),
		change(func(r *trial.Result) { r.During, r.Elections, r.Moves, r.Problem = "", 0, 0, "nobody took over" }),
		{Problem: "did not settle"},
	}, 10*ms)
	want := election{Product: "raftvip", Failures: 6, First: 2, Best: 4, Moves: 6, MovedOnce: 4, Stalled: 1}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	r := report{Threshold: 10 * ms}
	p := trial.Raftvip{Heartbeat: 50 * ms}
	r.count(p, find(t, "kill"), []trial.Result{first})
	r.count(p, find(t, "power"), []trial.Result{first})
	r.count(p, find(t, "drain"), []trial.Result{first}) // no election, a hand-over
	r.count(trial.Keepalived{}, find(t, "kill"), []trial.Result{first})
	if len(r.Elections) != 1 || r.Elections[0].Failures != 2 {
		t.Errorf("%+v", r.Elections)
	}
}

// TestApartFrom: what is done under load does not count among the others.
func TestApartFrom(t *testing.T) {
	r := report{Gaps: []gap{{Product: "a"}}, Elections: []election{{Product: "a", Failures: 1}}}
	apart := r.apartFrom()
	r.Gaps = append(r.Gaps, gap{Product: "b"})
	r.Elections[0].Failures = 2
	r.Elections = append(r.Elections, election{Product: "b"})
	if got := apart(); len(got) != 1 || got[0].Product != "b" {
		t.Errorf("%+v", got)
	}
	if len(r.Gaps) != 1 || len(r.Elections) != 1 || r.Elections[0].Failures != 1 {
		t.Errorf("%+v, %+v", r.Gaps, r.Elections)
	}
}

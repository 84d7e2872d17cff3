package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
)

// TestVerdict: any overlap, stray announcement or problem of raftvip fails the run;
// what keepalived does is a finding.
func TestVerdict(t *testing.T) {
	good := trial.Result{Fault: "kill", Gap: 300 * time.Millisecond}
	for _, tt := range []struct {
		name      string
		mine      trial.Result
		err       error
		theirs    trial.Result
		complains string
	}{
		{"all well", good, nil, good, ""},
		{"keepalived overlaps", good, nil, trial.Result{Fault: "kill", Overlap: time.Second, Violations: []string{"two"}}, ""},
		{"overlap", trial.Result{Fault: "kill", Overlap: 1, Violations: []string{"n1 and n2"}}, nil, good, "bpf-tcx: kill: n1 and n2"},
		{"two answers to one probe", trial.Result{Fault: "kill", Violations: []string{"n1 and n2"}}, nil, good, "n1 and n2"},
		{"stray", trial.Result{Fault: "freeze", Strays: []string{"late"}}, nil, good, "bpf-tcx: freeze: late"},
		{"no takeover", trial.Result{Fault: "kill", Problem: "nobody"}, nil, good, "nobody"},
		{"cut short", good, errors.New("no daemon"), good, "no daemon"},
	} {
		m := table{faults: must(trial.Find("kill", "freeze"))}
		m.add(trial.Raftvip{Guard: "bpf-tcx"}, []trial.Result{tt.mine}, tt.err)
		m.add(trial.Keepalived{}, []trial.Result{tt.theirs}, nil)
		err := m.verdict()
		switch {
		case tt.complains == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.complains != "" && (err == nil || !strings.Contains(err.Error(), tt.complains)):
			t.Errorf("%s: verdict %v, want %q", tt.name, err, tt.complains)
		}
		var b strings.Builder
		m.print(&b)
		if !strings.Contains(b.String(), "bpf-tcx") {
			t.Errorf("%s: table without the guard:\n%s", tt.name, b.String())
		}
	}
}

func TestMatrixIsKnown(t *testing.T) { must(trial.Find(strings.Split(matrix, ",")...)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
)

func TestGrid(t *testing.T) {
	var b strings.Builder
	g := table("what", "n")
	g.write(&b)
	if b.Len() != 0 {
		t.Errorf("a table without rows:\n%s", &b)
	}
	g.add("a|b", "10")
	g.add("größer", "")
	g.write(&b)
	const want = `| what   | n   |
| ------ | --- |
| a\|b   | 10  |
| größer |     |

`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", &b, want)
	}
}

// TestMarkdown: every kind of row is there, with its target beside it, and the
// files can be read again.
func TestMarkdown(t *testing.T) {
	r := report{
		Env: trial.Env{
			Commit: "v1-3-gabc-dirty", Kernel: "6.18", CPUs: 2, Go: "go1.26", Keepalived: "Keepalived v2.2.7",
			Load: 0.25, Started: time.Date(2026, 3, 4, 23, 0, 0, 0, time.UTC),
		},
		Dirty: true, Flags: []string{"-n", "2"}, Threshold: 10 * ms,
		Gaps: []gap{
			{Product: "raftvip H=300ms", Ours: true, Fault: "kill", Title: "kill -9", Detection: 300 * ms, Gap: of(310*ms, 290*ms), Problems: []string{"x"}},
			{Product: "keepalived v3 100ms", Fault: "kill", Title: "kill -9", Detection: 361 * ms, Gap: of(0), Overlap: trialSummary(1, 700*ms), Hidden: true},
			{Product: "raftvip", Ours: true, Fault: "drain", Title: "drain", Planned: true, Detection: 300 * ms, Gap: of(2 * ms)},
			{Product: "keepalived v3 100ms", Fault: "term", Title: "SIGTERM", Planned: true, Detection: 361 * ms, Gap: of(60 * ms)},
		},
		Elections: []election{{Product: "raftvip H=300ms", Failures: 4, First: 3, Best: 4, Moves: 4, MovedOnce: 4}},
		Addresses: []addresses{
			{Product: "raftvip", Ours: true, Count: 1000, Family: "IPv6", Kind: "again", First: of(ms), Median: of(5 * ms), Last: of(9 * ms), Spread: of(8 * ms)},
			{Product: "keepalived v3 1s", Count: 1000, Family: "IPv6", Kind: "again", Spread: of(80 * ms)},
		},
		Load: []load{
			{Window: "w", Product: "raftvip H=50ms", Ours: true, Detection: 50 * ms, For: time.Minute, Failovers: 2, Excused: 1, Terms: 4, Silences: 3, Silent: 70 * ms},
			{Window: "w", Product: "keepalived v3 10ms", Detection: 36 * ms, For: time.Minute},
		},
		Tuning:  []gap{{Product: "raftvip nice -10", Ours: true, Title: "kill -9", Gap: of(33 * ms)}},
		Costs:   []cost{{Product: "raftvip", Ours: true, Voters: 3, Addresses: 1, Node: "n1", Owner: true, CPU: 0.31, RSS: 20 << 20, Sent: 44.5}},
		Startup: of(250 * ms), Sizes: map[string]int64{"raftvip": 19 << 20},
		Errors: []string{"idle: went\nwrong"},
	}
	dir := t.TempDir()
	if err := r.save(dir); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(dir, "2026-03-04-v1-3-gabc-dirty")
	text, err := os.ReadFile(base + ".md")
	if err != nil {
		t.Fatal(err)
	}
	// Runs of spaces only align columns.
	got := strings.Join(strings.Fields(string(text)), " ")
	for _, want := range []string{
		"# Benchmark of v1-3-gabc-dirty, 2026-03-04", "**Not complete**", "**The tree had changes**",
		"Linux 6.18, 2 CPUs, load average at the start 0.25, go1.26, Keepalived v2.2.7.", "Flags: `-n 2`",
		"| kill -9 | raftvip H=300ms | 300 | 2 (1 failed) | 300 / 310 | 300 / 310 | 0 | 1.00 / 1.03 | - | - | <= 335 / 470 ms | missed |",
		"| kill -9 | keepalived v3 100ms | 361 | 1 | 0 / 0 (hidden) | 0 / 0 | 0 | - | 700 / 700 | - | - | - |",
		"| drain | raftvip | 300 | 1 | 2.0 / 2.0 | 2.0 / 2.0 | 0 | - | - | 30.00 (keepalived v3 100ms, SIGTERM) | <= 3.0 / 15.0 ms | met |",
		"| all | 4 | 3 (75.0 %) | 4 | 1.00 | 0 |",
		"| 1000 IPv6 | raftvip | again | 1 | 0 | 1.0 / 1.0 | 5.0 / 5.0 | 9.0 / 9.0 | 9.0 / 9.0 | 8.0 / 8.0 | 10.00 | <= 50.0 ms | met |",
		"| w | raftvip H=50ms | 50.0 | 60 | 2 | 1 | 4 | 3 | 70.0 |", "| | keepalived v3 10ms | 36.0 | 60 | 0 |",
		"| raftvip nice -10 | kill -9 | 1 | 33.0 / 33.0 |",
		"| raftvip | 3 | 1 | 1 | n1 (owner) | 0.31 | 20.0 | 44.5 |",
		"| program raftvip | 1 | 19.0 MiB |", "250 / 250 ms in 1 clean", "- idle: went wrong",
		"| raftvip H=50ms: false failovers under load beside keepalived v3 10ms | <= 0 | 2 (1 during stalls) | 1 | missed |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	var doc report
	data, err := os.ReadFile(base + ".json")
	if err == nil {
		err = json.Unmarshal(data, &doc)
	}
	if err != nil || len(doc.Gaps) != 4 || len(doc.Targets) == 0 || doc.Complete || !doc.Dirty || doc.Gaps[0].Gap.Samples[0].Value != 310*ms {
		t.Errorf("%v: %+v", err, doc)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 2 {
		t.Errorf("files: %v, %v", left, err)
	}
}

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
	"github.com/raftvip/raftvip/internal/testnet"
)

// TestCommand runs the whole command with one fault: raftvip passes, keepalived is
// caught, the results are written and nothing stays behind.
func TestCommand(t *testing.T) {
	testnet.Require(t)
	file := filepath.Join(t.TempDir(), "chaos.json")
	o := options{guards: "bpf-tcx", faults: "freeze", trials: 1, frozen: time.Second, keepalived: true, json: file, commit: "test"}
	if err := run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Series []struct {
			Product string
			Error   string
			Results []trial.Result
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	want := 1
	if _, err := exec.LookPath("keepalived"); err == nil {
		want = 2
	}
	if len(doc.Series) != want {
		t.Fatalf("%d series, want %d", len(doc.Series), want)
	}
	for _, s := range doc.Series {
		if s.Error != "" || len(s.Results) != 1 {
			t.Fatalf("%s: %d results, error %q", s.Product, len(s.Results), s.Error)
		}
		r := s.Results[0]
		t.Logf("%s: overlap %v, gap %v", s.Product, r.Overlap, r.Gap)
		if twice := r.Overlap > 0; twice != (s.Product == "keepalived") {
			t.Errorf("%s: overlap %v", s.Product, r.Overlap)
		}
		if r.Answers == 0 {
			t.Errorf("%s: judged by nothing", s.Product)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		if f := strings.Fields(line); len(f) > 1 && strings.Contains(f[1], trial.BPFFSName()) {
			t.Errorf("still mounted: %s", f[1])
		}
	}
}

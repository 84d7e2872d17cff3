package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/raftvip/raftvip/internal/chaos/trial"
	"github.com/raftvip/raftvip/internal/testnet"
)

// TestCommand runs the whole command with one trial: results are written, and
// nothing stays behind.
func TestCommand(t *testing.T) {
	testnet.Require(t)
	dir := t.TempDir()
	o := parse(t, "-sections", "gaps", "-n", "1", "-heartbeats", "300ms", "-adverts", "", "-commit", "test", "-out", dir)
	if err := run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*-test.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	if !r.Complete || len(r.Gaps) != len(failures) || len(r.Elections) != 1 || r.Elections[0].Failures != len(failures) || len(r.Errors) != 0 {
		t.Errorf("%s", data)
	}
	for _, g := range r.Gaps {
		if g.Gap.All.N != 1 || g.Gap.All.Worst <= 0 || g.Overlap.Worst != 0 || len(g.Problems) != 0 {
			t.Errorf("%s: %+v", g.Fault, g)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), trial.BPFFSName()) {
		t.Errorf("still mounted:\n%s", mounts)
	}
}

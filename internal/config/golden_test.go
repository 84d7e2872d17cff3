package config_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/raftvip/raftvip/internal/config"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

func list(diags []config.Diagnostic) string {
	var b strings.Builder
	for _, d := range diags {
		b.WriteString(d.String() + "\n")
	}
	return b.String()
}

// TestDiagnostics compares the diagnostics of each testdata/*.conf with the
// .want file beside it.
func TestDiagnostics(t *testing.T) {
	names, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(names) == 0 {
		t.Fatal("no test data", err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			cfg, diags := config.LoadBytes(filepath.Base(name), data, machine())
			if (cfg == nil) != config.HasErrors(diags) {
				t.Errorf("configuration %v with errors %v", cfg, config.HasErrors(diags))
			}
			got := list(diags)
			want := strings.TrimSuffix(name, ".conf") + ".want"
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			wanted, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(wanted) {
				t.Errorf("got:\n%s\nwant:\n%s", got, wanted)
			}
		})
	}
}

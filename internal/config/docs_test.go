package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/raftvip/raftvip/internal/config"
)

// The reference file loads without a word, and has every keyword that has an
// effect.
func TestReferenceFile(t *testing.T) {
	const name = "../../deploy/examples/raftvip.conf"
	cfg, diags := config.Load(name, onDisk())
	if len(diags) > 0 {
		t.Fatal(list(diags))
	}
	if len(cfg.Instances) != 3 || len(cfg.Raft.Peers) != 3 {
		t.Errorf("%+v", cfg)
	}
	// It says that it shows the defaults.
	want := config.Default("lb1.example.net")
	if cfg.Global.GARP != want.Global.GARP || cfg.Instances[0].GARP != want.Global.GARP || cfg.Global.VRRPVersion != want.Global.VRRPVersion ||
		cfg.Raft.HeartbeatTimeout != want.Raft.HeartbeatTimeout || cfg.Raft.Listen != want.Raft.Listen || cfg.Raft.DataDir != want.Raft.DataDir ||
		cfg.Raft.Socket != want.Raft.Socket || cfg.Raft.Guard != want.Raft.Guard {
		t.Errorf("defaults differ: %+v", cfg)
	}
	hasKeywords(t, name, func(k string) string { return `(?m)^[ \t#]*` + k + `\b` })
}

// The manual has every keyword that has an effect.
func TestManualIsComplete(t *testing.T) {
	hasKeywords(t, "../../docs/configuration.md", func(k string) string { return "`" + k + `\b` })
}

func hasKeywords(t *testing.T, name string, pattern func(keyword string) string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, all := range []map[string][]string{config.Supported(), config.SupportedVRRP()} {
		for block, keywords := range all {
			for _, k := range keywords {
				if block == "raft" && k == "tls" || k == "auth_hmac" {
					continue // an error in this version
				}
				if !regexp.MustCompile(pattern(k)).Match(text) {
					t.Errorf("%s lacks %s of %s", name, k, block)
				}
			}
		}
	}
}

// A keyword listed as supported is read, and its absence of a value reported.
func TestSupportedKeywordsAreRead(t *testing.T) {
	for block, keywords := range config.Supported() {
		for _, k := range keywords {
			text := k
			if block != "top level" {
				text = fmt.Sprintf("%s x {\n%s\n}", block, k)
			}
			_, diags := config.LoadBytes("x", []byte(text), machine())
			if out := list(diags); strings.Contains(out, "unknown") || strings.Contains(out, k+": accepted") {
				t.Errorf("%s in %s: %s", k, block, out)
			}
		}
	}
}

// The same with those that only VRRP uses, in a file where it is on.
func TestSupportedVRRPKeywordsAreRead(t *testing.T) {
	for block, keywords := range config.SupportedVRRP() {
		for _, k := range keywords {
			in := "vrrp_instance x {\nvrrp hybrid\n%s\n}\n"
			text := fmt.Sprintf(in, k)
			if block != "vrrp_instance" {
				text = fmt.Sprintf(in, "") + fmt.Sprintf("%s {\n%s\n}", block, k)
			}
			_, diags := config.LoadBytes("x", []byte(text), machine())
			if out := list(diags); strings.Contains(out, "unknown") || strings.Contains(out, k+": accepted") {
				t.Errorf("%s in %s: %s", k, block, out)
			}
		}
	}
}

var fence = regexp.MustCompile("(?ms)^```conf\n(.*?)^```")

// Every ```conf example in the documentation loads without errors.
func TestDocumentationExamples(t *testing.T) {
	names, _ := filepath.Glob("../../docs/*.md")
	found := 0
	for _, name := range append(names, "../../README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // README.md need not exist
		}
		for _, m := range fence.FindAllSubmatchIndex(text, -1) {
			found++
			line := strings.Count(string(text[:m[0]]), "\n") + 1
			if _, diags := config.LoadBytes(filepath.Base(name), text[m[2]:m[3]], machine()); config.HasErrors(diags) {
				t.Errorf("%s: example at line %d:\n%s", name, line, list(diags))
			}
		}
	}
	if found < 3 {
		t.Errorf("only %d examples found", found)
	}
}

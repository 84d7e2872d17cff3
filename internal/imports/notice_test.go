package imports

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The licences that ask for more than their text: whoever passes the program on has to
// say where the source is (MPL-2.0, 3.2), or what a NOTICE says (Apache-2.0, 4 d).
func TestNoticeNamesLibraries(t *testing.T) {
	root := filepath.Join("..", "..")
	// Read, so that a cached result ends with a change of these.
	for _, name := range []string{"go.mod", "go.sum"} {
		if _, err := os.ReadFile(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	notice, err := os.ReadFile(filepath.Join(root, "NOTICE"))
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(string(notice))
	cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}", "./cmd/raftvip")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(lines)
	named := 0
	for _, line := range slices.Compact(lines) {
		path, dir, ok := strings.Cut(line, " ")
		if !ok {
			continue
		}
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		licensed := false
		for _, f := range files {
			name := strings.ToUpper(f.Name())
			if !strings.HasPrefix(name, "LICEN") && !strings.HasPrefix(name, "COPYING") && !strings.HasPrefix(name, "NOTICE") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				t.Fatal(err)
			}
			licensed = true
			says := strings.HasPrefix(name, "NOTICE") || strings.Contains(string(text), "Mozilla Public License")
			if strings.Contains(string(text), "GNU GENERAL PUBLIC LICENSE") {
				t.Errorf("%s is under the GPL, %s", path, f.Name())
			}
			if says {
				named++
				if !slices.Contains(words, path) {
					t.Errorf("NOTICE does not name %s, see its %s", path, f.Name())
				}
			}
		}
		if !licensed {
			t.Errorf("%s has no licence", path)
		}
	}
	if named == 0 {
		t.Error("no library was found that has to be named")
	}
}

package imports

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/raftvip/raftvip/"

// A pkg is a package of this module. All its files count, whatever system they
// are for.
type pkg struct {
	path  string   // without the module's
	uses  []string // what it imports directly
	deps  []string // all packages that it is built of, and what those import of others
	tests []string // what its tests import directly
}

// list reads the files itself: a result that came from "go list" would be cached
// for ever by "go test", which cannot see what another process reads.
func list(t *testing.T) []pkg {
	t.Helper()
	code, tests := make(map[string][]string), make(map[string][]string)
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && file != root) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		of, path := code, filepath.ToSlash(dir)
		if strings.HasSuffix(file, "_test.go") {
			of = tests
		}
		of[path] = append(of[path], importsOf(t, parsed.Imports)...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for _, path := range slices.Sorted(maps.Keys(union(code, tests))) {
		deps := make(map[string]bool)
		for todo := slices.Clone(code[path]); len(todo) > 0; {
			next := todo[0]
			todo = todo[1:]
			if !deps[next] {
				deps[next] = true
				todo = append(todo, code[strings.TrimPrefix(next, module)]...)
			}
		}
		all = append(all, pkg{path: path, uses: code[path], deps: slices.Sorted(maps.Keys(deps)), tests: tests[path]})
	}
	return all
}

func importsOf(t *testing.T, specs []*ast.ImportSpec) []string {
	t.Helper()
	var paths []string
	for _, spec := range specs {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

func union(a, b map[string][]string) map[string][]string {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return both
}

// within tells whether path is the package or folder root, or below it.
func within(path, root string) bool {
	return path == root || strings.HasPrefix(path, root+"/")
}

// standard tells whether an import path is of the standard library: only there
// does the first element have no dot.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

// using returns those of paths that are in the folder root of this module.
func using(paths []string, root string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		return !within(path, module+root)
	})
}

func TestStandardLibraryOnly(t *testing.T) {
	rules := []struct {
		path   string
		below  bool // the packages in its folder as well
		reason string
	}{
		{"cluster/lease", true, "the arithmetic that makes ownership exclusive is pure, so that it can be read, modelled and tested without a cluster"},
		{"cluster/identity", true, "who holds an identity follows from what was told, whatever tells it"},
		{"internal/policy", true, "who should own is a pure function of the hints: it has no way to make anybody owner"},
		{"internal/keepalived", true, "the language is read without knowing what it is for, so that tools and fuzzers can use it alone"},
		{"vrrpcompat", false, "packets and elections are pure; the sockets are in vrrpcompat/vrrpnet"},
	}
	all := list(t)
	for _, rule := range rules {
		at := slices.IndexFunc(all, func(p pkg) bool { return p.path == rule.path })
		if at < 0 {
			t.Errorf("%s is gone: change the rule with it", rule.path)
			continue
		}
		for _, p := range all {
			if p.path != rule.path && !(rule.below && within(p.path, rule.path)) {
				continue
			}
			for _, d := range append(slices.Clone(p.deps), p.tests...) {
				if !standard(d) && !within(d, module+rule.path) {
					t.Errorf("%s uses %s, but may use the standard library only: %s", p.path, d, rule.reason)
				}
			}
		}
	}
}

func TestClusterAndAddressesApart(t *testing.T) {
	rules := []struct{ path, not, reason string }{
		{"vip", "cluster", "what puts an address on an interface is told until when, never by whom or why"},
		{"cluster", "vip", "the lease is decided without knowing what it is for; it reaches the addresses through internal/owner alone"},
		{"internal/testnet", "vip", "the judge of a test must not share code with what it judges"},
		{"internal/testnet", "cluster", "the judge of a test must not share code with what it judges"},
		{"vrrpcompat", "cluster", "a virtual router is told whether it may speak, never how that was decided; internal/vrrp tells it"},
		{"vrrpcompat", "vip", "what a virtual router decides reaches the addresses through internal/vrrp alone"},
		{"cluster", "vrrpcompat", "the lease is decided without knowing what it is for"},
		{"vip", "vrrpcompat", "what puts an address on an interface is told until when, never by whom or why"},
		{"internal/testnet", "vrrpcompat", "the judge of a test must not share code with what it judges"},
	}
	for _, p := range list(t) {
		for _, rule := range rules {
			if !within(p.path, rule.path) {
				continue
			}
			if bad := using(p.deps, rule.not); len(bad) > 0 {
				t.Errorf("%s uses %s: %s", p.path, strings.Join(bad, ", "), rule.reason)
			}
			if bad := using(p.tests, rule.not); len(bad) > 0 {
				t.Errorf("a test of %s uses %s: %s", p.path, strings.Join(bad, ", "), rule.reason)
			}
		}
	}
}

// TestLayersOfCluster: authority flows down the list of cluster/DESIGN.md, "Parts".
func TestLayersOfCluster(t *testing.T) {
	rules := []struct{ path, not, reason string }{
		{"cluster/state", "cluster/store", "what the nodes agree on does not depend on a node"},
		{"cluster/state", "cluster/port", "what the nodes agree on does not depend on a node"},
		{"cluster/state", "cluster/group", "what the nodes agree on grants nothing"},
		{"cluster/beat", "cluster/state", "what carries heartbeats knows of no rule"},
		{"cluster/beat", "cluster/group", "what carries heartbeats knows of no rule"},
		{"cluster/store", "cluster/port", "what was written is read without the network"},
		{"cluster/store", "cluster/group", "what was written is read without Raft"},
		{"cluster/port", "cluster/store", "what carries messages does not know what is in them"},
		{"cluster/port", "cluster/group", "what carries messages does not know what is in them"},
	}
	groups := []string{
		"cluster",          // opens them
		"internal/owner",   // owns by their lease
		"internal/operate", // tells operators of it, and asks the members; TestGrants holds it to that
		"internal/daemon",  // builds the owner
		"cmd/raftvip",      // wires the daemon up
		"internal/e2e",     // test code: looks at the whole product
		"internal/chaos",   // test code: the same, beside keepalived
	}
	for _, p := range list(t) {
		all := append(slices.Clone(p.deps), p.tests...)
		for _, rule := range rules {
			if bad := using(all, rule.not); within(p.path, rule.path) && len(bad) > 0 {
				t.Errorf("%s uses %s: %s", p.path, strings.Join(bad, ", "), rule.reason)
			}
		}
		if len(using(all, "cluster/group")) > 0 && !slices.ContainsFunc(groups, func(root string) bool { return within(p.path, root) }) {
			t.Errorf("%s uses cluster/group: only what owns may see a lease", p.path)
		}
	}
}

// TestOwnerJoinsBoth: the lease becomes addresses in one place. Others see the addresses
// and of the cluster its replicated state only, which grants nothing.
func TestOwnerJoinsBoth(t *testing.T) {
	const reason = "authority flows one way, from the lease to the addresses, in one place that can be read"
	exempt := []string{
		"internal/owner",   // joins them
		"internal/operate", // tells operators of both; TestGrants holds it to that
		"internal/daemon",  // builds the owner
		"cmd/raftvip",      // wires the daemon up, and cleans addresses up without it
		"internal/e2e",     // test code: looks at the whole product
		"internal/chaos",   // test code: the same, beside keepalived
	}
	for _, p := range list(t) {
		if slices.ContainsFunc(exempt, func(root string) bool { return within(p.path, root) }) {
			continue
		}
		both := append(slices.Clone(p.deps), p.tests...)
		lease := slices.DeleteFunc(using(both, "cluster"), func(path string) bool {
			return path == module+"cluster/state" || path == module+"cluster/identity"
		})
		if len(using(both, "vip")) > 0 && len(lease) > 0 {
			t.Errorf("%s uses both vip and %s: %s", p.path, strings.Join(lease, ", "), reason)
		}
	}
}

// TestAdviceIsNoAuthority: what leads from the lease to the addresses does not see what
// advises it. Of advice the owner takes what internal/policy makes of it.
func TestAdviceIsNoAuthority(t *testing.T) {
	authority := []string{"cluster", "internal/owner", "vip"}
	all := list(t)
	for advice, reason := range map[string]string{
		"internal/check":   "a check that hangs or lies can move the group, and nothing else",
		"internal/hint":    "what a member says of itself, true or not, permits nothing",
		"internal/policy":  "who should own is not who may",
		"internal/place":   "where an address belongs does not say that it may be there",
		"internal/vrrp":    "a virtual router can keep an address down, and says so when it is asked",
		"internal/operate": "what an operator asks for is judged by those who decide",
		"internal/daemon":  "what builds the parts is not one of them",
	} {
		for _, p := range all {
			if !slices.ContainsFunc(authority, func(root string) bool { return within(p.path, root) }) {
				continue
			}
			if p.path == "internal/owner" && advice == "internal/policy" {
				continue // it takes candidates and a decision; decide puts the lease first
			}
			if bad := using(append(slices.Clone(p.deps), p.tests...), advice); len(bad) > 0 {
				t.Errorf("%s uses %s: %s", p.path, strings.Join(bad, ", "), reason)
			}
		}
	}
}

// TestWhoImports: the rooms of the daemon are entered by those that are named here.
func TestWhoImports(t *testing.T) {
	all := list(t)
	for room, rule := range map[string]struct {
		by     []string
		reason string
	}{
		"internal/owner":   {[]string{"internal/operate", "internal/daemon"}, "what owns is built in one place, and looked at and asked to move in one other"},
		"internal/hint":    {[]string{"internal/operate", "internal/daemon"}, "hints are advice: they reach the owner as what the policy makes of them"},
		"internal/place":   {[]string{"internal/vrrp", "internal/operate", "internal/daemon", "cmd/raftvip"}, "the owner is given addresses, not where they come from"},
		"internal/vrrp":    {[]string{"internal/operate", "internal/daemon"}, "the owner asks for consent, and does not know whose"},
		"internal/operate": {[]string{"internal/daemon", "cmd/raftvip"}, "nothing depends on what operators ask"},
		"internal/daemon":  {[]string{"cmd/raftvip"}, "nothing depends on how the parts are joined"},
	} {
		for _, p := range all {
			if p.path == room || within(p.path, "internal/e2e") || within(p.path, "internal/chaos") {
				continue
			}
			if bad := using(append(slices.Clone(p.uses), p.tests...), room); len(bad) > 0 && !slices.Contains(rule.by, p.path) {
				t.Errorf("%s imports %s: %s", p.path, strings.Join(bad, ", "), rule.reason)
			}
		}
	}
}

// TestGrants: who sees both the lease and the addresses, or builds what does, is not yet
// who lets an address answer. The names that do are used in few places.
func TestGrants(t *testing.T) {
	grants := map[string][]string{
		"vip":           {"Gate", "NewGate", "ShutAll", "Keeper", "NewKeeper", "KeeperConfig", "Holding", "SetAll", "Want", "Wanted"},
		"cluster/group": {"LeaseSink"},
		"vip/guard":     {"Open", "Guard"},
	}
	may := []string{
		"cluster", "vip", // are what the names are of
		"internal/owner",                                   // opens the gate by the lease, and says what is wanted
		"internal/vrrp",                                    // has gates of its own beneath that, and those without a lease
		"internal/daemon",                                  // makes them
		"internal/e2e", "internal/chaos", "internal/bench", // test code
	}
	root := filepath.Join("..", "..")
	for _, p := range list(t) {
		if slices.ContainsFunc(may, func(root string) bool { return within(p.path, root) }) {
			continue
		}
		files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(p.path), "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			for of, names := range grants {
				for _, name := range selected(t, file, module+of) {
					if slices.Contains(names, name) {
						t.Errorf("%s uses %s of %s: it can let an address answer, and %s is not to", file, name, of, p.path)
					}
				}
			}
		}
	}
}

// selected are the names of a package that a file uses.
func selected(t *testing.T, file, path string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	local := ""
	for _, spec := range parsed.Imports {
		if imported := importsOf(t, []*ast.ImportSpec{spec}); imported[0] == path {
			local = path[strings.LastIndex(path, "/")+1:]
			if spec.Name != nil {
				local = spec.Name.Name
			}
		}
	}
	var names []string
	ast.Inspect(parsed, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && local != "" && x.Name == local {
				names = append(names, sel.Sel.Name)
			}
		}
		return true
	})
	return names
}

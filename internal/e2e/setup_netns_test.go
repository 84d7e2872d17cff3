package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// built is the program, built once per run of the tests.
var built struct {
	once sync.Once
	dir  string
	path string
	err  error
}

func binary(t *testing.T) string {
	t.Helper()
	testnet.Require(t)
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "raftvip-e2e-"); built.err != nil {
			return
		}
		if built.err = os.Chmod(built.dir, 0o755); built.err != nil { // for TestNoRoot
			return
		}
		built.path, built.err = Build(context.Background(), built.dir)
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// slots bounds the tests that run at once: each is a few daemons and a prober
// that wakes every millisecond.
var slots = make(chan struct{}, 3)

// setup describes the cluster of a test.
type setup struct {
	nodes int
	names []string
	vips  []netip.Addr // probed all the time; default is vip4
	// unprobed: the prober may see no answer at all, as where nothing is ever up.
	unprobed bool
	// rivals are further hosts, without a node: other VRRP routers. Promise P1 is not
	// about them.
	rivals int
	// peerNetwork adds a second network between the nodes, eth1.
	peerNetwork bool
	// unjudged: promise P1 does not hold, and the test is about that.
	unjudged bool
}

// vip4 is the address of most tests.
var vip4 = netip.MustParseAddr("10.99.0.100")

// newCluster builds a lab with a prober in it that judges promise P1 when the test
// ends. Tests run in parallel.
func newCluster(t *testing.T, s setup) *Cluster {
	t.Helper()
	path := binary(t)
	t.Parallel()
	slots <- struct{}{}
	t.Cleanup(func() { <-slots })
	lab := testnet.ForTest(t, testnet.Options{Nodes: s.nodes + s.rivals, PeerNetwork: s.peerNetwork})
	if len(s.vips) == 0 {
		s.vips = []netip.Addr{vip4}
	}
	p, err := lab.StartProber(testnet.ProberOptions{VIPs: s.vips})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Stop()
		if s.unjudged || s.unprobed && p.Stats().Answers == 0 {
			return
		}
		if s.rivals == 0 {
			testnet.MustHoldP1(t, p)
			return
		}
		mustHoldP1Among(t, p, lab.Nodes()[:s.nodes])
	})
	c := New(lab, path, s.names...)
	c.Nodes = c.Nodes[:s.nodes]
	return c
}

// mustHoldP1Among is testnet.MustHoldP1 for some hosts only.
func mustHoldP1Among(t *testing.T, p *testnet.Prober, hosts []*testnet.Host) {
	t.Helper()
	var answers []testnet.Answer
	for _, a := range p.Answers() {
		if slices.ContainsFunc(hosts, func(h *testnet.Host) bool { return h.Name() == a.Holder }) {
			answers = append(answers, a)
		}
	}
	st := p.Stats()
	switch err := testnet.CheckP1(answers, testnet.DefaultWindow).Err(); {
	case err != nil:
		t.Errorf("%v (%d probes, %v)", err, st.Probes, st.Cadence)
	case len(answers) == 0:
		t.Error("P1 not judged: no answer was seen")
	case st.Dropped > 0:
		t.Error("P1 not judged: the observer lost packets")
	}
}

// newFormed is newCluster with all nodes running.
func newFormed(t *testing.T, s setup) *Cluster {
	t.Helper()
	c := newCluster(t, s)
	must(t, c.Found(bounded(t, 60*time.Second), "--vip", vip4.String()+"/24@eth0"))
	return c
}

func bounded(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func get[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// run runs a command that has to succeed and returns what it printed on stdout.
func run(t *testing.T, n *Node, args ...string) string {
	t.Helper()
	r, err := n.Must(t.Context(), args...)
	must(t, err)
	return r.Stdout
}

// fails runs a command that has to fail with the exit code, an error that says
// all of the given, and a hint.
func fails(t *testing.T, n *Node, code int, says []string, args ...string) Result {
	t.Helper()
	r, err := n.Run(t.Context(), args...)
	must(t, err)
	refused(t, "raftvip "+strings.Join(args, " "), r, code, says)
	return r
}

func refused(t *testing.T, what string, r Result, code int, says []string) {
	t.Helper()
	if r.Code != code {
		t.Errorf("%s: exit code %d, want %d", what, r.Code, code)
	}
	for _, s := range append([]string{"error: ", "hint: "}, says...) {
		if !strings.Contains(r.Stderr, s) {
			t.Errorf("%s: %q is not in\n%s", what, s, r.Stderr)
		}
	}
	if strings.Contains(r.Stderr, "panic") || strings.Contains(r.Stderr, "goroutine ") {
		t.Errorf("%s: %s", what, r.Stderr)
	}
}

// ends waits for a daemon that has to give up by itself, and judges it as fails does.
func ends(t *testing.T, n *Node, says ...string) {
	t.Helper()
	code, err := n.Daemon().Wait(10 * time.Second)
	if errors.Is(err, testnet.ErrStillRunning) {
		t.Fatalf("%s: %v", n.Name, err)
	}
	refused(t, "raftvip run", Result{Code: code, Stderr: n.Daemon().Output()}, 1, says)
}

func status(t *testing.T, n *Node) api.Status {
	t.Helper()
	return get[api.Status](t)(n.Status(t.Context()))
}

// owner waits until all running nodes agree, on a given owner if it is not nil,
// and the address is there and nowhere else.
func owner(t *testing.T, c *Cluster, want *Node, conds ...func(api.Status) error) *Node {
	t.Helper()
	name := ""
	if want != nil {
		name = want.Name
	}
	n, err := c.WaitAgreed(bounded(t, 20*time.Second), name, conds...)
	must(t, err)
	must(t, c.WaitHeldBy(bounded(t, 10*time.Second), n, vip4))
	return n
}

// nextOwner is owner where it has to be another than before.
func nextOwner(t *testing.T, c *Cluster, before *Node) *Node {
	t.Helper()
	n, err := c.WaitAgreed(bounded(t, 20*time.Second), "", func(st api.Status) error {
		if st.Groups[0].Owner == before.Name {
			return fmt.Errorf("%s still owns", before.Name)
		}
		return nil
	})
	must(t, err)
	return n
}

// lastMove waits until every running node has the same newest entry in its
// history, to this node, and returns it.
func lastMove(t *testing.T, c *Cluster, to *Node) api.Move {
	t.Helper()
	var last api.Move
	testnet.MustWait(t, 10*time.Second, "the move in the history", func() error {
		seen := false
		for _, n := range c.Nodes {
			if !n.Running() {
				continue
			}
			moves, err := n.History(t.Context())
			if err != nil {
				return err
			}
			if len(moves) == 0 || moves[len(moves)-1].To != to.Name {
				return fmt.Errorf("%s: %+v", n.Name, moves)
			}
			m := moves[len(moves)-1]
			if seen && m.Seq != last.Seq {
				return fmt.Errorf("%s: %+v, elsewhere %+v", n.Name, m, last)
			}
			last, seen = m, true
		}
		return nil
	})
	return last
}

func arithmetic(node, want string) func(api.Status) error {
	return func(st api.Status) error {
		if got := Arithmetic(st, node); got != want {
			return fmt.Errorf("priority of %s is %q, not %q", node, got, want)
		}
		return nil
	}
}

// within judges how long something took. What the machine stalled is excused; a
// program with the race detector gets three times as long.
func within(t *testing.T, what string, took, limit, stalled time.Duration) {
	t.Helper()
	allowed := limit
	if os.Getenv(EnvRace) == "1" {
		allowed *= 3
	}
	if took > allowed+stalled {
		t.Errorf("%s took %v; must be within %v (stalled for %v)", what, took, limit, stalled)
	} else {
		t.Logf("%s took %v", what, took)
	}
}

// exec1 runs any command on a host.
func exec1(t *testing.T, h *testnet.Host, args ...string) string {
	t.Helper()
	return get[string](t)(h.Exec(t.Context(), args...))
}

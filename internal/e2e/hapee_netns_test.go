package e2e

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
)

// The addresses of the examples.
var hapeeVIPs = []netip.Addr{netip.MustParseAddr("10.99.0.50"), netip.MustParseAddr("10.99.0.51")}

const examples = "../../deploy/examples/"

// hapee is a pair of load balancers with the files of the HAProxy guide, as they
// are shipped, and a third node without a file.
type hapee struct {
	*Cluster
	lb1, lb2, third *Node
	balancer        *testnet.Proc // on lb1
}

func newHapee(t *testing.T) *hapee {
	t.Helper()
	c := newCluster(t, setup{nodes: 3, names: []string{"lb1", "lb2", "third"}, vips: hapeeVIPs})
	h := &hapee{Cluster: c, lb1: c.Nodes[0], lb2: c.Nodes[1], third: c.Nodes[2]}
	for _, n := range []*Node{h.lb1, h.lb2} {
		n.OwnPIDs = true // "pkill -0 hapee-lb" must not find that of the other node
		n.Config = get[string](t)(filepath.Abs(examples + "hapee-" + n.Name + ".cfg"))
		pretend(t, n, "sshd")
		if p := pretend(t, n, "hapee-lb"); n == h.lb1 {
			h.balancer = p
		}
	}
	// The third one votes and has no file; it is not to own the balancers' addresses.
	r, err := h.lb1.Must(t.Context(), "init", "--name", "lb1")
	must(t, err)
	ticket := get[Ticket](t)(TicketFrom(r.Stdout))
	must(t, h.lb1.Start())
	must(t, h.lb1.WaitServing(t.Context()))
	must(t, h.lb2.Join(bounded(t, 30*time.Second), ticket))
	must(t, h.lb2.Start())
	must(t, h.third.Join(bounded(t, 30*time.Second), ticket, "--witness"))
	must(t, h.third.Start())
	must(t, h.WaitFormed(bounded(t, 30*time.Second)))
	return h
}

// pretend runs a program of this name on the node.
func pretend(t *testing.T, n *Node, name string) *testnet.Proc {
	t.Helper()
	dir := filepath.Join(n.Dir, "bin")
	must(t, os.MkdirAll(dir, 0o755))
	path := filepath.Join(dir, name)
	if err := os.Symlink("/bin/sleep", path); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	return get[*testnet.Proc](t)(n.Host.Start(testnet.Cmd{Args: []string{path, "infinity"}, OwnPIDs: true}))
}

// stopBalancer ends hapee-lb on lb1.
func (h *hapee) stopBalancer(t *testing.T) {
	t.Helper()
	must(t, h.balancer.Kill())
	if _, err := h.balancer.Wait(5 * time.Second); errors.Is(err, testnet.ErrStillRunning) {
		t.Fatal(err)
	}
}

// on waits until all nodes agree that this one owns, with these priorities, and
// both addresses are there only.
func (h *hapee) on(t *testing.T, n *Node, lb1, lb2 string) {
	t.Helper()
	_, err := h.WaitAgreed(bounded(t, 30*time.Second), n.Name, arithmetic("lb1", lb1), arithmetic("lb2", lb2))
	must(t, err)
	for _, a := range hapeeVIPs {
		must(t, h.WaitHeldBy(bounded(t, 10*time.Second), n, a))
	}
}

// edit gives the node a copy of its file in which the priority is another.
func (h *hapee) edit(t *testing.T, n *Node, from, to string) {
	t.Helper()
	b, err := os.ReadFile(n.Config)
	must(t, err)
	changed := strings.Replace(string(b), "priority "+from, "priority "+to, 1)
	if changed == string(b) {
		t.Fatalf("%s has no priority %s", n.Config, from)
	}
	n.Config = get[string](t)(n.WriteFile("edited.cfg", changed))
}

// TestHapeeCheck: hapee-lb disappears from lb1 and comes back.
func TestHapeeCheck(t *testing.T) {
	h := newHapee(t)
	const lb1, lb2 = "107 = 101 + 6 chk_lb", "106 = 100 + 6 chk_lb"
	h.on(t, h.lb1, lb1, lb2)
	if r, err := h.third.Run(t.Context(), "status"); err != nil || !strings.Contains(r.Stdout, lb1) || !strings.Contains(r.Stdout, lb2) {
		t.Errorf("the arithmetic is not in the status of the third node: %v %v", r, err)
	}
	if out := exec1(t, h.lb1.Host, "ip", "-o", "-4", "address", "show", "label", "eth0:vip"); !strings.Contains(out, "inet 10.99.0.51/") {
		t.Errorf("addresses on lb1:\n%s", out)
	}
	h.stopBalancer(t)
	h.on(t, h.lb2, "101 = 101 (chk_lb failing: +6 not counted)", lb2)
	m := lastMove(t, h.Cluster, h.lb2)
	if m.From != "lb1" || !strings.Contains(m.Reason, "lb2 has priority 106, higher than 101 of lb1") {
		t.Errorf("history: %+v", m)
	}
	h.balancer = pretend(t, h.lb1, "hapee-lb")
	h.on(t, h.lb1, lb1, lb2)
	if m := lastMove(t, h.Cluster, h.lb1); !strings.Contains(m.Reason, "lb1 has priority 107, higher than 106 of lb2") {
		t.Errorf("history: %+v", m)
	}
}

// TestHapeeReconfigured: the standby's file gets a higher priority, and is reloaded.
func TestHapeeReconfigured(t *testing.T) {
	h := newHapee(t)
	const lb1, lb2 = "107 = 101 + 6 chk_lb", "106 = 100 + 6 chk_lb"
	h.on(t, h.lb1, lb1, lb2)
	// The daemon was started with the shipped file; from now on it has a copy of it.
	if _, err := h.lb2.Stop(); err != nil {
		t.Fatal(err)
	}
	h.edit(t, h.lb2, "100", "100 ")
	must(t, h.lb2.Start())
	h.on(t, h.lb1, lb1, lb2)
	h.edit(t, h.lb2, "100", "110")
	run(t, h.lb2, "reload")
	h.on(t, h.lb2, lb1, "116 = 110 + 6 chk_lb")
}

// TestHapeeSilent: the owner goes silent, and comes back.
func TestHapeeSilent(t *testing.T) {
	h := newHapee(t)
	const lb1, lb2 = "107 = 101 + 6 chk_lb", "106 = 100 + 6 chk_lb"
	h.on(t, h.lb1, lb1, lb2)
	must(t, h.lb1.Daemon().Stop())
	for _, a := range hapeeVIPs {
		_, err := h.Lab.WaitOwner(bounded(t, 20*time.Second), a, h.lb2.Host)
		must(t, err)
	}
	must(t, h.lb1.Daemon().Cont())
	// It has the higher priority and nothing says nopreempt.
	h.on(t, h.lb1, lb1, lb2)
}

// TestHapeeManual is the guide's manual failover: a lower priority in the file of
// the owner, and a restart of the service.
func TestHapeeManual(t *testing.T) {
	h := newHapee(t)
	const lb1, lb2 = "107 = 101 + 6 chk_lb", "106 = 100 + 6 chk_lb"
	h.on(t, h.lb1, lb1, lb2)
	h.edit(t, h.lb1, "101", "90")
	if _, err := h.lb1.Stop(); err != nil {
		t.Fatal(err)
	}
	must(t, h.lb1.Start())
	h.on(t, h.lb2, "96 = 90 + 6 chk_lb", lb2)
	if st := status(t, h.lb1); len(st.Config.Drift) != 0 {
		t.Errorf("a node's own priority is no drift: %v", st.Config.Drift)
	}
}

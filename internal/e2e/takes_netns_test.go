package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/testnet"
)

// settled waits until the nodes agree on an owner that none of the given nodes is,
// and that the network answers from it.
func settled(t *testing.T, c *Cluster, not ...*Node) *Node {
	t.Helper()
	n, err := c.WaitAgreed(bounded(t, 30*time.Second), "", func(st api.Status) error {
		if slices.ContainsFunc(not, func(n *Node) bool { return st.Groups[0].Owner == n.Name }) {
			return fmt.Errorf("%s owns", st.Groups[0].Owner)
		}
		return nil
	})
	must(t, err)
	return n
}

// movesTo returns the entries of the history that lead to a node.
func movesTo(t *testing.T, c *Cluster) []api.Move {
	t.Helper()
	for _, n := range c.Nodes {
		if n.Running() {
			moves := get[[]api.Move](t)(n.History(t.Context()))
			return slices.DeleteFunc(moves, func(m api.Move) bool { return m.To == "" })
		}
	}
	return nil
}

// stays fails the test if the group moves within the time.
func stays(t *testing.T, c *Cluster, n *Node, d time.Duration) {
	t.Helper()
	before := len(movesTo(t, c))
	time.Sleep(d)
	if moves := movesTo(t, c); len(moves) != before {
		t.Errorf("the group moved: %+v", moves[before:])
	}
	get[*Node](t)(c.WaitAgreed(bounded(t, 20*time.Second), n.Name))
}

func hasWarning(st api.Status, parts ...string) bool {
	return slices.ContainsFunc(st.Warnings, func(w string) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(w, p) })
	})
}

// warned waits until all running nodes have a warning with the parts.
func warned(t *testing.T, c *Cluster, parts ...string) {
	t.Helper()
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		testnet.MustWait(t, 15*time.Second, "a warning of "+n.Name+" that says "+strings.Join(parts, ", "), func() error {
			st, err := n.Status(t.Context())
			if err == nil && !hasWarning(st, parts...) {
				err = fmt.Errorf("%q", st.Warnings)
			}
			return err
		})
	}
}

func disableIPv6(t *testing.T, n *Node, off bool) {
	t.Helper()
	exec1(t, n.Host, "sysctl", "-w", fmt.Sprintf("net.ipv6.conf.eth0.disable_ipv6=%d", map[bool]int{true: 1}[off]))
}

// TestIPv6DisabledOnTheOwner: the owner loses its IPv6 address and cannot put it back.
// It hands over to a node that can, in the order of the priorities; when all fail
// alike the last one stays, and says so; and who can again is preferred again.
func TestIPv6DisabledOnTheOwner(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, vips: []netip.Addr{vip4, vip6}})
	must(t, c.Found(bounded(t, 60*time.Second), "--vip", vip4.String()+"/24@eth0", "--vip", vip6.String()+"/64@eth0"))
	first := owner(t, c, nil)
	must(t, c.WaitHeldBy(bounded(t, 5*time.Second), first, vip6))

	disableIPv6(t, first, true)
	began := boottime.Now()
	second := settled(t, c, first)
	t.Logf("moved after %v", boottime.Now()-began)
	for _, a := range []netip.Addr{vip4, vip6} {
		get[any](t)(c.Lab.WaitOwner(bounded(t, 10*time.Second), a, second.Host))
	}
	warned(t, c, first.Name+" is not preferred as owner", "1 of 2 addresses", vip6.String())
	if m := lastMove(t, c, second); !strings.Contains(m.Reason, first.Name+" has 1 of 2 addresses up ("+vip6.String()) {
		t.Errorf("reason %q", m.Reason)
	}
	// An operator cannot send it there, and the next failure does not lead there.
	fails(t, second, 1, []string{first.Name + " can put up 1 of 2 addresses", "fewer than here"}, "transfer", first.Name)
	disableIPv6(t, second, true)
	third := settled(t, c, first, second)
	get[any](t)(c.Lab.WaitOwner(bounded(t, 10*time.Second), vip6, third.Host))

	// Nobody can: the last one stays with what it has.
	disableIPv6(t, third, true)
	warned(t, c, third.Name+" owns, but can put up 1 of 2 addresses")
	stays(t, c, third, 5*time.Second)
	get[any](t)(c.Lab.WaitOwner(bounded(t, 10*time.Second), vip4, third.Host))
	if why := status(t, third).Groups[0].Why; !strings.Contains(why, "no eligible node can put up more") {
		t.Errorf("why: %q", why)
	}

	// The history says what a take came to.
	must(t, third.Kill())
	next := settled(t, c, third)
	testnet.MustWait(t, 10*time.Second, "the take in the history", func() error {
		moves := movesTo(t, c)
		m := moves[len(moves)-1]
		if want := "; 1 of 2 addresses up; " + vip6.String() + ": permission denied"; m.To != next.Name || !strings.Contains(m.Reason, want) {
			return fmt.Errorf("%+v", m)
		}
		return nil
	})

	// A node that can again gets it, and what it says of itself is mended at once.
	disableIPv6(t, second, false)
	get[*Node](t)(c.WaitAgreed(bounded(t, 30*time.Second), second.Name))
	get[any](t)(c.Lab.WaitOwner(bounded(t, 10*time.Second), vip6, second.Host))
}

// TestTakeThatFails: nothing tells beforehand that the announcements of a node do not
// leave it. It is tried once and remembered.
func TestTakeThatFails(t *testing.T) {
	c := newFormed(t, setup{nodes: 3, unjudged: true}) // the kernel's answers are dropped, too
	first := owner(t, c, nil)
	others := c.Others(first)
	deaf := func(n *Node) {
		exec1(t, n.Host, "nft", "add table netdev deaf; add chain netdev deaf out { type filter hook egress device eth0 priority 100; }; add rule netdev deaf out ether type arp drop")
	}
	deaf(others[0])
	run(t, first, "transfer", others[0].Name)
	// It gives the group to one that is not known to fail.
	next := settled(t, c, others[0])
	moves := movesTo(t, c)
	i := slices.IndexFunc(moves, func(m api.Move) bool { return m.To == others[0].Name })
	if i < 0 || i+1 >= len(moves) {
		t.Fatalf("history: %+v", moves)
	}
	if !strings.Contains(moves[i+1].Reason, others[0].Name+" has 0 of 1 addresses up") {
		t.Errorf("reason of the move away: %q", moves[i+1].Reason)
	}
	warned(t, c, others[0].Name+" is not preferred as owner", vip4.String())
	get[any](t)(c.Lab.WaitOwner(bounded(t, 10*time.Second), vip4, next.Host))
	stays(t, c, next, 3*time.Second)
}

// TestForeignCopyThatAnswers: the same address is on lo as well, so that the copy on
// a standby cannot be silenced: every node says so, with the command, and the group
// does not go there.
func TestForeignCopyThatAnswers(t *testing.T) {
	c := newFormed(t, setup{nodes: 3, unjudged: true})
	o := owner(t, c, nil)
	n := c.Others(o)[0]
	exec1(t, n.Host, "ip", "address", "add", vip4.String()+"/32", "dev", "lo")
	exec1(t, n.Host, "ip", "address", "add", vip4.String()+"/24", "dev", "eth0")
	command := "ip address del " + vip4.String() + "/24 dev eth0"
	warned(t, c, n.Name+" ANSWERS FOR "+vip4.String(), command)
	for _, on := range c.Nodes {
		r := get[Result](t)(on.Run(t.Context(), "doctor"))
		if r.Code == 0 || !strings.Contains(r.Stdout, command) {
			t.Errorf("doctor on %s: exit code %d\n%s", on.Name, r.Code, r.Stdout)
		}
	}
	fails(t, o, 1, []string{n.Name + " can put up 0 of 1 addresses"}, "transfer", n.Name)
	exec1(t, n.Host, "bash", "-c", command)
	testnet.MustWait(t, 15*time.Second, "the warning to go", func() error {
		st, err := o.Status(t.Context())
		if err == nil && hasWarning(st, "ANSWERS FOR") {
			err = fmt.Errorf("%q", st.Warnings)
		}
		return err
	})
}

// TestTugOfWar: somebody deletes the address again and again. The log and the
// network stay quiet, the group moves to a node where nobody does, and where all
// have that trouble it stays and the address comes back all the time.
func TestTugOfWar(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	first := owner(t, c, nil)
	capture := get[*testnet.Capture](t)(c.Lab.Client(0).StartCapture(testnet.Front))
	fight := func(n *Node) {
		get[*testnet.Proc](t)(n.Host.Start(testnet.Cmd{Name: "deleter", Args: []string{"bash", "-c",
			fmt.Sprintf("while true; do ip address del %v/32 dev eth0 2>/dev/null; sleep 0.02; done", vip4)}}))
	}
	fight(first)
	began := boottime.Now()
	second := settled(t, c, first)
	t.Logf("moved after %v", boottime.Now()-began)
	if m := lastMove(t, c, second); !strings.Contains(m.Reason, "removes it again and again") {
		t.Errorf("reason %q", m.Reason)
	}
	warned(t, c, first.Name+" is not preferred as owner", "removes it again and again")
	stays(t, c, second, 2*time.Second)
	if n := strings.Count(first.Daemon().Output(), vip4.String()); n > 30 {
		t.Errorf("%d lines about the address in the log of %s:\n%s", n, first.Name, first.Daemon().Tail(3000))
	}

	for _, n := range c.Others(first) {
		fight(n)
	}
	third := settled(t, c, first, second)
	warned(t, c, third.Name+" owns, but can put up 0 of 1 addresses")
	log, frames := strings.Count(third.Daemon().Output(), "\n"), capture.Count(vip4, third.Host.Name())
	stays(t, c, third, 6*time.Second)
	if n := strings.Count(third.Daemon().Output(), "\n") - log; n > 10 {
		t.Errorf("%d lines in the log in 6 s:\n%s", n, third.Daemon().Tail(3000))
	}
	// At most one a second by the deletions, and a burst by a doubt.
	if n := capture.Count(vip4, third.Host.Name()) - frames; n < 2 || n > 20 {
		t.Errorf("%d announcements in 6 s", n)
	}
	before := boottime.Now()
	testnet.MustWait(t, 5*time.Second, "answers in between", func() error {
		if has, err := third.Host.Has(vip4); err != nil || !has {
			return fmt.Errorf("not there (%v)", err)
		}
		return nil
	})
	t.Logf("there within %v", boottime.Now()-before)
}

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// kernelState is everything that a daemon may put into the kernel of its node: addresses,
// filters, nftables, pinned programs.
func kernelState(t *testing.T, n *Node) string {
	t.Helper()
	// Pins are named after the inode of the namespace.
	return exec1(t, n.Host, "bash", "-c", `
ip -o address show scope global | sed 's/ *valid_lft.*//'
tc qdisc show | grep -w clsact
tc filter show dev eth0 ingress; tc filter show dev eth0 egress
tc filter show dev lo ingress; tc filter show dev lo egress
nft list ruleset
ls -d /sys/fs/bpf/raftvip/*@$(stat -Lc %i /proc/self/ns/net) /run/raftvip/bpf/*@$(stat -Lc %i /proc/self/ns/net) 2>/dev/null
bpftool net 2>/dev/null | grep -i raftvip
true`)
}

// TestOwnerKilled: kill -9, take-over, and a return that removes what was left.
func TestOwnerKilled(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	old := owner(t, c, nil)
	must(t, old.Kill())
	if has := get[bool](t)(old.Host.Has(vip4)); !has {
		t.Error("the address should still be on the killed node: nobody is there to remove it")
	}
	next := nextOwner(t, c, old)
	_, err := c.Lab.WaitOwner(bounded(t, 10*time.Second), vip4, next.Host)
	must(t, err)
	m := lastMove(t, c, next)
	if m.From != old.Name || !strings.Contains(m.Reason, old.Name+" was not heard") || m.Gap <= 0 {
		t.Errorf("history: %+v", m)
	}
	must(t, old.Start())
	must(t, old.WaitServing(t.Context()))
	if has := get[bool](t)(old.Host.Has(vip4)); has {
		t.Error("the restarted node serves and still has its left-over address")
	}
	must(t, c.WaitFormed(bounded(t, 20*time.Second)))
	owner(t, c, next)
	if !strings.Contains(old.Daemon().Output(), "removed an address that an earlier run left") {
		t.Errorf("the removal is not in the log:\n%s", old.Daemon().Tail(4000))
	}
}

// TestSIGTERM: a planned stop hands over, ends within a second and leaves nothing.
func TestSIGTERM(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	before := map[*Node]string{}
	old := owner(t, c, nil)
	for _, n := range c.Others(old) {
		before[n] = kernelState(t, n)
	}
	control := testnet.StartControl(0)
	defer control.Stop()
	took, err := old.Stop()
	must(t, err)
	within(t, "stopping", took, time.Second, control.Max())
	if has := get[bool](t)(old.Host.Has(vip4)); has {
		t.Error("the address is still there")
	}
	left := kernelState(t, old)
	want := fmt.Sprintf("inet %v/24\ninet6 %v/64\n", old.Host.Addr4(testnet.Front), old.Host.Addr6(testnet.Front))
	var got strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(left), "\n") {
		f := strings.Fields(line)
		if len(f) > 3 && f[1] == "eth0" {
			fmt.Fprintf(&got, "%s %s\n", f[2], f[3])
		} else {
			fmt.Fprintln(&got, line)
		}
	}
	if got.String() != want {
		t.Errorf("left behind:\n%s\nwant only:\n%s", got.String(), want)
	}
	next := nextOwner(t, c, old)
	if m := lastMove(t, c, next); m.From != old.Name || !strings.Contains(m.Reason, old.Name+" is stopping") {
		t.Errorf("history: %+v", m)
	}
	if !strings.Contains(before[next], "raftvip") {
		t.Errorf("this test does not see the guard of a running node, so it proves nothing:\n%s", before[next])
	}
	must(t, old.Start())
	must(t, c.WaitFormed(bounded(t, 20*time.Second)))
	owner(t, c, next)
}

// TestTransfer: to a node by name, to the best, and what is refused.
func TestTransfer(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	first := owner(t, c, nil)
	to := c.Others(first)[1]
	// Asked on a node that has no part in it.
	if out := run(t, c.Others(first)[0], "transfer", to.Name); !strings.Contains(out, "moved from "+first.Name+" to "+to.Name) {
		t.Errorf("transfer printed %q", out)
	}
	owner(t, c, to)
	if m := lastMove(t, c, to); m.From != first.Name || !strings.Contains(m.Reason, "raftvip transfer") || m.Gap <= 0 || m.Gap > 1 {
		t.Errorf("history: %+v", m)
	}
	var r api.TransferResult
	must(t, to.JSON(t.Context(), &r, "transfer"))
	if r.From != to.Name || c.Node(r.To) == nil || r.To == to.Name {
		t.Errorf("transfer to the best: %+v", r)
	}
	now := owner(t, c, c.Node(r.To))
	fails(t, now, 1, []string{"no node nobody"}, "transfer", "nobody")
	fails(t, now, 1, []string{now.Name + " leads already"}, "transfer", now.Name)
	owner(t, c, now)
}

// TestDrain: a drained node gives up, gets nothing, and may again when undrained.
func TestDrain(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	first := owner(t, c, nil)
	run(t, first, "drain")
	next := nextOwner(t, c, first)
	if m := lastMove(t, c, next); !strings.Contains(m.Reason, "drained") {
		t.Errorf("history: %+v", m)
	}
	for _, n := range c.Nodes {
		i := slices.IndexFunc(status(t, n).Nodes, func(o api.Node) bool { return o.Name == first.Name && o.Drained && !o.Eligible })
		if i < 0 {
			t.Errorf("%s does not show that %s is drained", n.Name, first.Name)
		}
	}
	fails(t, next, 1, []string{first.Name + " cannot take over: it is drained"}, "transfer", first.Name)
	run(t, next, "undrain", first.Name)
	testnet.MustWait(t, 5*time.Second, "transfer to the node that is drained no more", func() error {
		_, err := next.Must(t.Context(), "transfer", first.Name)
		return err
	})
	owner(t, c, first)
}

// TestOwnerFrozen: a stopped daemon is silent, another owns, and when it goes on
// it follows.
func TestOwnerFrozen(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	old := owner(t, c, nil)
	must(t, old.Daemon().Stop())
	next, err := c.Lab.WaitOwner(bounded(t, 20*time.Second), vip4, c.Others(old)[0].Host, c.Others(old)[1].Host)
	must(t, err)
	must(t, old.Daemon().Cont())
	owner(t, c, c.Node(next.Name()))
}

// TestSIGHUP reloads and keeps.
func TestSIGHUP(t *testing.T) {
	c := newCluster(t, setup{nodes: 1})
	n := c.Nodes[0]
	file := func(priority int) string {
		return fmt.Sprintf("vrrp_instance v {\n interface eth0\n priority %d\n virtual_ipaddress {\n %v/24\n }\n}\n", priority, vip4)
	}
	n.Config = get[string](t)(n.WriteFile("raftvip.conf", file(101)))
	must(t, c.Found(bounded(t, 30*time.Second)))
	owner(t, c, n, arithmetic(n.Name, "101 = 101"))
	_, err := n.WriteFile("raftvip.conf", file(120))
	must(t, err)
	term := status(t, n).Cluster.Term
	must(t, n.Daemon().Signal(syscall.SIGHUP))
	owner(t, c, n, arithmetic(n.Name, "120 = 120"))
	if now := status(t, n).Cluster.Term; now != term {
		t.Errorf("a reload changed the term from %d to %d", term, now)
	}
}

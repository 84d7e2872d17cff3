package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// TestPlacedStays: interfaces with an address in the same subnet come on every node,
// and then the own address of the first interface goes for a moment. Nobody gives the
// address up for that; a node that starts then does not take it.
func TestPlacedStays(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, peerNetwork: true})
	advertise := func(n *Node) string { return n.Host.Addr4(testnet.Peer).String() }
	first := c.Nodes[0]
	ticket := get[Ticket](t)(TicketFrom(run(t, first, "init", "--name", first.Name, "--advertise", advertise(first), "--vip", vip4.String()+"/24")))
	must(t, first.Start())
	must(t, first.WaitServing(t.Context()))
	for _, n := range c.Nodes[1:] {
		must(t, n.Join(bounded(t, 20*time.Second), ticket, "--advertise", advertise(n)))
		must(t, n.Start())
	}
	must(t, c.WaitFormed(bounded(t, 40*time.Second)))
	owner(t, c, nil)
	ask := func(says string) {
		t.Helper()
		for _, n := range c.Nodes {
			testnet.MustWait(t, 10*time.Second, n.Name+" to warn", func() error {
				if w := strings.Join(status(t, n).Warnings, "\n"); !strings.Contains(w, says) {
					return errors.New(w)
				}
				return nil
			})
		}
		for _, n := range status(t, owner(t, c, nil)).Nodes {
			if strings.Contains(n.Why, "interface") {
				t.Errorf("%s: eligible %v, %q", n.Name, n.Eligible, n.Why)
			}
		}
		for _, m := range get[[]api.Move](t)(c.Nodes[0].History(t.Context())) {
			if strings.Contains(m.Reason, "interface") {
				t.Errorf("moved after %q: %+v", says, m)
			}
		}
	}
	for i, n := range c.Nodes {
		exec1(t, n.Host, "bash", "-c", fmt.Sprintf("ip link add mgmt0 link eth0 type macvlan && sysctl -qw net.ipv4.conf.mgmt0.arp_ignore=1 && ip address add 10.99.0.%d/24 dev mgmt0 && ip link set mgmt0 up", 61+i))
	}
	ask("several interfaces have an address in its subnet (eth0, mgmt0); it stays on eth0")
	for _, n := range c.Nodes {
		exec1(t, n.Host, "ip", "address", "del", n.Host.Addr4(testnet.Front).String()+"/24", "dev", "eth0")
	}
	ask("eth0 has no address in its subnet any more, mgmt0 has; it moves there after 30s")
	for _, n := range c.Nodes {
		exec1(t, n.Host, "ip", "address", "add", n.Host.Addr4(testnet.Front).String()+"/24", "dev", "eth0")
	}
	ask("it stays on eth0")

	o := owner(t, c, nil)
	n := c.Others(o)[0]
	must(t, n.Kill())
	must(t, n.Start())
	must(t, n.WaitServing(t.Context()))
	testnet.MustWait(t, 20*time.Second, "the restarted node to say that it is not clear", func() error {
		for _, s := range status(t, owner(t, c, nil)).Nodes {
			if s.Name == n.Name && !strings.Contains(s.Why, "several interfaces have an address in its subnet") {
				return fmt.Errorf("eligible %v, %q", s.Eligible, s.Why)
			}
		}
		return nil
	})
}

// newSwapped founds a cluster with the address whose third node has the two networks
// the other way round: its eth0 is where the others' eth1 is.
func newSwapped(t *testing.T, s setup, vip string) (c *Cluster, odd *Node) {
	t.Helper()
	s.nodes, s.peerNetwork = 3, true
	c = newCluster(t, s)
	odd = c.Nodes[2]
	exec1(t, odd.Host, "bash", "-c", "for l in eth0 eth1; do ip link set $l down; done; ip link set eth0 name front; ip link set eth1 name eth0; "+
		"ip link set front name eth1; for l in eth0 eth1; do ip link set $l up; done; ip -6 address add fd00:99::13/64 dev eth1 nodad")
	first := c.Nodes[0]
	ticket := get[Ticket](t)(TicketFrom(run(t, first, "init", "--name", first.Name, "--vip", vip)))
	must(t, first.Start())
	must(t, first.WaitServing(t.Context()))
	for _, n := range c.Nodes[1:] {
		must(t, n.Join(bounded(t, 20*time.Second), ticket))
		must(t, n.Start())
	}
	return c, odd
}

// TestWrongInterfaceIsAFault: the interface of that name is another network on one
// node. That node does not take the address, and says where it belongs.
func TestWrongInterfaceIsAFault(t *testing.T) {
	c, odd := newSwapped(t, setup{}, vip4.String()+"/24@eth0")
	const says = "eth0 has no address in 10.99.0.0/24; eth1 has"
	o := get[*Node](t)(c.WaitAgreed(bounded(t, 40*time.Second), ""))
	testnet.MustWait(t, 20*time.Second, "the fault to be known", func() error {
		st := status(t, o)
		if st.Cluster.Voters != 3 {
			return fmt.Errorf("%d vote", st.Cluster.Voters)
		}
		for _, n := range st.Nodes {
			if n.Eligible == (n.Name == odd.Name) || n.Name == odd.Name && !strings.Contains(n.Why, says) {
				return fmt.Errorf("%s: eligible %v, %q", n.Name, n.Eligible, n.Why)
			}
		}
		return nil
	})
	r := get[Result](t)(o.Run(t.Context(), "transfer", odd.Name))
	if r.Code == 0 || !strings.Contains(r.Stderr, says) {
		t.Errorf("transfer: %v", r)
	}
	// An address in no subnet of the machine is as good on a named interface as ever.
	run(t, o, "vip", "add", "198.51.100.5/24@eth0")
	testnet.MustWait(t, 10*time.Second, "the lone address to be up", func() error {
		for _, a := range status(t, o).Groups[0].Addresses {
			if a.Prefix.String() == "198.51.100.5/24" && a.State == "present" && a.Problem == "" {
				return nil
			}
		}
		return errors.New(run(t, o, "status"))
	})
}

// TestDrillAsksWhereTheClientsAre: the address is in no subnet of the machines, so that
// only its interface's name counts, which is another network on one node. A node answers
// on all its interfaces, but what it announces is not heard where the others ask.
func TestDrillAsksWhereTheClientsAre(t *testing.T) {
	c, _ := newSwapped(t, setup{unprobed: true}, "198.51.100.5/24@eth0")
	must(t, c.WaitFormed(bounded(t, 40*time.Second)))
	for _, n := range c.Nodes[:2] {
		r := get[Result](t)(n.Run(t.Context(), "drill"))
		if r.Code == 0 || !strings.Contains(r.Stderr, "is on another interface there") {
			t.Errorf("drill: %v", r)
		}
	}
	if r := get[Result](t)(c.Nodes[0].Run(t.Context(), "doctor")); r.Code == 0 || !strings.Contains(r.Stdout, "has it on another interface") {
		t.Errorf("doctor: %v", r)
	}
}

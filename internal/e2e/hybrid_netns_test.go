package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// hybridV is the instance of most of these tests.
func hybridV(priority int) Instance {
	return Instance{Name: "V", VRID: 51, Priority: priority, VIPs: []netip.Addr{vip4}, VRRP: "hybrid"}
}

// TestHybridYields: a keepalived of higher priority is master and respected, and
// when it leaves the Raft owner, which was ready, has the address again.
func TestHybridYields(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, rivals: 1})
	k := rivals(t, c)[0]
	configureAll(t, c, hybridV(150))
	must(t, c.Found(bounded(t, 60*time.Second)))
	o := owner(t, c, nil)

	k.start(t, hybridV(200))
	k.owns(t, vip4)
	waitRouter(t, o, "V", "to respect the better master", func(v api.VirtualRouter) bool {
		return v.State == "backup" && v.Entitled && !v.Up && v.Master != nil && v.Master.Address == k.host.Addr4(testnet.Front) && v.Master.Priority == 200
	})
	if names, err := c.Holders(vip4); err != nil || len(names) != 0 {
		t.Errorf("the address is on %v too, %v", names, err)
	}
	if text := run(t, o, "status"); !strings.Contains(text, "ready to take over from VRRP master "+k.host.Addr4(testnet.Front).String()) {
		t.Errorf("status does not say why the address is not here:\n%s", text)
	}
	// The cluster's own moves go on beneath it, and put nothing up.
	other := c.Others(o)[0]
	run(t, o, "transfer", other.Name)
	_, err := c.WaitAgreed(bounded(t, 20*time.Second), other.Name)
	must(t, err)
	waitRouter(t, other, "V", "to respect it as well", func(v api.VirtualRouter) bool { return v.State == "backup" && v.Entitled })
	if names, err := c.Holders(vip4); err != nil || len(names) != 0 {
		t.Errorf("the address is on %v too, %v", names, err)
	}
	if k.masterships("V") != 1 {
		t.Errorf("keepalived was not left alone:\n%s", k.proc.Output())
	}
	k.stop(t)
	owner(t, c, other)
	waitRouter(t, other, "V", "master", inState("master"))
}

// TestHybridContinues: whatever becomes of the Raft owner, a keepalived of lower
// priority sees one master all the time.
func TestHybridContinues(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, rivals: 1})
	k := rivals(t, c)[0]
	in := hybridV(150)
	in.AdvertInt = "2" // longer than a Raft owner is missed
	configureAll(t, c, in)
	must(t, c.Found(bounded(t, 60*time.Second)))
	o := owner(t, c, nil)
	in.Priority = 50
	k.start(t, in)
	w := listenVRRP(t, c)

	// quiet judges what has happened so far.
	quiet := func(after string) {
		t.Helper()
		if n := k.masterships("V"); n != 0 {
			t.Fatalf("after %s: keepalived became master:\n%s\n%v", after, k.proc.Output(), w.adverts())
		}
	}
	speaks := func(n *Node) {
		t.Helper()
		testnet.MustWait(t, 10*time.Second, n.Name+" to advertise", func() error {
			all := w.adverts()
			if len(all) == 0 || all[len(all)-1].from != n.Host.Addr4(testnet.Front).String() {
				return fmt.Errorf("%v", all)
			}
			return nil
		})
	}
	speaks(o)

	next := c.Others(o)[0]
	run(t, o, "transfer", next.Name)
	owner(t, c, next)
	speaks(next)
	quiet("transfer")

	dead := next
	must(t, dead.Kill())
	o = nextOwner(t, c, dead)
	_, err := c.Lab.WaitOwner(bounded(t, 20*time.Second), vip4, o.Host) // the dead one's is silent
	must(t, err)
	speaks(o)
	quiet("kill -9")
	must(t, dead.Start())
	must(t, c.WaitFormed(bounded(t, 20*time.Second)))

	_, err = o.Stop()
	must(t, err)
	stopped := o
	o = nextOwner(t, c, stopped)
	must(t, c.WaitHeldBy(bounded(t, 10*time.Second), o, vip4))
	speaks(o)
	quiet("SIGTERM")
	must(t, stopped.Start())
	must(t, c.WaitFormed(bounded(t, 20*time.Second)))
	// The operator's choice is over with a restart; let the best one have it.
	o = owner(t, c, nil)
	if from := w.resigned(); len(from) != 0 {
		t.Errorf("a hand-over was told as a resignation: %v", from)
	}

	must(t, c.Lab.Isolate(o.Host))
	othersOwner(t, c, o)
	quiet("isolation")
	must(t, c.Lab.Heal())
	must(t, c.WaitFormed(bounded(t, 20*time.Second)))
	o = owner(t, c, nil)

	must(t, o.Daemon().Stop())
	othersOwner(t, c, o)
	must(t, o.Daemon().Cont())
	must(t, c.WaitFormed(bounded(t, 20*time.Second)))
	o = owner(t, c, nil)
	speaks(o)
	quiet("SIGSTOP")

	// It heard the cluster all the time: when that ends, it takes over.
	for _, n := range c.Nodes {
		must(t, n.Daemon().Term())
	}
	k.owns(t, vip4)
}

// othersOwner waits until another node than n, which does not answer its operator,
// owns and answers.
func othersOwner(t *testing.T, c *Cluster, n *Node) {
	t.Helper()
	rest := &Cluster{Lab: c.Lab, Nodes: c.Others(n)}
	o := nextOwner(t, rest, n)
	_, err := c.Lab.WaitOwner(bounded(t, 20*time.Second), vip4, o.Host)
	must(t, err)
}

// TestHybridNoQuorum: an owner without a majority says that it leaves, and
// keepalived takes over at once; when the majority is back, so is the owner.
func TestHybridNoQuorum(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, rivals: 1})
	k := rivals(t, c)[0]
	in := hybridV(150)
	in.AdvertInt = "2" // without priority 0 it would take over after six seconds
	configureAll(t, c, in)
	must(t, c.Found(bounded(t, 60*time.Second)))
	o := owner(t, c, nil)
	in.Priority = 100
	k.start(t, in)
	w := listenVRRP(t, c)
	for _, n := range c.Others(o) {
		must(t, n.Kill())
	}
	k.owns(t, vip4)
	w.waitResigned(t, o)
	if has, err := o.Host.Has(vip4); err != nil || has {
		t.Errorf("the address is on %s yet: %v", o.Name, err)
	}
	for _, n := range c.Others(o) {
		must(t, n.Start())
	}
	must(t, c.WaitFormed(bounded(t, 20*time.Second)))
	owner(t, c, nil)
}

// TestHybridLastNode: a cluster that is shut down says so.
func TestHybridLastNode(t *testing.T) {
	c := newCluster(t, setup{nodes: 1, rivals: 1})
	k := rivals(t, c)[0]
	in := hybridV(150)
	in.AdvertInt = "2"
	configureAll(t, c, in)
	must(t, c.Found(bounded(t, 60*time.Second)))
	o := owner(t, c, nil)
	in.Priority = 100
	k.start(t, in)
	w := listenVRRP(t, c)
	_, err := o.Stop()
	must(t, err)
	k.owns(t, vip4)
	w.waitResigned(t, o)
}

// TestHybridInstances: one instance's loss of VRRP mastership does not touch
// another, nor one without VRRP.
func TestHybridInstances(t *testing.T) {
	other, plain := netip.MustParseAddr("10.99.0.101"), netip.MustParseAddr("10.99.0.102")
	c := newCluster(t, setup{nodes: 2, rivals: 1, vips: []netip.Addr{vip4, other, plain}})
	k := rivals(t, c)[0]
	second := Instance{Name: "W", VRID: 52, Priority: 150, VIPs: []netip.Addr{other}, VRRP: "hybrid"}
	third := Instance{Name: "X", VRID: 53, Priority: 150, VIPs: []netip.Addr{plain}}
	configureAll(t, c, hybridV(150), second, third)
	must(t, c.Found(bounded(t, 60*time.Second)))
	o := owner(t, c, nil)
	for _, a := range []netip.Addr{other, plain} {
		must(t, c.WaitHeldBy(bounded(t, 10*time.Second), o, a))
	}
	before := len(o.Daemon().Output())
	k.start(t, hybridV(200), Instance{Name: "W", VRID: 52, Priority: 50, VIPs: []netip.Addr{other}})
	k.owns(t, vip4)
	testnet.MustWait(t, 10*time.Second, "the address to go", func() error {
		if has, err := o.Host.Has(vip4); err != nil || has {
			return fmt.Errorf("still there: %v", err)
		}
		return nil
	})
	waitRouter(t, o, "W", "still master", inState("master"))
	for _, a := range []netip.Addr{other, plain} {
		must(t, c.WaitHeldBy(bounded(t, 10*time.Second), o, a))
	}
	if k.masterships("W") != 0 {
		t.Errorf("keepalived became master of W:\n%s", k.proc.Output())
	}
	after := o.Daemon().Output()[before:]
	// A machine that stalls for the length of a lease touches all of them.
	if strings.Count(after, "addresses removed") != 1 && !strings.Contains(after, "not owner any more") {
		t.Errorf("more than one address was touched:\n%s", after)
	}
	// All of them move together all the same.
	next := c.Others(o)[0]
	run(t, o, "transfer", next.Name)
	for _, a := range []netip.Addr{other, plain} {
		must(t, c.WaitHeldBy(bounded(t, 10*time.Second), next, a))
	}
	k.stop(t)
	for _, a := range []netip.Addr{vip4, other, plain} {
		must(t, c.WaitHeldBy(bounded(t, 10*time.Second), next, a))
	}
	if k.masterships("W") != 0 {
		t.Errorf("keepalived became master of W:\n%s", k.proc.Output())
	}
}

// TestHybridWithoutFile: a node whose file does not have the instance cannot own
// it: it would not speak.
func TestHybridWithoutFile(t *testing.T) {
	c := newCluster(t, setup{nodes: 2})
	configure(t, c.Nodes[0], 0, hybridV(150))
	must(t, c.Nodes[0].Host.Do(func() error { return nil }))
	ctx := bounded(t, 60*time.Second)
	r, err := c.Nodes[0].Must(ctx, "init", "--name", c.Nodes[0].Name)
	must(t, err)
	must(t, c.Nodes[0].Start())
	must(t, c.Nodes[0].WaitServing(ctx))
	must(t, c.Nodes[1].Join(ctx, get[Ticket](t)(TicketFrom(r.Stdout))))
	must(t, c.Nodes[1].Start())
	_, err = c.WaitAgreed(bounded(t, 20*time.Second), c.Nodes[0].Name, func(st api.Status) error {
		for _, n := range st.Nodes {
			if n.Name == c.Nodes[1].Name && (n.Eligible || !strings.Contains(n.Why, "this node's file does not have it with vrrp hybrid")) {
				return fmt.Errorf("%s is eligible: %s", n.Name, n.Why)
			}
		}
		return nil
	})
	must(t, err)
	owner(t, c, c.Nodes[0])
	fails(t, c.Nodes[0], 1, []string{"cannot take over"}, "transfer", c.Nodes[1].Name)
}

// TestHybridIPv6: the same with IPv6, to unicast peers, on virtual MAC interfaces.
func TestHybridIPv6(t *testing.T) {
	vip6 := netip.MustParseAddr("fd00:99::100")
	c := newCluster(t, setup{nodes: 2, rivals: 1, vips: []netip.Addr{vip6}})
	k := rivals(t, c)[0]
	in := Instance{Name: "V", VRID: 51, Priority: 150, VIPs: []netip.Addr{vip6}, VRRP: "hybrid"}
	peers := func(self *testnet.Host) []string {
		lines := []string{"unicast_src_ip " + self.Addr6(testnet.Front).String(), "unicast_peer {"}
		for _, h := range c.Lab.Nodes() {
			if h != self {
				lines = append(lines, h.Addr6(testnet.Front).String())
			}
		}
		return append(lines, "}")
	}
	for i, n := range c.Nodes {
		in.More = peers(n.Host)
		configure(t, n, i, in)
	}
	must(t, c.Found(bounded(t, 60*time.Second)))
	o, err := c.WaitAgreed(bounded(t, 20*time.Second), "")
	must(t, err)
	must(t, c.WaitHeldBy(bounded(t, 20*time.Second), o, vip6))
	next := c.Others(o)[0]
	run(t, o, "transfer", next.Name)
	must(t, c.WaitHeldBy(bounded(t, 20*time.Second), next, vip6))
	in.Priority, in.More = 200, peers(k.host)
	k.start(t, in)
	k.owns(t, vip6)
	waitRouter(t, next, "V", "to respect it", func(v api.VirtualRouter) bool { return v.State == "backup" && v.Entitled && len(v.Problems) == 0 })
	k.stop(t)
	must(t, c.WaitHeldBy(bounded(t, 20*time.Second), next, vip6))
}

// TestHybridVMAC: the addresses are on an interface with the virtual MAC address,
// which is there on every node and has them on one.
func TestHybridVMAC(t *testing.T) {
	c := newCluster(t, setup{nodes: 2})
	in := hybridV(150)
	in.More = []string{"use_vmac"}
	configureAll(t, c, in)
	must(t, c.Found(bounded(t, 60*time.Second)))
	o := owner(t, c, nil)
	mac := func() error {
		if names, err := c.Lab.Owners(vip4); err != nil || len(names) != 1 || names[0] != "00:00:5e:00:01:33" {
			return fmt.Errorf("%v answer, %v", names, err)
		}
		return nil
	}
	for _, n := range []*Node{c.Others(o)[0], o} {
		testnet.MustWait(t, 10*time.Second, "an answer from the virtual MAC", mac)
		run(t, n, "transfer", n.Name)
		owner(t, c, n)
		if out := exec1(t, n.Host, "ip", "-o", "address", "show", "dev", "vrrp.51"); !strings.Contains(out, vip4.String()) {
			t.Errorf("it is not on vrrp.51: %s", out)
		}
	}
	testnet.MustWait(t, 10*time.Second, "an answer from the virtual MAC", mac)
}

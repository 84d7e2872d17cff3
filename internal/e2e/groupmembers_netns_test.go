package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// runsGroups waits until the node says that it takes part in these groups, and no others.
func runsGroups(t *testing.T, n *Node, names ...string) {
	t.Helper()
	testnet.MustWait(t, 20*time.Second, fmt.Sprintf("%s in groups %v", n.Name, names), func() error {
		st, err := n.Status(t.Context())
		if err != nil {
			return err
		}
		var got []string
		for _, g := range st.Groups {
			got = append(got, g.Name)
		}
		if slices.Sort(got); !slices.Equal(got, names) {
			return fmt.Errorf("it is in %v", got)
		}
		return nil
	})
}

// TestGroupsChangeWhileANodeIsAway: groups are made and removed, and one is made anew by
// the same name, while a node is dead. It comes back into those that there are; a copy of
// what it had before is refused.
func TestGroupsChangeWhileANodeIsAway(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, vips: groupVIPs})
	a := groupInstance{name: "a", vips: groupVIPs[:1], best: []int{0, 1, 2}}
	b := groupInstance{name: "b", vips: groupVIPs[1:2], best: []int{2, 1, 0}}
	d := groupInstance{name: "d", vips: groupVIPs[2:3], best: []int{1, 0, 2}}
	e := groupInstance{name: "e", vips: groupVIPs[3:4], best: []int{2, 0, 1}}
	must(t, c.separate(slowHeartbeat, a, b, d))
	must(t, c.Begin(bounded(t, 60*time.Second)))
	n0, n1, away := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	ownersNow(t, c, map[string]string{"a": n0.Name, "b": away.Name, "d": n1.Name})

	must(t, away.Kill())
	old := away.Dir + "/old"
	copyData(t, away.DataDir, old)
	ownersNow(t, c, map[string]string{"a": n0.Name, "b": n1.Name, "d": n1.Name})
	reload := func(ins ...groupInstance) {
		t.Helper()
		must(t, c.separate(slowHeartbeat, ins...))
		run(t, n0, "reload")
	}
	reload(a, d, e)
	ownersNow(t, c, map[string]string{"a": n0.Name, "d": n1.Name, "e": n0.Name})
	reload(b, e)
	ownersNow(t, c, map[string]string{"b": n1.Name, "e": n0.Name})
	reload(a, b, e)
	ownersNow(t, c, map[string]string{"a": n0.Name, "b": n1.Name, "e": n0.Name})

	must(t, away.Start())
	best := map[string]string{"a": n0.Name, "b": away.Name, "e": away.Name}
	ownersNow(t, c, best)
	for _, n := range c.Nodes {
		runsGroups(t, n, "a", "b", "e")
	}
	answers(t, c, groupVIPs[0], n0)
	answers(t, c, groupVIPs[1], away)
	answers(t, c, groupVIPs[3], away)

	// One of the others is away while it is led by the one that was.
	must(t, n0.Kill())
	ownersNow(t, c, map[string]string{"a": n1.Name, "b": away.Name, "e": away.Name})
	must(t, n0.Start())
	ownersNow(t, c, best)

	must(t, away.Kill())
	copyData(t, old, away.DataDir)
	must(t, away.Start())
	for _, n := range c.Nodes {
		testnet.MustWait(t, 30*time.Second, n.Name+" says that the node went back", sees(n, identity.FindingBack))
	}
	ownersOf(t, c, []*Node{n0, n1}, map[string]string{"a": n0.Name, "b": n1.Name, "e": n0.Name})
	answers(t, c, groupVIPs[1], n1)
	testnet.MustWait(t, 20*time.Second, "it is written down", func() error {
		_, err := os.Stat(filepath.Join(away.DataDir, "void.json"))
		return err
	})
	must(t, away.Kill())
	must(t, away.Start())
	ends(t, away, "older than what its node has acknowledged", "--replace")
}

// ownersOf waits until these nodes agree on the owners of groups, whoever votes there.
func ownersOf(t *testing.T, c *Cluster, nodes []*Node, want map[string]string) {
	t.Helper()
	testnet.MustWait(t, 40*time.Second, fmt.Sprintf("owners %v", want), func() error {
		for _, n := range nodes {
			st, err := n.Status(t.Context())
			if err != nil {
				return err
			}
			for _, g := range st.Groups {
				if w, ok := want[g.Name]; len(st.Groups) != len(want) || !ok || w != "" && g.Owner != w || g.Owner == "" {
					return fmt.Errorf("%s: owner of %s is %q: %s", n.Name, g.Name, g.Owner, g.Why)
				}
			}
		}
		return nil
	})
}

// sixteen are instances spread over three nodes.
func sixteen() (ins []groupInstance, vips []netip.Addr) {
	for i := range 16 {
		a := netip.AddrFrom4([4]byte{10, 99, 0, byte(100 + i)})
		vips = append(vips, a)
		ins = append(ins, groupInstance{name: fmt.Sprintf("g%02d", i), vips: []netip.Addr{a}, best: []int{i % 3, (i + 1 + i/3%2) % 3}})
	}
	return ins, vips
}

// TestSixteenGroups: a node joins and leaves, one is drained, one is removed, and all are
// started again at once, with sixteen groups spread over them.
func TestSixteenGroups(t *testing.T) {
	ins, vips := sixteen()
	c := newCluster(t, setup{nodes: 4, vips: vips})
	must(t, c.separate(slowHeartbeat, ins...))
	spare := c.Nodes[3]
	c.Nodes = c.Nodes[:3]
	must(t, c.Begin(bounded(t, 60*time.Second)))
	best := map[string]string{}
	for i, in := range ins {
		best[in.name] = c.Nodes[i%3].Name
	}
	began := time.Now()
	step := func(what string) {
		t.Helper()
		t.Logf("%s: %s", what, time.Since(began).Round(10*time.Millisecond))
		began = time.Now()
	}
	serving := func(nodes ...*Node) {
		t.Helper()
		for i, a := range vips {
			if len(nodes) > 0 {
				answers(t, c, a, nodes...)
			} else {
				answers(t, c, a, c.Node(best[ins[i].name]))
			}
		}
	}
	ownersNow(t, c, best)
	serving()
	step("formed")

	var token api.Token
	must(t, c.Nodes[0].JSON(t.Context(), &token, "token", "create"))
	ticket := get[Ticket](t)(TicketFrom(token.Join))
	must(t, spare.Join(bounded(t, 30*time.Second), ticket))
	must(t, spare.Start())
	c.Nodes = append(c.Nodes, spare)
	ownersNow(t, c, best)
	step("a node has joined")

	run(t, c.Nodes[0], "transfer", "-g", "g00", spare.Name)
	run(t, c.Nodes[0], "transfer", "-g", "g01", spare.Name)
	run(t, spare, "leave")
	c.Nodes = c.Nodes[:3]
	ownersNow(t, c, best)
	serving()
	step("it has left")

	drained := c.Nodes[2]
	run(t, c.Nodes[0], "drain", drained.Name)
	testnet.MustWait(t, 40*time.Second, "the drained node to own nothing", func() error {
		st, err := c.Nodes[0].Status(t.Context())
		if err != nil {
			return err
		}
		for _, g := range st.Groups {
			if g.Owner == drained.Name || g.Owner == "" {
				return fmt.Errorf("%s is owned by %q", g.Name, g.Owner)
			}
		}
		return nil
	})
	serving(c.Nodes[0], c.Nodes[1])
	step("a node is drained")
	run(t, c.Nodes[0], "undrain", drained.Name)
	ownersNow(t, c, best)
	step("and owns again")

	for _, n := range c.Nodes {
		must(t, n.Kill())
	}
	for _, n := range c.Nodes {
		must(t, n.Start())
	}
	ownersNow(t, c, best)
	serving()
	step("all were killed and started")

	// A node that is dead is removed, and joins anew.
	dead := c.Nodes[2]
	must(t, dead.Kill())
	c.Nodes = c.Nodes[:2]
	testnet.MustWait(t, 20*time.Second, "removal", func() error {
		_, err := c.Nodes[0].Must(t.Context(), "node", "remove", dead.Name)
		return err
	})
	rest := map[string]string{}
	for name := range best {
		rest[name] = ""
	}
	ownersNow(t, c, rest)
	serving(c.Nodes...)
	step("a dead node is removed")
	must(t, os.RemoveAll(dead.DataDir))
	must(t, c.Nodes[0].JSON(t.Context(), &token, "token", "create"))
	must(t, dead.Join(bounded(t, 30*time.Second), get[Ticket](t)(TicketFrom(token.Join))))
	must(t, dead.Start())
	c.Nodes = append(c.Nodes, dead)
	ownersNow(t, c, best)
	serving()
	step("it has joined anew")
}

// TestHeartbeatOfFourGroups: the timeout is changed in large steps while four groups have
// owners, and one of them is lost in that moment.
func TestHeartbeatOfFourGroups(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, vips: groupVIPs})
	var ins []groupInstance
	usual := map[string]string{}
	for i, name := range []string{"a", "b", "c", "d"} {
		ins = append(ins, groupInstance{name: name, vips: groupVIPs[i : i+1], best: []int{i % 3, (i + 1) % 3}})
		usual[name] = c.Nodes[i%3].Name
	}
	timeout := func(ms int) {
		t.Helper()
		must(t, c.separate(fmt.Sprintf("heartbeat_timeout %dms", ms), ins...))
		run(t, c.Nodes[1], "reload")
	}
	settled := func(ms int) {
		t.Helper()
		testnet.MustWait(t, 40*time.Second, "the new timeout everywhere", func() error {
			for _, n := range c.Nodes {
				st, err := n.Status(t.Context())
				if err == nil && int(st.Cluster.HeartbeatTimeout*1000) != ms {
					err = fmt.Errorf("%s: %v s", n.Name, st.Cluster.HeartbeatTimeout)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, c.separate("heartbeat_timeout 500ms", ins...))
	must(t, c.Begin(bounded(t, 60*time.Second)))
	ownersNow(t, c, usual)
	for _, ms := range []int{3000, 400, 2000} {
		timeout(ms)
		settled(ms)
		ownersNow(t, c, usual)
	}
	// Up and down while an owner of two groups is lost.
	for _, f := range []struct {
		ms       int
		do, undo func() error
	}{
		{4000, func() error { return c.Lab.Isolate(c.Nodes[0].Host) }, c.Lab.Heal},
		{500, func() error { return c.Nodes[0].Daemon().Stop() }, func() error { return c.Nodes[0].Daemon().Cont() }},
		{2500, c.Nodes[0].Kill, func() error { return c.Nodes[0].Start() }},
	} {
		timeout(f.ms)
		must(t, f.do())
		answers(t, c, groupVIPs[0], c.Nodes[1], c.Nodes[2])
		answers(t, c, groupVIPs[3], c.Nodes[1], c.Nodes[2])
		must(t, f.undo())
		settled(f.ms)
		ownersNow(t, c, usual)
		for i, a := range groupVIPs {
			answers(t, c, a, c.Node(usual[ins[i].name]))
		}
	}
}

// TestVRRPBesideGroups: an instance with a group of its own goes on, whatever becomes of a
// hybrid one and of one with VRRP alone beside it.
func TestVRRPBesideGroups(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, rivals: 1, vips: groupVIPs[:2]})
	k := rivals(t, c)[0]
	v := Instance{Name: "V", VRID: 51, Priority: 150, VIPs: groupVIPs[:1], VRRP: "hybrid"}
	w := Instance{Name: "W", VRID: 61, Priority: 150, VIPs: groupVIPs[2:3], VRRP: "only"}
	for k, n := range c.Nodes {
		v, w := v, w
		v.Priority, w.Priority = v.Priority-k, w.Priority-(k+1)%3
		a := fmt.Sprintf("vrrp_instance a {\n interface eth0\n virtual_router_id 71\n priority %d\n virtual_ipaddress {\n %v/24\n }\n}\n", 100+(k+1)%3, groupVIPs[1])
		n.Config = get[string](t)(n.WriteFile("raftvip.conf", "raft {\n ownership separate\n heartbeat_timeout 2s\n}\n"+Confs(v, w)+a))
	}
	must(t, c.Begin(bounded(t, 60*time.Second)))
	n0, n1, n2 := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	usual := map[string]string{"V": n0.Name, "a": n1.Name}
	ownersNow(t, c, usual)
	waitRouter(t, n0, "V", "master", inState("master"))
	only := func(n *Node) {
		t.Helper()
		waitRouter(t, n, "W", "master", inState("master"))
		answers(t, c, groupVIPs[2], n)
	}
	answers(t, c, groupVIPs[0], n0)
	answers(t, c, groupVIPs[1], n1)
	only(n2)

	rival := v
	rival.Priority = 200
	k.start(t, rival)
	k.owns(t, groupVIPs[0])
	waitRouter(t, n0, "V", "to respect the better master", func(r api.VirtualRouter) bool { return r.State == "backup" && r.Entitled && !r.Up })
	answers(t, c, groupVIPs[1], n1)
	only(n2)
	run(t, n0, "transfer", "-g", "V", n1.Name)
	ownersNow(t, c, map[string]string{"V": n1.Name, "a": n1.Name})
	k.stop(t)
	answers(t, c, groupVIPs[0], n1)
	run(t, n0, "transfer", "-g", "V", n0.Name)
	ownersNow(t, c, usual)
	answers(t, c, groupVIPs[0], n0)

	must(t, n0.Kill())
	answers(t, c, groupVIPs[0], n1, n2)
	answers(t, c, groupVIPs[1], n1)
	only(n2)
	must(t, n0.Start())
	ownersNow(t, c, usual)
	must(t, n2.Kill())
	only(n0)
	answers(t, c, groupVIPs[0], n0)
	answers(t, c, groupVIPs[1], n1)
	must(t, n2.Start())
	ownersNow(t, c, usual)
	only(n2)
}

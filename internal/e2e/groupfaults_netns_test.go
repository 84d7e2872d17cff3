package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// A groupInstance is an instance with an ownership group of its own.
type groupInstance struct {
	name string
	vips []netip.Addr
	// best are the indexes of the nodes that are to own it, in order.
	best []int
	// checked: each node has a check of it.
	checked bool
}

// check is the file that a node's check of an instance looks for: the check fails once it
// is there.
func (in groupInstance) check(n *Node) string { return filepath.Join(n.Dir, in.name+".bad") }

// separate writes the files of all nodes: these instances, and further lines of the raft
// section.
func (c *Cluster) separate(raft string, ins ...groupInstance) error {
	for k, n := range c.Nodes {
		var b strings.Builder
		fmt.Fprintf(&b, "global_defs {\n    script_user root\n}\nraft {\n    ownership separate\n    %s\n}\n", raft)
		for i, in := range ins {
			priority := 100
			for rank, best := range in.best {
				if best == k {
					priority = 200 - 20*rank
				}
			}
			track := ""
			if in.checked {
				fmt.Fprintf(&b, "vrrp_script chk_%s {\n    script \"/usr/bin/test ! -e %s\"\n    interval 1\n    fall 1\n    rise 1\n}\n", in.name, in.check(n))
				track = "    track_script {\n        chk_" + in.name + "\n    }\n"
			}
			fmt.Fprintf(&b, "vrrp_instance %s {\n    interface eth0\n    virtual_router_id %d\n    priority %d\n%s    virtual_ipaddress {\n", in.name, 51+i, priority, track)
			for _, a := range in.vips {
				fmt.Fprintf(&b, "        %v/24\n", a)
			}
			b.WriteString("    }\n}\n")
		}
		path, err := n.WriteFile("raftvip.conf", b.String())
		if err != nil {
			return err
		}
		n.Config = path
	}
	return nil
}

// answers waits until one of these nodes, and no other, answers for the address.
func answers(t *testing.T, c *Cluster, a netip.Addr, some ...*Node) {
	t.Helper()
	var hosts []*testnet.Host
	for _, n := range some {
		hosts = append(hosts, n.Host)
	}
	_, err := c.Lab.WaitOwner(bounded(t, 40*time.Second), a, hosts...)
	must(t, err)
}

// ownersNow waits until all running nodes agree on the owners of these groups.
func ownersNow(t *testing.T, c *Cluster, want map[string]string) map[string]*Node {
	t.Helper()
	return get[map[string]*Node](t)(c.WaitOwners(bounded(t, 40*time.Second), len(c.Nodes), want))
}

// place moves a group to a node, unless it is there.
func place(t *testing.T, c *Cluster, group string, to *Node) {
	t.Helper()
	testnet.MustWait(t, 20*time.Second, group+" on "+to.Name, func() error {
		r, err := to.Run(t.Context(), "transfer", "-g", group, to.Name)
		if err == nil && r.Code != 0 && !strings.Contains(r.Stderr, "leads already") && !strings.Contains(r.Stderr, "owns already") {
			err = errors.New(r.String())
		}
		return err
	})
}

// parts of a test in which an address moves from a to b.
type parts struct {
	c *Cluster
	// x is the address that moves; a and b have one each that stays.
	x, a, b netip.Addr
	// leader leads the default group, from owns a and to owns b.
	leader, from, to *Node
}

// inB has x in b, or in a, in the files of all nodes.
func (p *parts) inB(t *testing.T, raft string, b bool) {
	t.Helper()
	lists := [][]netip.Addr{{p.a}, {p.b}}
	lists[btoi(b)] = append(lists[btoi(b)], p.x)
	must(t, p.c.separate(raft, groupInstance{name: "a", vips: lists[0]}, groupInstance{name: "b", vips: lists[1]}))
}

const slowHeartbeat = "heartbeat_timeout 2s"

// apart has the default group led by one node, and a and b owned by others.
func (p *parts) apart(t *testing.T) {
	t.Helper()
	both := map[string]string{"a": "", "b": ""}
	ownersNow(t, p.c, both)
	testnet.MustWait(t, 20*time.Second, "a leader of the default group", func() error {
		if p.leader = p.c.Node(status(t, p.c.Nodes[0]).Cluster.Leader); p.leader == nil {
			return errors.New("there is none")
		}
		return nil
	})
	rest := p.c.Others(p.leader)
	p.from, p.to = rest[0], rest[1]
	place(t, p.c, "a", p.from)
	place(t, p.c, "b", p.to)
	ownersNow(t, p.c, map[string]string{"a": p.from.Name, "b": p.to.Name})
	if now := status(t, p.c.Nodes[0]).Cluster.Leader; now != p.leader.Name {
		t.Fatalf("%s led the default group, and now %s does", p.leader.Name, now)
	}
}

// TestAddressMovesBetweenGroups: an address is taken from one group and given to another
// while the owner of the first one is well, cut off, frozen, or has not heard of it. At no
// time two answer for it (the prober judges that), and in the end the new owner does.
func TestAddressMovesBetweenGroups(t *testing.T) {
	start := func(t *testing.T) *parts {
		c := newCluster(t, setup{nodes: 3, vips: groupVIPs[:3]})
		p := &parts{c: c, a: groupVIPs[0], b: groupVIPs[1], x: groupVIPs[2]}
		p.inB(t, slowHeartbeat, false)
		must(t, c.Begin(bounded(t, 60*time.Second)))
		p.apart(t)
		answers(t, c, p.x, p.from)
		return p
	}
	t.Run("well", func(t *testing.T) {
		p := start(t)
		for i := range 6 {
			p.inB(t, slowHeartbeat, i%2 == 0)
			run(t, p.leader, "reload")
			answers(t, p.c, p.x, []*Node{p.to, p.from}[i%2])
		}
		ownersNow(t, p.c, map[string]string{"a": p.from.Name, "b": p.to.Name})
	})
	t.Run("cut off", func(t *testing.T) {
		p := start(t)
		p.inB(t, slowHeartbeat, true)
		must(t, p.c.Lab.Split([]*testnet.Host{p.from.Host}, []*testnet.Host{p.leader.Host, p.to.Host}))
		run(t, p.leader, "reload") // while the lease still runs
		answers(t, p.c, p.x, p.to)
		must(t, p.c.Lab.Heal())
		ownersNow(t, p.c, map[string]string{"a": "", "b": p.to.Name})
		answers(t, p.c, p.x, p.to)
	})
	t.Run("frozen", func(t *testing.T) {
		p := start(t)
		p.inB(t, slowHeartbeat, true)
		must(t, p.from.Daemon().Stop())
		run(t, p.leader, "reload")
		answers(t, p.c, p.x, p.to)
		must(t, p.from.Daemon().Cont())
		ownersNow(t, p.c, map[string]string{"a": "", "b": p.to.Name})
		answers(t, p.c, p.x, p.to)
	})
	// The owner of a hears a majority, and not the leader of the default group: it knows
	// nothing of the change, and its lease goes on.
	t.Run("behind", func(t *testing.T) {
		p := start(t)
		p.inB(t, slowHeartbeat, true)
		must(t, p.c.Lab.CutBoth(p.from.Host, p.leader.Host))
		run(t, p.leader, "reload")
		time.Sleep(5 * time.Second) // P1 is judged over all of it
		owner := get[*testnet.Host](t)(p.c.Lab.WaitOwner(bounded(t, 20*time.Second), p.x))
		st := status(t, p.leader)
		if owner == p.from.Host && st.Cluster.Leader == p.leader.Name && !hasWarning(st, p.x.String()+": group b is to have it, and group a has not given it up yet") {
			t.Errorf("status does not say where the address is: %q", st.Warnings)
		}
		must(t, p.c.Lab.Heal())
		ownersNow(t, p.c, map[string]string{"a": "", "b": ""})
		got := ownersNow(t, p.c, map[string]string{"a": "", "b": ""})
		answers(t, p.c, p.x, got["b"])
	})
	// a has given the address away when a node becomes its owner that has not heard of it.
	t.Run("behind, and owner later", func(t *testing.T) {
		p := start(t)
		place(t, p.c, "a", p.to)
		place(t, p.c, "b", p.leader)
		ownersNow(t, p.c, map[string]string{"a": p.to.Name, "b": p.leader.Name})
		must(t, p.c.Lab.CutBoth(p.from.Host, p.leader.Host))
		p.inB(t, slowHeartbeat, true)
		run(t, p.leader, "reload")
		answers(t, p.c, p.x, p.leader)
		testnet.MustWait(t, 20*time.Second, "a on the node that has not heard of it", func() error {
			_, err := p.to.Must(t.Context(), "transfer", "-g", "a", p.from.Name)
			return err
		})
		answers(t, p.c, p.a, p.from)
		time.Sleep(5 * time.Second) // P1 is judged over all of it
		answers(t, p.c, p.x, p.leader)
		must(t, p.c.Lab.Heal())
		ownersNow(t, p.c, map[string]string{"a": "", "b": ""})
		answers(t, p.c, p.x, p.leader)
	})
}

// movesOf are the entries of a group's history, as this node has it.
func movesOf(ctx context.Context, n *Node, group string) ([]api.Move, error) {
	var moves []api.Move
	err := n.JSON(ctx, &moves, "history", "-g", group)
	return moves, err
}

// TestFaultsWithFourGroups: whatever happens to a node moves its own groups, and no other.
func TestFaultsWithFourGroups(t *testing.T) {
	ins := []groupInstance{
		{name: "a", checked: true, vips: groupVIPs[:1], best: []int{0, 1, 2}},
		{name: "b", checked: true, vips: groupVIPs[1:2], best: []int{1, 2, 0}},
		{name: "c", checked: true, vips: groupVIPs[2:3], best: []int{2, 0, 1}},
		{name: "d", checked: true, vips: groupVIPs[3:4], best: []int{0, 2, 1}},
	}
	one := func(c *Cluster) ([]*testnet.Host, []*testnet.Host) {
		return []*testnet.Host{c.Nodes[0].Host}, []*testnet.Host{c.Nodes[1].Host, c.Nodes[2].Host}
	}
	heal := func(c *Cluster) error { return c.Lab.Heal() }
	faults := []struct {
		name     string
		peers    bool
		do, undo func(c *Cluster) error
	}{
		{"kill", false, func(c *Cluster) error { return c.Nodes[0].Kill() }, func(c *Cluster) error { return c.Nodes[0].Start() }},
		{"freeze", false, func(c *Cluster) error { return c.Nodes[0].Daemon().Stop() }, func(c *Cluster) error { return c.Nodes[0].Daemon().Cont() }},
		{"isolate", false, func(c *Cluster) error { return c.Lab.Isolate(c.Nodes[0].Host) }, heal},
		{"cut-out", false, func(c *Cluster) error {
			h, others := one(c)
			return errors.Join(c.Lab.Cut(h[0], others[0]), c.Lab.Cut(h[0], others[1]))
		}, heal},
		{"cut-in", false, func(c *Cluster) error {
			h, others := one(c)
			return errors.Join(c.Lab.Cut(others[0], h[0]), c.Lab.Cut(others[1], h[0]))
		}, heal},
		{"cut-peers", true, func(c *Cluster) error {
			h, others := one(c)
			return c.Lab.Split(h, others, testnet.Peer)
		}, heal},
	}
	for _, peers := range []bool{false, true} {
		t.Run(map[bool]string{false: "one network", true: "peer network"}[peers], func(t *testing.T) {
			c := newCluster(t, setup{nodes: 3, vips: groupVIPs, peerNetwork: peers})
			raft := slowHeartbeat
			must(t, c.separate(raft, ins...))
			if peers {
				for _, n := range c.Nodes {
					n.RunArgs = nil
					text := string(get[[]byte](t)(os.ReadFile(n.Config)))
					text = strings.Replace(text, "ownership separate", fmt.Sprintf("ownership separate\n    listen %v:7355\n    advertise %[1]v:7355", n.Host.Addr4(testnet.Peer)), 1)
					n.Config = get[string](t)(n.WriteFile("raftvip.conf", text))
				}
			}
			must(t, c.Begin(bounded(t, 60*time.Second)))
			n0, n1, n2 := c.Nodes[0], c.Nodes[1], c.Nodes[2]
			usual := map[string]string{"a": n0.Name, "b": n1.Name, "c": n2.Name, "d": n0.Name}
			ownersNow(t, c, usual)
			for _, f := range faults {
				if f.peers != peers {
					continue
				}
				b, d := get[[]api.Move](t)(movesOf(t.Context(), n1, "b")), get[[]api.Move](t)(movesOf(t.Context(), n1, "c"))
				must(t, f.do(c))
				// A take that a busy machine holds up is given to the third node.
				answers(t, c, groupVIPs[0], n1, n2)
				answers(t, c, groupVIPs[3], n1, n2)
				must(t, f.undo(c))
				ownersNow(t, c, usual)
				for i, a := range groupVIPs {
					answers(t, c, a, c.Node(usual[ins[i].name]))
				}
				for group, before := range map[string][]api.Move{"b": b, "c": d} {
					if now := get[[]api.Move](t)(movesOf(t.Context(), n1, group)); len(now) != len(before) {
						t.Errorf("%s moved group %s: %+v", f.name, group, now[len(before):])
					}
				}
			}
			if peers {
				return
			}
			// A check that fails moves its group alone.
			counts := map[string]int{}
			for _, in := range ins {
				counts[in.name] = len(get[[]api.Move](t)(movesOf(t.Context(), n1, in.name)))
			}
			must(t, os.WriteFile(ins[0].check(n0), nil, 0o600))
			ownersNow(t, c, map[string]string{"a": n1.Name, "b": n1.Name, "c": n2.Name, "d": n0.Name})
			moves := get[[]api.Move](t)(movesOf(t.Context(), n1, "a"))
			if m := moves[len(moves)-1]; !strings.Contains(m.Reason, "chk_a") {
				t.Errorf("history of a does not name the check: %+v", m)
			}
			must(t, os.Remove(ins[0].check(n0)))
			ownersNow(t, c, usual)
			for _, group := range []string{"b", "c", "d"} {
				if now := get[[]api.Move](t)(movesOf(t.Context(), n1, group)); len(now) != counts[group] {
					t.Errorf("the check of a moved group %s: %+v", group, now[counts[group]:])
				}
			}
		})
	}
}

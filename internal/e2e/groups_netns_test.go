package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
)

// groupVIPs are the addresses of the instances that separateFile makes.
var groupVIPs = []netip.Addr{vip4, netip.MustParseAddr("10.99.0.101"), netip.MustParseAddr("10.99.0.102"), netip.MustParseAddr("10.99.0.103")}

// separateFile is a node's file: instances a, b, c and so on with an address each, and a
// priority of the node for each.
func separateFile(ownership string, priorities ...int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "raft {\n    ownership %s\n}\n", ownership)
	for i, p := range priorities {
		fmt.Fprintf(&b, "vrrp_instance %c {\n    interface eth0\n    virtual_router_id %d\n    priority %d\n    virtual_ipaddress {\n        %v/24\n    }\n}\n",
			'a'+i, 51+i, p, groupVIPs[i])
	}
	return b.String()
}

// TestSeparateOwners: each instance has an owner of its own, the best node for it; an
// owner that dies gives away its own only; together and back move nothing at the moment of
// change.
func TestSeparateOwners(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, vips: groupVIPs[:3]})
	ctx := bounded(t, 150*time.Second)
	write := func(ownership string, best ...int) {
		t.Helper()
		for k, n := range c.Nodes {
			var priorities []int
			for _, b := range best {
				priorities = append(priorities, 100+50*btoi(b == k)+10*btoi((b+1)%3 == k))
			}
			n.Config = get[string](t)(n.WriteFile("raftvip.conf", separateFile(ownership, priorities...)))
		}
	}
	write("separate", 0, 1, 2)
	must(t, c.Begin(ctx))
	best := map[string]string{"a": c.Nodes[0].Name, "b": c.Nodes[1].Name, "c": c.Nodes[2].Name}
	owners := get[map[string]*Node](t)(c.WaitOwners(ctx, 3, best))
	for i, name := range []string{"a", "b", "c"} {
		get[*testnet.Host](t)(c.Lab.WaitOwner(ctx, groupVIPs[i], owners[name].Host))
	}
	fails(t, c.Nodes[0], 1, []string{"3 groups", "-g", "a, b, c"}, "transfer")

	term := func(name string) uint64 {
		for _, g := range status(t, c.Nodes[0]).Groups {
			if g.Name == name {
				return g.Term
			}
		}
		return 0
	}
	// A group moves alone, and stays where it was moved.
	before := term("a")
	run(t, c.Nodes[1], "transfer", "-g", "a", c.Nodes[2].Name)
	get[map[string]*Node](t)(c.WaitOwners(ctx, 3, map[string]string{"a": c.Nodes[2].Name, "b": best["b"], "c": best["c"]}))
	run(t, c.Nodes[1], "transfer", "--group", "a", c.Nodes[0].Name)
	get[map[string]*Node](t)(c.WaitOwners(ctx, 3, best))
	if now := term("a"); now < before+2 {
		t.Errorf("a has had two owners since, and its term is %d, which was %d", now, before)
	}
	if out := run(t, c.Nodes[0], "history", "-g", "a"); strings.Count(out, "requested with raftvip transfer") != 2 {
		t.Errorf("history of a:\n%s", out)
	}

	// An owner dies: what it had goes to the second best, the rest stays.
	dead := owners["b"]
	must(t, dead.Kill())
	get[map[string]*Node](t)(c.WaitOwners(ctx, 3, map[string]string{"a": best["a"], "b": c.Nodes[2].Name, "c": best["c"]}))
	get[*testnet.Host](t)(c.Lab.WaitOwner(ctx, groupVIPs[1], c.Nodes[2].Host))
	must(t, dead.Start())
	get[map[string]*Node](t)(c.WaitOwners(ctx, 3, best))

	// drain empties a node of all its groups.
	run(t, c.Nodes[0], "drain", c.Nodes[2].Name)
	get[map[string]*Node](t)(c.WaitOwners(ctx, 3, map[string]string{"a": best["a"], "b": best["b"], "c": c.Nodes[0].Name}))
	run(t, c.Nodes[0], "undrain", c.Nodes[2].Name)
	get[map[string]*Node](t)(c.WaitOwners(ctx, 3, best))

	// Together, and separate again, on the running cluster.
	client := get[*testnet.Client](t)(c.Lab.Client(0).StartClient(testnet.ClientOptions{VIP: groupVIPs[0]}))
	write("together", 0, 1, 2)
	for _, n := range c.Nodes {
		run(t, n, "reload")
	}
	one := get[*Node](t)(c.WaitAgreed(ctx, ""))
	for _, vip := range groupVIPs[:3] {
		get[*testnet.Host](t)(c.Lab.WaitOwner(ctx, vip, one.Host))
	}
	write("separate", 0, 1, 2)
	for _, n := range c.Nodes {
		run(t, n, "reload")
	}
	get[map[string]*Node](t)(c.WaitOwners(ctx, 3, best))
	for i, name := range []string{"a", "b", "c"} {
		get[*testnet.Host](t)(c.Lab.WaitOwner(ctx, groupVIPs[i], c.Node(best[name]).Host))
	}
	if _, ok := client.Answering(); !ok {
		t.Error("the client is not answered any more")
	}

	// All at once.
	for _, n := range c.Nodes {
		must(t, n.Kill())
	}
	for _, n := range c.Nodes {
		must(t, n.Start())
	}
	get[map[string]*Node](t)(c.WaitOwners(ctx, 3, best))
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestActiveActive: two balancers, an address each, and a witness.
func TestActiveActive(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, names: []string{"lb1", "lb2", "tie"}, vips: groupVIPs[:2]})
	ctx := bounded(t, 90*time.Second)
	lb1, lb2, tie := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	must(t, tie.GiveTo(65534))
	for k, n := range []*Node{lb1, lb2} {
		n.Config = get[string](t)(n.WriteFile("raftvip.conf", separateFile("separate", 150-50*k, 100+50*k)))
	}
	r := get[Result](t)(lb1.Must(ctx, "init", "--name", "lb1"))
	ticket := get[Ticket](t)(TicketFrom(r.Stdout))
	must(t, lb1.Start())
	must(t, lb1.WaitServing(ctx))
	must(t, lb2.Join(ctx, ticket))
	must(t, lb2.Start())
	must(t, tie.Join(ctx, ticket, "--witness"))
	must(t, tie.Start())
	both := map[string]string{"a": "lb1", "b": "lb2"}
	get[map[string]*Node](t)(c.WaitOwners(ctx, 3, both))
	must(t, lb1.Kill())
	get[map[string]*Node](t)(c.WaitOwners(ctx, 3, map[string]string{"a": "lb2", "b": "lb2"}))
	for _, vip := range groupVIPs[:2] {
		get[*testnet.Host](t)(c.Lab.WaitOwner(ctx, vip, lb2.Host))
	}
	if names := get[[]string](t)(c.Holders(groupVIPs[0])); !slices.Contains(names, "lb1") {
		t.Log("the dead node's kernel lost the address before")
	}
	must(t, lb1.Start())
	get[map[string]*Node](t)(c.WaitOwners(ctx, 3, both))
	must(t, tie.Kill())
	get[map[string]*Node](t)(c.WaitOwners(ctx, 3, both))
}

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

func onlyV(priority int, more ...string) Instance {
	return Instance{Name: "V", VRID: 51, Priority: priority, VIPs: []netip.Addr{vip4}, VRRP: "only", More: more}
}

// startOnly starts daemons that have no cluster.
func startOnly(t *testing.T, all ...*Node) {
	t.Helper()
	for _, n := range all {
		must(t, n.Start())
		must(t, n.WaitServing(t.Context()))
	}
}

// masterOnly waits until this node alone answers for the address, and says so.
func masterOnly(t *testing.T, c *Cluster, n *Node) {
	t.Helper()
	_, err := c.Lab.WaitOwner(bounded(t, 20*time.Second), vip4, n.Host)
	must(t, err)
	waitRouter(t, n, "V", "master", func(v api.VirtualRouter) bool {
		return v.State == "master" && v.Up && len(v.Addresses) == 1 && v.Addresses[0].State == "present"
	})
}

// TestVRRPOnlyPair: two nodes, no cluster and no third machine.
func TestVRRPOnlyPair(t *testing.T) {
	c := newCluster(t, setup{nodes: 2, unjudged: true})
	a, b := c.Nodes[0], c.Nodes[1]
	configureAll(t, c, onlyV(150))
	startOnly(t, a, b)
	masterOnly(t, c, a)
	waitRouter(t, b, "V", "backup", func(v api.VirtualRouter) bool {
		return v.State == "backup" && v.Master != nil && v.Master.Address == a.Host.Addr4(testnet.Front)
	})
	st := status(t, b)
	if !st.Standalone || !strings.Contains(strings.Join(st.Warnings, "\n"), "P1 does not hold") || st.Guard.Kind != "off" {
		t.Errorf("status does not say what it is: %+v", st)
	}
	for _, says := range []string{"cluster   none", "P1 does not hold", "priority 149 = 149", "vanish after 30s"} {
		if text := run(t, b, "status"); !strings.Contains(text, says) {
			t.Errorf("status lacks %q:\n%s", says, text)
		}
	}
	fails(t, a, exitNoQuorum, []string{"this daemon has no cluster"}, "transfer")
	// A dead daemon's address is to vanish.
	if out := exec1(t, a.Host, "ip", "-o", "address", "show", "to", vip4.String()); !strings.Contains(out, "valid_lft 2") && !strings.Contains(out, "valid_lft 30sec") {
		t.Errorf("the address has no lifetime of at most 30 s: %s", out)
	}

	w := listenVRRP(t, c)
	_, err := a.Stop()
	must(t, err)
	masterOnly(t, c, b)
	w.waitResigned(t, a)

	startOnly(t, a) // it has the higher priority
	masterOnly(t, c, a)
	must(t, a.Kill())
	waitRouter(t, b, "V", "master", inState("master"))
	// With the old one back there is one again.
	startOnly(t, a)
	masterOnly(t, c, a)
}

// exitNoQuorum is the exit code of a command that needs a leader.
const exitNoQuorum = 4

// TestVRRPOnlyChecks: weights, faults, nopreempt and reload as in keepalived.
func TestVRRPOnlyChecks(t *testing.T) {
	c := newCluster(t, setup{nodes: 2, unjudged: true})
	a, b := c.Nodes[0], c.Nodes[1]
	check := func(n *Node, weight string) string {
		return fmt.Sprintf("vrrp_script ok {\n script \"/usr/bin/test ! -e %s/bad\"\n interval 0.1\n user root\n%s\n}\n", n.Dir, weight)
	}
	write := func(n *Node, in Instance, weight string) {
		in.More = append(in.More, "track_script {\n ok\n }")
		n.Config = get[string](t)(n.WriteFile("raftvip.conf", check(n, weight)+in.Conf()))
	}
	fail := func(n *Node) { t.Helper(); get[string](t)(n.WriteFile("bad", "")) }
	pass := func(n *Node) { t.Helper(); exec1(t, n.Host, "rm", n.Dir+"/bad") }
	write(a, onlyV(150), "")
	write(b, onlyV(140), "weight -20")
	startOnly(t, a, b)
	masterOnly(t, c, a)

	fail(a) // weight 0: a fault
	masterOnly(t, c, b)
	waitRouter(t, a, "V", "in fault", func(v api.VirtualRouter) bool { return v.State == "fault" && strings.Contains(v.Why, "script ok") })
	pass(a)
	masterOnly(t, c, a)

	// b: 140, or 120 while its check fails; a is reloaded with 130 between the two.
	fail(b)
	waitRouter(t, b, "V", "of lower priority", func(v api.VirtualRouter) bool { return v.Priority == 120 })
	write(a, onlyV(130), "")
	run(t, a, "reload")
	masterOnly(t, c, a)
	pass(b)
	masterOnly(t, c, b)

	// nopreempt leaves it there.
	write(a, onlyV(200, "nopreempt"), "")
	run(t, a, "reload")
	waitRouter(t, a, "V", "backup with a higher priority", func(v api.VirtualRouter) bool { return v.State == "backup" && v.Priority == 200 })
	masterOnly(t, c, b)
	_, err := b.Stop()
	must(t, err)
	masterOnly(t, c, a)

	// A file that is not for a daemon without a cluster changes nothing.
	in := onlyV(200)
	in.VRRP = "hybrid"
	write(a, in, "")
	fails(t, a, 1, []string{"this daemon has no cluster"}, "reload")
	masterOnly(t, c, a)

	// An address more, without a break of the first.
	second := netip.MustParseAddr("10.99.0.101")
	in = onlyV(200, "nopreempt")
	in.VIPs = append(in.VIPs, second)
	write(a, in, "")
	changes := func() int { return strings.Count(a.Daemon().Output(), "VRRP state changed") }
	before := changes()
	run(t, a, "reload")
	_, err = c.Lab.WaitOwner(bounded(t, 10*time.Second), second, a.Host)
	must(t, err)
	if after := changes(); after != before {
		t.Errorf("the reload of another address changed the state:\n%s", a.Daemon().Output())
	}
}

// TestVRRPOnlyBesideKeepalived: both versions and authentication, with keepalived
// as master and as backup.
func TestVRRPOnlyBesideKeepalived(t *testing.T) {
	for name, more := range map[string]Instance{
		"version 2 with a password": {Version: 2, AdvertInt: "1", More: []string{"authentication {", "auth_type PASS", "auth_pass swordfish", "}"}},
		"version 3, unicast":        {Version: 3},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, setup{nodes: 1, rivals: 1, unjudged: true})
			n, k := c.Nodes[0], rivals(t, c)[0]
			in := onlyV(100)
			in.Version, in.AdvertInt, in.More = more.Version, more.AdvertInt, more.More
			theirs := in
			if len(more.More) == 0 {
				in.More = []string{"unicast_peer {", k.host.Addr4(testnet.Front).String(), "}"}
				theirs.More = []string{"unicast_peer {", n.Host.Addr4(testnet.Front).String(), "}"}
			}
			configure(t, n, 0, in)
			startOnly(t, n)
			masterOnly(t, c, n)
			theirs.Priority = 150
			k.start(t, theirs)
			k.owns(t, vip4)
			waitRouter(t, n, "V", "backup", inState("backup"))
			k.stop(t)
			masterOnly(t, c, n)
			theirs.Priority = 50
			k.start(t, theirs)
			masterOnly(t, c, n)
			_, err := n.Stop()
			must(t, err)
			k.owns(t, vip4)
			startOnly(t, n)
			masterOnly(t, c, n)
			if problems := status(t, n).VRRP[0].Problems; len(problems) != 0 {
				t.Errorf("problems where there are none: %+v", problems)
			}
		})
	}
}

// TestVRRPOnlyInCluster: such an instance beside those of a cluster goes its own
// way, and never takes what is the cluster's.
func TestVRRPOnlyInCluster(t *testing.T) {
	own := netip.MustParseAddr("10.99.0.101")
	c := newCluster(t, setup{nodes: 2})
	alone := Instance{Name: "P", VRID: 60, VIPs: []netip.Addr{own}, VRRP: "only"}
	cluster := Instance{Name: "V", VRID: 51, VIPs: []netip.Addr{vip4}}
	for i, n := range c.Nodes {
		// Who is better differs.
		alone.Priority, cluster.Priority = 100+i, 200-i
		n.Config = get[string](t)(n.WriteFile("raftvip.conf", patient+Confs(alone, cluster)))
	}
	must(t, c.Found(bounded(t, 60*time.Second)))
	a, b := c.Nodes[0], c.Nodes[1]
	owner(t, c, a, arithmetic(a.Name, "200 = 200"), arithmetic(b.Name, "199 = 199"))
	must(t, c.WaitHeldBy(bounded(t, 20*time.Second), b, own))
	waitRouter(t, b, "P", "master", inState("master"))
	st := status(t, a)
	if len(st.Groups[0].Addresses) != 1 || !strings.Contains(strings.Join(st.Warnings, "\n"), "P1 does not hold") {
		t.Errorf("%+v", st)
	}
	// The cluster gets the address: the router lets go, and says why.
	run(t, a, "vip", "add", "--force", own.String()+"/24@eth0")
	waitRouter(t, b, "P", "in fault", func(v api.VirtualRouter) bool {
		return v.State == "fault" && strings.Contains(v.Why, "the cluster has address "+own.String())
	})
	must(t, c.WaitHeldBy(bounded(t, 20*time.Second), a, own))
}

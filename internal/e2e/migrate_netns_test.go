package e2e

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// TestMigration is docs/migration.md, step by step: a keepalived pair becomes a
// raftvip cluster, and a keepalived pair again. A client prints what it noticed.
func TestMigration(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, names: []string{"lb1", "lb2", "third"}, unjudged: true})
	lb1, lb2, third := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	k1, k2 := &rival{host: lb1.Host, lab: c.Lab}, &rival{host: lb2.Host, lab: c.Lab}
	instance := func(priority int, vrrp string) Instance {
		return Instance{Name: "VI_1", VRID: 51, Priority: priority, AdvertInt: "1", Version: 2, VRRP: vrrp,
			VIPs: []netip.Addr{vip4}, More: []string{"authentication {", "auth_type PASS", "auth_pass secret", "}"}}
	}
	file := func(n *Node, priority int, vrrp string) {
		n.Config = get[string](t)(n.WriteFile("raftvip.conf", patient+instance(priority, vrrp).Conf()))
	}
	on := func(n *Node) {
		t.Helper()
		_, err := c.Lab.WaitOwner(bounded(t, 30*time.Second), vip4, n.Host)
		must(t, err)
	}

	// What is there: a pair, lb1 is master.
	k1.start(t, instance(150, ""))
	on(lb1)
	k2.start(t, instance(100, ""))
	client, err := c.Lab.Client(0).StartClient(testnet.ClientOptions{VIP: vip4})
	must(t, err)
	testnet.MustWait(t, 10*time.Second, "the client to be answered", func() error {
		if _, ok := client.Answering(); !ok {
			return errors.New("no answer")
		}
		return nil
	})

	// 1: lb2's keepalived, a backup, is replaced.
	client.Mark("1: keepalived on lb2 stopped")
	k2.stop(t)
	on(lb1)
	client.Mark("2: raftvip on lb2 and the third machine, ready behind keepalived")
	file(lb2, 140, "hybrid")
	r, err := lb2.Must(t.Context(), "init", "--name", "lb2")
	must(t, err)
	ticket := get[Ticket](t)(TicketFrom(r.Stdout))
	must(t, lb2.Start())
	must(t, lb2.WaitServing(t.Context()))
	must(t, third.Join(bounded(t, 20*time.Second), ticket, "--witness"))
	must(t, third.Start())
	waitRouter(t, lb2, "VI_1", "ready behind keepalived", func(v api.VirtualRouter) bool {
		return v.State == "backup" && v.Entitled && v.Master != nil && v.Master.Priority == 150 && len(v.Problems) == 0
	})
	on(lb1)
	client.Mark("3: priority of lb2 raised: the address moves to raftvip")
	file(lb2, 160, "hybrid")
	run(t, lb2, "reload")
	on(lb2)
	client.Mark("4: keepalived on lb1 stopped, raftvip joins there")
	k1.stop(t)
	file(lb1, 150, "hybrid")
	must(t, lb1.Join(bounded(t, 20*time.Second), ticket))
	must(t, lb1.Start())
	pair := func(owner *Node) {
		t.Helper()
		must(t, c.WaitFormed(bounded(t, 30*time.Second)))
		_, err := c.WaitAgreed(bounded(t, 20*time.Second), owner.Name)
		must(t, err)
		must(t, c.WaitHeldBy(bounded(t, 10*time.Second), owner, vip4))
	}
	pair(lb2)

	client.Mark("5: VRRP off on both")
	judge, err := c.Lab.StartProber(testnet.ProberOptions{VIPs: []netip.Addr{vip4}})
	must(t, err)
	for _, n := range []*Node{lb2, lb1} {
		file(n, map[*Node]int{lb1: 150, lb2: 160}[n], "")
		run(t, n, "reload")
	}
	pair(lb2)
	for _, n := range []*Node{lb1, lb2} {
		if st := status(t, n); len(st.VRRP) != 0 || len(st.Config.Drift) != 0 {
			t.Errorf("%s still speaks VRRP, or differs from the cluster: %+v %v", n.Name, st.VRRP, st.Config.Drift)
		}
	}
	client.Mark("6: pure raftvip: a transfer there and back")
	run(t, lb2, "transfer", "lb1")
	pair(lb1)
	run(t, lb1, "transfer", "lb2")
	pair(lb2)

	// And back.
	client.Mark("7: back: VRRP on again on both")
	for _, n := range []*Node{lb2, lb1} {
		file(n, map[*Node]int{lb1: 150, lb2: 160}[n], "hybrid")
		run(t, n, "reload")
	}
	pair(lb2)
	waitRouter(t, lb2, "VI_1", "master", inState("master"))
	client.Mark("8: raftvip on lb1 leaves, keepalived is back there as backup")
	run(t, lb1, "leave")
	ended(t, lb1)
	judge.Stop()
	testnet.MustHoldP1(t, judge)
	k1.start(t, instance(150, ""))
	on(lb2)
	client.Mark("9: priority of lb2 lowered: the address moves to keepalived")
	file(lb2, 100, "hybrid")
	run(t, lb2, "reload")
	on(lb1)
	client.Mark("10: raftvip on lb2 stopped, keepalived is back there")
	_, err = lb2.Stop()
	must(t, err)
	_, err = third.Stop()
	must(t, err)
	k2.start(t, instance(100, ""))
	on(lb1)
	if k1.masterships("VI_1") != 2 || k2.masterships("VI_1") != 0 {
		t.Errorf("lb1 became master %d times, should be twice; lb2 %d times, should be never", k1.masterships("VI_1"), k2.masterships("VI_1"))
	}
	client.Stop()
	for _, o := range client.Outages(0) {
		t.Logf("client: %v", o)
	}
	t.Logf("client: longest gap %v", client.Gap())
}

// ended waits until a daemon that was told to end has ended well.
func ended(t *testing.T, n *Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	select {
	case <-n.Daemon().Done():
	case <-ctx.Done():
		t.Fatalf("%s has not ended: %s", n.Name, n.Daemon().Tail(1000))
	}
	if strings.Contains(n.Daemon().Output(), "panic") {
		t.Error(n.Daemon().Output())
	}
}

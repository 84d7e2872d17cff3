package e2e

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// TestThreeNodes is the main job: init, join, join, and every node tells the same.
// besides returns the warnings that are not among others: what the guard warns of may be
// the test machine's own, such as its clock source.
func besides(warnings, others []string) []string {
	return slices.DeleteFunc(slices.Clone(warnings), func(w string) bool { return slices.Contains(others, w) })
}

func TestThreeNodes(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	o := owner(t, c, nil)
	m := lastMove(t, c, o)
	if m.Reason == "" {
		t.Error("the first move has no reason")
	}
	states := map[string]string{}
	for _, n := range c.Nodes {
		st := status(t, n)
		if st.API != api.Version || st.Node.Name != n.Name || st.Cluster.Tolerates != 1 || len(st.Nodes) != 3 || len(besides(st.Warnings, st.Guard.Warnings)) != 0 {
			t.Errorf("status on %s: %+v", n.Name, st)
		}
		if g := st.Groups[0]; g.Why == "" || len(g.Addresses) != 1 || g.Addresses[0].Link != "eth0" {
			t.Errorf("group on %s: %+v", n.Name, g)
		}
		states[n.Name] = st.Groups[0].State + " " + st.Groups[0].Addresses[0].State
		if text := run(t, n, "status"); !strings.Contains(text, "owner     "+o.Name) || !strings.Contains(text, vip4.String()) {
			t.Errorf("status as text on %s:\n%s", n.Name, text)
		}
		run(t, n, "history")
		run(t, n, "vip", "list")
		run(t, n, "node", "list")
	}
	for name, s := range states {
		want := "standby absent"
		if name == o.Name {
			want = "owner present"
		}
		if s != want {
			t.Errorf("%s says of itself %q, want %q", name, s, want)
		}
	}
	sameEverywhere(t, c)

	// What one node adds all have, and it is up; likewise what is deleted.
	second := c.Lab.VIP4(101)
	run(t, c.Others(o)[0], "vip", "add", second.String()+"/24@eth0")
	must(t, c.WaitHeldBy(bounded(t, 5*time.Second), o, second))
	sameEverywhere(t, c)
	run(t, c.Others(o)[1], "vip", "del", second.String())
	testnet.MustWait(t, 5*time.Second, "deletion", func() error {
		if names, err := c.Holders(second); err != nil || len(names) != 0 {
			return fmt.Errorf("on %v, %v", names, err)
		}
		return nil
	})
	sameEverywhere(t, c)
}

// sameEverywhere waits until vip list, node list and history are the same on all
// nodes, apart from the ages of reports.
func sameEverywhere(t *testing.T, c *Cluster) {
	t.Helper()
	read := func(n *Node) ([]any, error) {
		var vips []api.VIP
		var nodes []api.Node
		var moves []api.Move
		for what, into := range map[string]any{"vip list": &vips, "node list": &nodes, "history": &moves} {
			if err := n.JSON(t.Context(), into, strings.Fields(what)...); err != nil {
				return nil, err
			}
		}
		for i := range nodes {
			nodes[i].ReportAge, nodes[i].ClockOffset, nodes[i].Checks = 0, 0, nil
		}
		return []any{vips, nodes, moves}, nil
	}
	testnet.MustWait(t, 10*time.Second, "all nodes to tell the same", func() error {
		want, err := read(c.Nodes[0])
		if err != nil {
			return err
		}
		for _, n := range c.Nodes[1:] {
			got, err := read(n)
			if err != nil {
				return err
			}
			if !reflect.DeepEqual(got, want) {
				return fmt.Errorf("%s: %+v\n%s: %+v", c.Nodes[0].Name, want, n.Name, got)
			}
		}
		return nil
	})
}

// TestOnePlainMachine: two commands, and two seconds later the address is owned.
func TestOnePlainMachine(t *testing.T) {
	c := newCluster(t, setup{nodes: 1})
	n := c.Nodes[0]
	r, err := n.Must(t.Context(), "init", "--vip", vip4.String()+"/24@eth0", "--name", n.Name)
	must(t, err)
	if !strings.Contains(r.Stderr, "cannot survive its failure") {
		t.Errorf("init does not say that one node cannot survive a failure:\n%s", r.Stderr)
	}
	control := testnet.StartControl(0)
	defer control.Stop()
	started := time.Now()
	must(t, n.Start())
	_, err = c.Lab.WaitOwner(bounded(t, 10*time.Second), vip4, n.Host)
	must(t, err)
	within(t, "to own", time.Since(started), 2*time.Second, control.Max())
	if st := status(t, n); len(st.Warnings) == 0 || st.Cluster.Tolerates != 0 {
		t.Errorf("status does not say that one node cannot survive a failure: %v", st.Warnings)
	}
}

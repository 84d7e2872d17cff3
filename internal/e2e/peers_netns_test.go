package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/pki"
	"github.com/raftvip/raftvip/internal/testnet"
)

// newPeers gives every node a file with peers, a shared secret and the address;
// nothing runs yet.
func newPeers(t *testing.T) *Cluster {
	t.Helper()
	c := newCluster(t, setup{nodes: 3})
	secret := pki.NewSecret()
	var peers []string
	for _, n := range c.Nodes {
		peers = append(peers, n.Host.Addr4(testnet.Front).String())
	}
	for _, n := range c.Nodes {
		must(t, os.MkdirAll(n.Dir, 0o700))
		file := filepath.Join(n.Dir, "secret")
		must(t, pki.WriteSecretFile(file, secret))
		n.Config = get[string](t)(n.WriteFile("raftvip.conf", fmt.Sprintf(
			"raft {\n node_id %s\n peers %s\n secret_file %s\n}\nvrrp_instance v {\n interface eth0\n virtual_router_id 51\n virtual_ipaddress {\n %v/24\n }\n}\n",
			n.Name, strings.Join(peers, " "), file, vip4)))
	}
	return c
}

func startAll(t *testing.T, c *Cluster, order ...int) {
	t.Helper()
	for _, i := range order {
		must(t, c.Nodes[i].Start())
	}
	for _, n := range c.Nodes {
		must(t, n.WaitServing(t.Context()))
	}
	must(t, c.WaitFormed(bounded(t, 40*time.Second)))
}

func clusterID(t *testing.T, c *Cluster) string {
	t.Helper()
	id := status(t, c.Nodes[0]).Cluster.ID
	for _, n := range c.Nodes {
		if got := status(t, n).Cluster.ID; got != id || got == "" {
			t.Errorf("%s is in cluster %q, %s in %q", c.Nodes[0].Name, id, n.Name, got)
		}
	}
	return id
}

// TestPeers: three daemons and no command make one cluster, which outlives a
// restart of each and of all.
func TestPeers(t *testing.T) {
	c := newPeers(t)
	startAll(t, c, 2, 0, 1)
	owner(t, c, nil)
	id := clusterID(t, c)
	for _, n := range c.Nodes {
		_, err := n.Stop()
		must(t, err)
		must(t, n.Start())
		must(t, n.WaitServing(t.Context()))
		must(t, c.WaitFormed(bounded(t, 20*time.Second)))
	}
	o := owner(t, c, nil)
	moves := get[[]api.Move](t)(o.History(t.Context()))
	for _, n := range c.Nodes {
		must(t, n.Kill()) // as when the power fails
	}
	startAll(t, c, 1, 2, 0)
	o = owner(t, c, nil)
	if got := clusterID(t, c); got != id {
		t.Errorf("cluster %s has become %s", id, got)
	}
	if m := lastMove(t, c, o); m.Seq <= moves[len(moves)-1].Seq {
		t.Errorf("the history has begun anew: %+v after %+v", m, moves)
	}
}

// TestPeersDataDirLost: such a node is another node of the same name, and takes
// the place of the one it was.
func TestPeersDataDirLost(t *testing.T) {
	c := newPeers(t)
	startAll(t, c, 0, 1, 2)
	o := owner(t, c, nil)
	lost := c.Others(o)[0]
	before := status(t, lost)
	must(t, lost.Kill())
	must(t, os.RemoveAll(lost.DataDir))
	must(t, lost.Start())
	must(t, lost.WaitServing(t.Context()))
	must(t, c.WaitFormed(bounded(t, 40*time.Second)))
	owner(t, c, o)
	after := status(t, lost)
	if after.Node.ID == before.Node.ID || after.Cluster.ID != before.Cluster.ID {
		t.Errorf("node %s of cluster %s came back as %s of %s", before.Node.ID, before.Cluster.ID, after.Node.ID, after.Cluster.ID)
	}
	for _, n := range c.Nodes {
		st := status(t, n)
		if len(st.Nodes) != 3 || st.Cluster.Voters != 3 {
			t.Errorf("%s sees %d nodes, %d voters", n.Name, len(st.Nodes), st.Cluster.Voters)
		}
		for _, o := range st.Nodes {
			if o.ID == before.Node.ID {
				t.Errorf("%s still knows %s", n.Name, o.ID)
			}
		}
	}
	run(t, o, "transfer", lost.Name)
	owner(t, c, lost)
}

// TestLogLost: a node without its log may have voted and must not come back.
func TestLogLost(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	o := owner(t, c, nil)
	n := c.Others(o)[0]
	_, err := n.Stop()
	must(t, err)
	must(t, os.RemoveAll(filepath.Join(n.DataDir, "raft")))
	must(t, n.Start())
	ends(t, n, "the Raft log is missing or damaged", n.DataDir, "--replace")
	owner(t, c, o)

	// What the hint says works.
	must(t, os.RemoveAll(n.DataDir))
	var token api.Token
	must(t, o.JSON(t.Context(), &token, "token", "create"))
	must(t, n.Join(bounded(t, 20*time.Second), get[Ticket](t)(TicketFrom(token.Join)), "--replace"))
	must(t, n.Start())
	must(t, c.WaitFormed(bounded(t, 20*time.Second)))
	owner(t, c, o)
}

// TestAddressOfNodeChanged: a node is known by its identity, not by its address.
func TestAddressOfNodeChanged(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	o := owner(t, c, nil)
	n := c.Others(o)[0]
	_, err := n.Stop()
	must(t, err)
	now := netip.MustParseAddr("10.99.0.63")
	exec1(t, n.Host, "ip", "address", "del", n.Host.Addr4(testnet.Front).String()+"/24", "dev", "eth0")
	exec1(t, n.Host, "ip", "address", "add", now.String()+"/24", "dev", "eth0")
	must(t, n.Start())
	must(t, n.WaitServing(t.Context()))
	_, err = c.WaitAgreed(bounded(t, 20*time.Second), o.Name, func(st api.Status) error {
		for _, m := range st.Nodes {
			if m.Name == n.Name && (m.Address != now.String()+":7355" || !m.Alive || m.Role != "voter") {
				return fmt.Errorf("%+v", m)
			}
		}
		if len(st.Nodes) != 3 {
			return fmt.Errorf("%d nodes", len(st.Nodes))
		}
		return nil
	})
	must(t, err)
	testnet.MustWait(t, 10*time.Second, "a move to the node that has moved", func() error {
		_, err := o.Must(t.Context(), "transfer", n.Name)
		return err
	})
	owner(t, c, n)
}

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/pki"
	"github.com/raftvip/raftvip/internal/testnet"
)

// TestPortThatDoesNotForwardYet: the clients' switch has a spanning tree, and Raft is
// on another network. A better node whose link has just come up does not take the
// address before its port forwards. If it is the only one that can, it takes it at
// once, and is heard as soon as its port forwards, though what it announced before was
// swallowed.
func TestPortThatDoesNotForwardYet(t *testing.T) {
	const delay = 3 * time.Second // forwards after twice that, which is later than the second burst
	c := newCluster(t, setup{nodes: 3, peerNetwork: true})
	secret := pki.NewSecret()
	var peers []string
	for _, n := range c.Nodes {
		peers = append(peers, n.Host.Addr4(testnet.Peer).String())
	}
	for i, n := range c.Nodes {
		must(t, os.MkdirAll(n.Dir, 0o700))
		file := filepath.Join(n.Dir, "secret")
		must(t, pki.WriteSecretFile(file, secret))
		n.Config = get[string](t)(n.WriteFile("raftvip.conf", fmt.Sprintf(
			"raft {\n node_id %s\n peers %s\n secret_file %s\n}\nvrrp_instance v {\n interface eth0\n virtual_router_id 51\n priority %d\n virtual_ipaddress {\n %v/24\n }\n}\n",
			n.Name, strings.Join(peers, " "), file, []int{100, 100, 200}[i], vip4)))
	}
	startAll(t, c, 0, 1, 2)
	best := c.Nodes[2]
	owner(t, c, best)
	must(t, c.Lab.SpanningTree(t.Context(), testnet.Front, delay))
	// A client that believes what it has learnt, until it is told otherwise.
	exec1(t, c.Lab.Client(0), "sysctl", "-qw", "net.ipv4.neigh.eth0.base_reachable_time_ms=3600000")
	client := get[*testnet.Client](t)(c.Lab.Client(0).StartClient(testnet.ClientOptions{VIP: vip4}))
	answered := func(what string, within time.Duration) {
		t.Helper()
		before := client.Stats().Answered
		testnet.MustWait(t, within, what, func() error {
			if n := client.Stats().Answered - before; n < 100 {
				return fmt.Errorf("%d answers", n)
			}
			return nil
		})
	}
	answered("answers", 5*time.Second)

	// The better node loses its link, and gets it back.
	must(t, c.Lab.LinkDown(best.Host, testnet.Front))
	o := nextOwner(t, c, best)
	answered("answers of "+o.Name, 5*time.Second)
	up := boottime.Now()
	must(t, c.Lab.LinkUp(best.Host, testnet.Front))
	testnet.MustWait(t, 5*time.Second, "the reason to wait", func() error {
		if why := status(t, o).Groups[0].Why; !strings.Contains(why, "has heard nobody yet on eth0, which has just come up") {
			return errors.New(why)
		}
		return nil
	})
	owner(t, c, best)
	if after := boottime.Now() - up; after < 2*delay {
		t.Errorf("%s has taken over after %v, before its port forwards", best.Name, after)
	}
	answered("answers of "+best.Name, 5*time.Second)
	if gap := client.GapSince(up); gap >= delay {
		t.Errorf("the client was not answered for %v", gap)
	}

	// Now it is the only one that can have the address.
	for _, n := range c.Others(best) {
		must(t, c.Lab.LinkDown(n.Host, testnet.Front))
	}
	testnet.MustWait(t, 10*time.Second, "the others to be in fault", func() error {
		for _, n := range status(t, best).Nodes {
			if n.Name != best.Name && n.Eligible {
				return fmt.Errorf("%s is eligible", n.Name)
			}
		}
		return nil
	})
	must(t, c.Lab.LinkDown(best.Host, testnet.Front))
	testnet.MustWait(t, 10*time.Second, "nobody to own", func() error {
		if g := status(t, c.Nodes[0]).Groups[0]; g.Owner != "" {
			return errors.New(g.Owner)
		}
		return nil
	})
	// What the client's machine and the switch have learnt is of another node.
	exec1(t, c.Lab.Client(0), "ip", "neigh", "replace", vip4.String(), "lladdr", o.Host.MAC(testnet.Front).String(), "nud", "reachable", "dev", "eth0")
	up = boottime.Now()
	must(t, c.Lab.LinkUp(best.Host, testnet.Front))
	owner(t, c, best)
	if after := boottime.Now() - up; after >= 2*delay {
		t.Errorf("%s, the only one, has taken over after %v only", best.Name, after)
	}
	answered("answers after the port forwards", 15*time.Second)
	t.Logf("the client was not answered for %v after the link came up, with a port that forwards after %v", client.GapSince(up), 2*delay)
}

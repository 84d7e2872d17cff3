package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// TestStatusDuringTransfers: no node says that nobody owns while the addresses only
// move. What a node cannot tell it says that it does not know.
func TestStatusDuringTransfers(t *testing.T) {
	c := newFormed(t, setup{nodes: 3})
	now := owner(t, c, nil)
	type tally struct{ polls, nobody, unknown int }
	tallies := make([]tally, len(c.Nodes))
	stop := make(chan struct{})
	var pollers sync.WaitGroup
	for i, n := range c.Nodes {
		pollers.Go(func() {
			client := api.NewClient(n.Socket)
			for {
				select {
				case <-stop:
					return
				default:
				}
				var st api.Status
				if err := client.Call(t.Context(), api.PathStatus, struct{}{}, &st); err != nil {
					t.Errorf("%s: %v", n.Name, err)
					return
				}
				g := st.Groups[0]
				tallies[i].polls++
				time.Sleep(5 * time.Millisecond)
				switch {
				case g.Unknown:
					tallies[i].unknown++
					t.Logf("%s does not know: %s", n.Name, g.Why)
				case g.Owner == "":
					tallies[i].nobody++
					t.Logf("%s says that nobody owns: %s", n.Name, g.Why)
				}
			}
		})
	}
	for i := range 10 {
		to := c.Others(now)[i%2]
		// On a busy machine it may have been elected meanwhile.
		if _, err := now.Must(t.Context(), "transfer", to.Name); err != nil && !strings.Contains(err.Error(), "leads already") {
			t.Error(err)
			break
		}
		now = to
		time.Sleep(200 * time.Millisecond) // polls in the calm are part of the test
	}
	close(stop)
	pollers.Wait()
	for i, a := range tallies {
		t.Logf("%s: %d polls, %d times nobody, %d times not known", c.Nodes[i].Name, a.polls, a.nobody, a.unknown)
		// On a busy machine a move may take longer than an answer waits for its end.
		if a.unknown*10 > a.polls || a.nobody*50 > a.polls {
			t.Errorf("%s: of %d polls %d say nobody, %d that it does not know", c.Nodes[i].Name, a.polls, a.nobody, a.unknown)
		}
	}
}

// exits waits until status has the exit code on all nodes, and says so.
func exits(t *testing.T, c *Cluster, code int, says ...string) {
	t.Helper()
	for _, n := range c.Nodes {
		testnet.MustWait(t, 15*time.Second, fmt.Sprintf("exit code %d on %s", code, n.Name), func() error {
			r, err := n.Run(t.Context(), "status")
			if err == nil && r.Code != code {
				err = fmt.Errorf("%v", r)
			}
			for _, s := range says {
				if err == nil && !strings.Contains(r.Stdout, s) {
					err = fmt.Errorf("%q is not in %v", s, r)
				}
			}
			return err
		})
	}
}

// TestStatusExitCodes: monitoring by exit code sees on every node that nobody owns, that
// an address is down, and that a standby has one that nothing keeps silent. The guard
// is off, so that nothing does.
func TestStatusExitCodes(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, unjudged: true})
	for _, n := range c.Nodes {
		n.Config = get[string](t)(n.WriteFile("raftvip.conf", "raft {\n    guard off\n}\n"))
	}
	must(t, c.Found(bounded(t, 60*time.Second), "--vip", vip4.String()+"/24@eth0"))
	o := owner(t, c, nil)
	exits(t, c, 0)

	standby := c.Others(o)[0]
	must(t, standby.Host.AddAddr(vip4))
	exits(t, c, 7, fmt.Sprintf("%s ANSWERS FOR %v", standby.Name, vip4), "ip address del")
	must(t, standby.Host.DelAddr(vip4))
	exits(t, c, 0)

	// IPv6 is off on all nodes, so that no move helps.
	six := netip.MustParseAddr("fd00:99::100")
	for _, n := range c.Nodes {
		exec1(t, n.Host, "sysctl", "-q", "-w", "net.ipv6.conf.eth0.disable_ipv6=1")
	}
	run(t, o, "vip", "add", six.String()+"/64@eth0", "--force")
	exits(t, c, 8, "owns, but", six.String())
	run(t, o, "vip", "del", six.String())
	exits(t, c, 0)

	for _, n := range c.Nodes {
		run(t, o, "drain", n.Name, "--force")
	}
	exits(t, c, 5, "owner     nobody", "is drained")
	for _, n := range c.Nodes {
		run(t, o, "undrain", n.Name)
	}
	exits(t, c, 0)

	// Two of three are gone: the last one cannot tell what they do.
	for _, n := range c.Others(o) {
		must(t, n.Kill())
	}
	last := &Cluster{Lab: c.Lab, Nodes: []*Node{o}}
	exits(t, last, 4, "owner     not known here", "no quorum: 1 of 3 voters answer")
}

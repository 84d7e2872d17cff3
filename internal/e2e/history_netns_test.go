package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// TestHistoryTells: the gaps of the history are those that a client saw, whoever led
// meanwhile, and a move for a failed check names it.
func TestHistoryTells(t *testing.T) {
	c := newCluster(t, setup{nodes: 3})
	good := func(n *Node) string { return filepath.Join(n.Dir, "good") }
	for i, n := range c.Nodes {
		get[string](t)(n.WriteFile("good", ""))
		n.Config = get[string](t)(n.WriteFile("raftvip.conf", fmt.Sprintf(`global_defs {
    script_user root
}
vrrp_script chk_lb {
    script "/usr/bin/test -e %s"
    interval 1
    weight 6
}
vrrp_instance v {
    interface eth0
    virtual_router_id 51
    priority %d
    track_script {
        chk_lb
    }
    virtual_ipaddress {
        %v/24
    }
}
`, good(n), []int{100, 99, 90}[i], vip4)))
	}
	must(t, c.Found(bounded(t, 60*time.Second)))
	first, second, third := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	owner(t, c, first)
	client := get[*testnet.Client](t)(c.Lab.Client(0).StartClient(testnet.ClientOptions{VIP: vip4}))
	defer client.Stop()
	testnet.MustWait(t, 10*time.Second, "the client to be answered", func() error {
		if _, ok := client.Answering(); !ok {
			return fmt.Errorf("it is not")
		}
		return nil
	})

	mark := client.Mark("check fails")
	must(t, os.Remove(good(first)))
	owner(t, c, second)
	m := lastMove(t, c, second)
	if !strings.Contains(m.Reason, "chk_lb failing: 106 to 100") {
		t.Errorf("history does not name the check: %+v", m)
	}
	truthful(t, m, client, mark)

	// Both others are drained and the owner dies: a drained node leads, and does not
	// own. It hands over to the first that may.
	run(t, first, "drain")
	run(t, third, "drain")
	mark = client.Mark("owner killed")
	must(t, second.Kill())
	testnet.MustWait(t, 20*time.Second, "a leader that does not own", func() error {
		for _, n := range []*Node{first, third} {
			if st := status(t, n); st.Cluster.Leader != "" && st.Cluster.Leader != second.Name {
				return nil
			}
		}
		return fmt.Errorf("no leader")
	})
	time.Sleep(3 * time.Second) // it is the time without an owner that is told
	for _, n := range []*Node{first, third} {
		if st := status(t, n); st.Cluster.Leader != n.Name {
			run(t, n, "undrain")
			next, err := c.WaitAgreed(bounded(t, 20*time.Second), n.Name)
			must(t, err)
			m = lastMove(t, c, next)
			break
		}
	}
	if m.From != second.Name || m.Gap < 3 || !strings.Contains(m.Reason, "led without owning") {
		t.Errorf("history: %+v", m)
	}
	truthful(t, m, client, mark)
}

// truthful judges the gap that the history tells by what a client saw since the mark.
func truthful(t *testing.T, m api.Move, client *testnet.Client, mark time.Duration) {
	t.Helper()
	const slack = 150 * time.Millisecond // of a busy machine, and of the client's own rhythm
	testnet.MustWait(t, 10*time.Second, "the client to be answered again", func() error {
		if ago, ok := client.Answering(); !ok {
			return fmt.Errorf("it is not since %v", ago)
		}
		return nil
	})
	saw := client.GapSince(mark)
	least, most := time.Duration(m.GapLeast*float64(time.Second)), time.Duration(m.Gap*float64(time.Second))
	t.Logf("the client saw a gap of %v, the history says %v to %v: %s", saw, least, most, m.Reason)
	if saw > most+slack || saw < least-slack {
		t.Errorf("the client saw a gap of %v, the history says %v to %v: %+v", saw, least, most, m)
	}
}

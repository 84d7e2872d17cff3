package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/testnet"
)

var errNotYet = errors.New("not yet")

// TestKilledThenCleaned: whatever follows a kill -9 at once, the clean-up that
// systemd runs or a supervisor's restart, clients wait no longer than without it: the
// old kernel goes on answering until its lease ends, and no longer.
func TestKilledThenCleaned(t *testing.T) {
	const heartbeat = 2 * time.Second
	for name, after := range map[string]func(*testing.T, *Node){
		"cleanup": func(t *testing.T, n *Node) {
			if out := run(t, n, "cleanup"); !strings.Contains(out, "removed "+vip4.String()) {
				t.Errorf("cleanup printed %q", out)
			}
		},
		"restart": func(t *testing.T, n *Node) { must(t, n.Start()) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, setup{nodes: 3})
			for _, n := range c.Nodes {
				var err error
				n.Config, err = n.WriteFile("raftvip.conf", "raft {\n    heartbeat_timeout "+heartbeat.String()+"\n}\n")
				must(t, err)
			}
			must(t, c.Found(bounded(t, 60*time.Second), "--vip", vip4.String()+"/24@eth0"))
			client, err := c.Lab.Client(0).StartClient(testnet.ClientOptions{VIP: vip4})
			must(t, err)
			// Cleaned up at once it is nearly all of the timeout, each time. An election that
			// needs a second round, which happens on a busy machine, is not what is looked for.
			for try := 1; ; try++ {
				gap, stall := killed(t, c, client, after)
				if gap > heartbeat/2+stall && try < 3 {
					t.Logf("try %d: %v", try, gap)
					continue
				}
				within(t, "the client's outage", gap, heartbeat/2, stall)
				return
			}
		})
	}
}

// killed kills the owner, and returns the client's outage, and how long the machine stood
// still meanwhile. Afterwards all nodes are there again.
func killed(t *testing.T, c *Cluster, client *testnet.Client, after func(*testing.T, *Node)) (gap, stall time.Duration) {
	t.Helper()
	old := owner(t, c, nil)
	testnet.MustWait(t, 10*time.Second, "the client to be answered", func() error {
		if _, ok := client.Answering(); !ok {
			return errNotYet
		}
		return nil
	})
	control := testnet.StartControl(0)
	defer control.Stop()
	from := boottime.Now()
	must(t, old.Kill())
	after(t, old)
	next := nextOwner(t, c, old)
	_, err := c.Lab.WaitOwner(bounded(t, 10*time.Second), vip4, next.Host)
	must(t, err)
	time.Sleep(50 * time.Millisecond) // answers on their way
	for _, o := range client.Outages(from) {
		gap = max(gap, o.Gap)
	}
	if !old.Running() {
		if get[bool](t)(old.Host.Has(vip4)) {
			t.Error("the address is still on the old owner")
		}
		must(t, old.Start())
	}
	must(t, c.WaitFormed(bounded(t, 20*time.Second)))
	return gap, control.Max()
}

// TestForeignCopyKeepsGuard: an address that cannot be taken off, here as somebody
// else has put it there too, is silenced when the daemon ends, whatever is
// done about it, and becomes the operator's again when it was away.
func TestForeignCopyKeepsGuard(t *testing.T) {
	c := newFormed(t, setup{nodes: 1})
	n := owner(t, c, nil)
	exec1(t, n.Host, "ip", "address", "add", vip4.String()+"/25", "dev", "eth0")
	client, err := c.Lab.Client(0).StartClient(testnet.ClientOptions{VIP: vip4})
	must(t, err)
	answered := func(since time.Duration) bool {
		ago, ok := client.Answering()
		return ok && boottime.Now()-ago > since
	}
	silent := func(when string) {
		t.Helper()
		since := boottime.Now()
		time.Sleep(200 * time.Millisecond)
		if answered(since) {
			t.Errorf("%s: the foreign copy is answered", when)
		}
	}
	before := boottime.Now()
	testnet.MustWait(t, 10*time.Second, "the client to be answered", func() error {
		if !answered(before) {
			return errNotYet
		}
		return nil
	})
	_, err = n.Stop()
	must(t, err)
	if !strings.Contains(kernelState(t, n), vip4.String()+"/25") {
		t.Fatalf("the foreign copy has gone, so that this proves nothing:\n%s", kernelState(t, n))
	}
	silent("stopped")
	fails(t, n, 1, []string{"still on an interface", "ip address del"}, "cleanup")
	silent("after cleanup")
	must(t, n.Start())
	must(t, n.WaitServing(t.Context()))
	must(t, n.Kill())
	time.Sleep(time.Second) // it may have owned: the lease ends
	silent("killed at once")
	fails(t, n, 1, []string{"still on an interface"}, "cleanup")
	silent("after the second cleanup")
	exec1(t, n.Host, "ip", "address", "del", vip4.String()+"/25", "dev", "eth0")
	run(t, n, "cleanup")
	if left := kernelState(t, n); strings.Contains(left, "raftvip") || strings.Contains(left, "clsact") {
		t.Errorf("left:\n%s", left)
	}
	exec1(t, n.Host, "ip", "address", "add", vip4.String()+"/25", "dev", "eth0")
	before = boottime.Now()
	testnet.MustWait(t, 10*time.Second, "the operator's address to be answered", func() error {
		if !answered(before) {
			return errNotYet
		}
		return nil
	})
}

package e2e

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
)

// TestOwnershipChangesWhileAnOwnerIsLost: instances get owners of their own, and one owner
// together again, while the owner of some is cut off or frozen.
func TestOwnershipChangesWhileAnOwnerIsLost(t *testing.T) {
	for _, frozen := range []bool{false, true} {
		t.Run(map[bool]string{false: "cut off", true: "frozen"}[frozen], func(t *testing.T) {
			c := newCluster(t, setup{nodes: 3, vips: groupVIPs[:3]})
			write := func(ownership string) {
				t.Helper()
				for k, n := range c.Nodes {
					text := separateFile(ownership+"\n    "+slowHeartbeat, 100+50*btoi(k == 0), 100+50*btoi(k == 1), 100+50*btoi(k == 2))
					n.Config = get[string](t)(n.WriteFile("raftvip.conf", text))
				}
			}
			// while has a reload done on another node than the one that is lost, beginning while
			// its leases run, and gives it back when all addresses are answered for by others.
			while := func(lost *Node, ownership string) {
				t.Helper()
				rest := c.Others(lost)
				write(ownership)
				if frozen {
					must(t, lost.Daemon().Stop())
				} else {
					must(t, c.Lab.Split([]*testnet.Host{lost.Host}, []*testnet.Host{rest[0].Host, rest[1].Host}))
				}
				testnet.MustWait(t, 30*time.Second, "reload", func() error {
					_, err := rest[0].Must(t.Context(), "reload", "--force")
					return err
				})
				for _, a := range groupVIPs[:3] {
					answers(t, c, a, rest...)
				}
				if frozen {
					must(t, lost.Daemon().Cont())
				} else {
					must(t, c.Lab.Heal())
				}
			}
			write("together")
			must(t, c.Found(bounded(t, 60*time.Second)))
			o := get[*Node](t)(c.WaitAgreed(bounded(t, 40*time.Second), ""))
			answers(t, c, groupVIPs[2], o)
			while(o, "separate")
			best := map[string]string{"a": c.Nodes[0].Name, "b": c.Nodes[1].Name, "c": c.Nodes[2].Name}
			ownersNow(t, c, best)
			while(c.Nodes[1], "together")
			o = get[*Node](t)(c.WaitAgreed(bounded(t, 40*time.Second), ""))
			for _, a := range groupVIPs[:3] {
				answers(t, c, a, o)
			}
			while(o, "separate")
			ownersNow(t, c, best)
		})
	}
}

// TestGroupsUnderChurn: addresses are given from group to group, and groups come and go,
// while nodes are frozen, killed and cut off, at random. P1 is judged over all of it, and in
// the end each address is answered for.
func TestGroupsUnderChurn(t *testing.T) {
	const seconds = 15
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	c := newCluster(t, setup{nodes: 3, vips: groupVIPs})
	names := []string{"a", "b", "c", "d"}
	deal := func() map[string]string {
		var ins []groupInstance
		for i, name := range names {
			ins = append(ins, groupInstance{name: name, best: []int{i % 3, (i + 1) % 3}})
		}
		for _, a := range groupVIPs {
			i := r.IntN(len(ins))
			ins[i].vips = append(ins[i].vips, a)
		}
		ins = slices.DeleteFunc(ins, func(in groupInstance) bool { return len(in.vips) == 0 })
		must(t, c.separate("heartbeat_timeout 1s", ins...))
		owners := make(map[string]string)
		for _, in := range ins {
			owners[in.name] = ""
		}
		return owners
	}
	owners := deal()
	must(t, c.Begin(bounded(t, 60*time.Second)))
	ownersNow(t, c, owners)

	frozen := make(map[*Node]bool)
	repair := func() {
		must(t, c.Lab.Heal())
		for n := range frozen {
			must(t, n.Daemon().Cont())
		}
		clear(frozen)
		for _, n := range c.Nodes {
			if !n.Running() {
				must(t, n.Start())
			}
		}
	}
	for end := time.Now().Add(seconds * time.Second); time.Now().Before(end); {
		n := c.Nodes[r.IntN(3)]
		rest := c.Others(n)
		other := rest[r.IntN(2)]
		switch what := r.IntN(6); {
		case what == 0:
			must(t, c.Lab.Split([]*testnet.Host{n.Host}, []*testnet.Host{rest[0].Host, rest[1].Host}))
		case what == 1:
			must(t, c.Lab.CutBoth(n.Host, other.Host))
		case what == 2 && n.Running() && !frozen[n]:
			must(t, n.Daemon().Stop())
			frozen[n] = true
		case what == 3 && n.Running() && !frozen[n]:
			must(t, n.Kill())
		case what == 4:
			must(t, c.Lab.Cut(n.Host, other.Host))
		}
		owners = deal()
		for _, n := range c.Nodes {
			if n.Running() && !frozen[n] {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				_, _ = n.Run(ctx, "reload", "--force") // it may be on the wrong side of a cut
				cancel()
				break
			}
		}
		time.Sleep(time.Duration(r.IntN(1200)) * time.Millisecond)
		if r.IntN(2) == 0 {
			repair()
		}
	}
	repair()
	testnet.MustWait(t, 60*time.Second, "the newest files in force", func() error {
		_, err := c.Nodes[0].Must(t.Context(), "reload", "--force")
		return err
	})
	ownersNow(t, c, owners)
	for _, a := range groupVIPs {
		answers(t, c, a, c.Nodes...)
	}
}

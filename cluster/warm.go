package cluster

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/tick"
)

const (
	// warmEvery is how often a node uses its connections to each member, warmAgain how
	// soon it tries again where that did not work.
	warmEvery = 30 * time.Second
	warmAgain = time.Second
)

// keepWarm keeps a connection of both kinds to every member open: neither a
// hand-over nor an election is to begin with a handshake, which takes several
// milliseconds. A member that is new, or whose process is, is called at once.
func (n *Node) keepWarm(ctx context.Context) {
	ticks := tick.New(membershipInterval)
	defer ticks.Stop()
	last := make(map[string]warmed)
	for {
		changed := n.Changed()
		cold := coldMembers(n.State().Nodes, n.opts.Identity.NodeID, n.runs(), last, time.Now())
		reached := make([]bool, len(cold))
		var calls sync.WaitGroup
		for i, node := range cold {
			calls.Go(func() {
				_, err := n.hello(ctx, node.Address)
				reached[i] = err == nil && n.warmAll(node)
			})
		}
		calls.Wait()
		for i, node := range cold {
			w := last[node.ID]
			w.reached = reached[i]
			last[node.ID] = w
		}
		select {
		case <-ticks.C:
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// warmAll uses a connection of every group to a member.
func (n *Node) warmAll(node state.NodeRecord) bool {
	reached := true
	for _, g := range n.all() {
		reached = g.Warm(node.ID, node.Address) == nil && reached
	}
	return reached
}

// warmed is the last time that a member was called.
type warmed struct {
	at           time.Time
	address, run string
	reached      bool
}

// coldMembers returns the members that are to be called now, and notes in last that they
// are. runs are their processes, as far as these are known.
func coldMembers(nodes map[string]state.NodeRecord, self string, runs map[string]string, last map[string]warmed, now time.Time) []state.NodeRecord {
	maps.DeleteFunc(last, func(id string, _ warmed) bool { _, ok := nodes[id]; return !ok })
	var cold []state.NodeRecord
	for id, node := range nodes {
		w, called := last[id]
		same := called && w.address == node.Address && w.run == runs[id]
		pause := warmAgain
		if w.reached {
			pause = warmEvery
		}
		if id == self || same && now.Sub(w.at) < pause {
			continue
		}
		last[id] = warmed{at: now, address: node.Address, run: runs[id]}
		cold = append(cold, node)
	}
	return cold
}

// runs are the members' processes, as far as they have reported.
func (n *Node) runs() map[string]string {
	out := make(map[string]string)
	for _, r := range n.reports.all() {
		out[r.NodeID] = r.Run.Boot
	}
	return out
}

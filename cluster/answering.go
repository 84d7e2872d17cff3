package cluster

import (
	"context"
	"sync"
	"time"
)

// answerWithin bounds how long a member may take to say that it is there.
const answerWithin = time.Second

// Answering asks all members at once whether they are there, for a node that has no
// leader to tell it. It returns each one's answer, by node ID, and whether some member
// knows a leader; this node is there.
func (n *Node) Answering(ctx context.Context) (out map[string]bool, led bool) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	self := n.opts.Identity.NodeID
	out = map[string]bool{self: true}
	var mu sync.Mutex
	var asked sync.WaitGroup
	for id, node := range n.State().Nodes {
		if id == self {
			continue
		}
		asked.Go(func() {
			h, err := n.hello(ctx, node.Address)
			mu.Lock()
			defer mu.Unlock()
			out[id] = err == nil && h.NodeID == id
			led = led || out[id] && h.LeaderAddress != ""
		})
	}
	asked.Wait()
	return out, led
}

package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/pki"
)

// formInterval is how often a node without a cluster asks its peers.
const formInterval = 500 * time.Millisecond

// form finds or founds the cluster of the peers in the file. All nodes may start
// at once and in any order. A node founds only when every peer has answered, none
// has a log, all list the same peers, and it is the first of them: so there is
// one founder, and a node that has lost its data dir can never found a second
// cluster while a member of the first one has its log.
func (n *Node) form(ctx context.Context) {
	for {
		done, err := n.formOnce(ctx)
		if done || ctx.Err() != nil {
			return
		}
		n.setPhase("%s", err)
		select {
		case <-time.After(formInterval):
		case <-ctx.Done():
			return
		}
	}
}

type peerHello struct {
	address string
	hello   Hello
	err     error
}

func (n *Node) formOnce(ctx context.Context) (done bool, why error) {
	if n.State().Founded() {
		return true, nil // a leader has found this node first
	}
	peers := slices.Clone(n.opts.Peers)
	slices.Sort(peers)
	hellos := make([]peerHello, len(peers))
	var wg sync.WaitGroup
	for i, address := range peers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			h, err := n.hello(ctx, address)
			hellos[i] = peerHello{address, h, err}
		}()
	}
	wg.Wait()
	for _, p := range hellos {
		if p.err == nil && p.hello.Founded && p.hello.NodeID != n.opts.Identity.NodeID {
			if err := n.joinTrusted(ctx, p.address); err != nil {
				return false, fmt.Errorf("cannot join the cluster of %s: %w", p.hello.Name, err)
			}
			return true, nil
		}
	}
	plan := planForming(n.opts.Identity.NodeID, peers, hellos)
	if !plan.found {
		return false, plan.why
	}
	n.log.Info("founding the cluster", "peers", strings.Join(peers, " "))
	err := n.group.Bootstrap(n.opts.Advertise)
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return false, fmt.Errorf("cannot found the cluster: %w", err)
	}
	n.setPhase("")
	return true, nil
}

type formingPlan struct {
	found bool
	why   error
}

// planForming decides whether this node founds the cluster, from the answers of
// its peers, none of whom has a log.
func planForming(self string, peers []string, hellos []peerHello) formingPlan {
	var silent []string
	first := ""
	me := -1
	for i, p := range hellos {
		switch {
		case p.err != nil:
			silent = append(silent, fmt.Sprintf("%s (%s)", p.address, reason(p.err)))
		case p.hello.NodeID == self:
			me = i
		case !slices.Equal(p.hello.Peers, peers):
			return formingPlan{why: fmt.Errorf("%s lists other peers (%s) than this node (%s): make the lists the same",
				p.hello.Name, strings.Join(p.hello.Peers, " "), strings.Join(peers, " "))}
		}
		if p.err == nil && first == "" && len(silent) == 0 {
			first = p.hello.Name
		}
	}
	switch {
	case len(silent) > 0:
		return formingPlan{why: fmt.Errorf("waiting for all peers before the cluster is founded; missing: %s", strings.Join(silent, ", "))}
	case me < 0:
		return formingPlan{why: errors.New("none of the peers is this node: add its own address to peers")}
	case me > 0:
		return formingPlan{why: fmt.Errorf("waiting for %s to found the cluster", first)}
	}
	return formingPlan{found: true}
}

// reason shortens an error to what an operator has to know.
func reason(err error) string {
	switch {
	case errors.Is(err, pki.ErrOtherCluster):
		return "it has another cluster secret"
	case errors.Is(err, pki.ErrClock):
		return err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer"
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		return text[i+2:]
	}
	return text
}

// joinTrusted asks to be admitted by virtue of the cluster secret.
func (n *Node) joinTrusted(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	id := n.opts.Identity
	var got JoinAnswer
	err := n.client.Call(ctx, address, pathJoin, JoinRequest{
		NodeID: id.NodeID, Name: id.Name, Address: n.opts.Advertise, Witness: id.Witness,
		Replace: true, Clock: time.Now(), Level: state.FeatureLevel,
	}, &got)
	if err != nil {
		return err
	}
	n.persistMu.Lock()
	defer n.persistMu.Unlock()
	cache := store.Cache{Heartbeat: got.Heartbeat}
	for _, node := range got.Nodes {
		if node.ID != id.NodeID {
			cache.Addresses = append(cache.Addresses, node.Address)
		}
	}
	if err := n.opts.DataDir.WriteCache(cache); err != nil {
		return err
	}
	n.persisted.cache = cache
	n.group.SetTiming(0, got.Heartbeat) // any state that this node has is newer
	n.setPhase("")
	n.wake()
	return nil
}

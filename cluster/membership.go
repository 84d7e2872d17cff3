package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/tick"
)

const (
	// membershipInterval is how often the leader compares the members with
	// Raft's configuration when nothing tells it to.
	membershipInterval = time.Second
	// maxClockOffset is how far a newcomer's wall clock may be off. Ownership
	// does not depend on wall clocks; tokens, certificates and the history do.
	maxClockOffset = 5 * time.Minute
	// maxReason bounds the reason of a hand-over in bytes.
	maxReason = 1024
	// reportFresh is the age up to which a report says that a node is alive.
	reportFresh = 3 * reportInterval
)

func (n *Node) reconcileSoon() {
	select {
	case n.members <- struct{}{}:
	default: // a wake-up is pending already
	}
}

// keepMembership makes Raft's configuration follow the list of nodes while this
// node leads: add, move, promote, remove, one change at a time.
func (n *Node) keepMembership(ctx context.Context) {
	ticks := tick.New(membershipInterval)
	defer ticks.Stop()
	var settle settling
	for {
		changed := n.Changed()
		if n.group.Standing().Leading {
			if err := n.reconcile(ctx, &settle); err != nil && ctx.Err() == nil {
				n.log.Warn("cannot bring the membership up to date", "error", err)
			}
		}
		if err := n.reconcileGroups(ctx); err != nil && ctx.Err() == nil && n.waits.News(err.Error(), time.Now()) {
			n.log.Warn("cannot bring a group up to date", "error", err)
		}
		select {
		case <-ticks.C:
		case <-n.members:
		case <-changed:
			// Bursts of changes are one change: several follow one another closely.
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// settling remembers from which version on every voter must have the state
// before a changed heartbeat timeout is the only one.
type settling struct {
	heartbeat state.HeartbeatSetting
	members   []string // by ID
	version   uint64
	// since is when every voter was found to have it, 0 before.
	since time.Duration
}

// begin begins anew with another setting, or other members: one that is removed is not
// asked, so that all others have to know that it is.
func (t *settling) begin(s *state.State) {
	if members := slices.Sorted(maps.Keys(s.Nodes)); t.heartbeat != s.Heartbeat || !slices.Equal(t.members, members) {
		*t = settling{heartbeat: s.Heartbeat, members: members, version: s.Version}
	}
}

func (n *Node) reconcile(ctx context.Context, settle *settling) error {
	s := n.State()
	n.ledFor() // begins to count
	if !s.Founded() {
		return n.found(ctx)
	}
	reports := make(map[string]SeenReport)
	n.reports.keepOnly(s.Nodes)
	for _, r := range n.reports.all() {
		reports[r.NodeID] = r
	}
	// What one node stands in the way of does not keep the others from what they need.
	var failures []error
	for id, node := range s.Nodes {
		if r, ok := reports[id]; ok && r.Age < reportFresh && r.Address != "" && r.Address != node.Address {
			if other, taken := occupant(s, reports, id, r.Address); taken {
				failures = append(failures, fmt.Errorf("%s says that it is at %s, where %s is", node.Name, r.Address, other))
				continue
			}
			n.log.Info("node has a new address", "member", node.Name, "from", node.Address, "to", r.Address)
			node.Address = r.Address
			if err := n.Apply(ctx, state.Command{PutNode: &node}); err != nil {
				failures = append(failures, fmt.Errorf("update address of %s: %w", node.Name, err))
			}
		}
	}
	for id, node := range n.State().Nodes {
		if claim := n.holders.Claim(id); claim > node.Claim && s.FeatureLevel() >= 2 {
			n.log.Warn("node was moved to another machine", "member", node.Name)
			node.Claim = claim
			if err := n.Apply(ctx, state.Command{PutNode: &node}); err != nil {
				failures = append(failures, fmt.Errorf("note the move of %s: %w", node.Name, err))
			}
		}
	}
	return errors.Join(append(failures,
		n.reconcileRaft(n.State(), reports),
		n.raise(ctx, n.State(), reports),
		n.settle(ctx, n.State(), reports, settle))...)
}

// raise brings the cluster to the feature level that all members understand.
func (n *Node) raise(ctx context.Context, s *state.State, reports map[string]SeenReport) error {
	level, ids := commonLevel(s, n.opts.Identity.NodeID, reports)
	if level <= s.FeatureLevel() {
		return nil
	}
	slices.Sort(ids)
	n.log.Info("raising the feature level: every member understands it", "from", s.FeatureLevel(), "to", level)
	return n.Apply(ctx, state.Command{Raise: &state.RaiseCommand{Level: level, Nodes: ids}})
}

// found puts the first state into the log of a cluster that has just elected its
// first leader.
func (n *Node) found(ctx context.Context) error {
	id := n.opts.Identity
	if id.Origin == store.OriginJoin {
		return errors.New("this node joined a cluster whose log is empty")
	}
	seed, err := n.opts.DataDir.Seed()
	if err != nil {
		return err
	}
	instances := n.opts.Content()
	for _, in := range seed.Instances {
		if !slices.ContainsFunc(instances, func(o state.Instance) bool { return o.Name == in.Name }) {
			instances = append(instances, in)
		}
	}
	err = n.Apply(ctx, state.Command{Found: &state.Founding{
		ClusterID: id.ClusterID,
		Node:      state.NodeRecord{ID: id.NodeID, Name: id.Name, Address: n.opts.Advertise, Witness: id.Witness},
		Heartbeat: n.opts.Heartbeat, Instances: instances, Tokens: seed.Tokens, Level: state.FeatureLevel,
	}})
	if err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	n.log.Info("cluster founded", "cluster", id.ClusterID)
	return n.opts.DataDir.DropSeed()
}

// reconcileRaft makes the first change that Raft's configuration needs and takes, if
// any; the next one follows at the next round. What it does not take is told.
func (n *Node) reconcileRaft(s *state.State, reports map[string]SeenReport) error {
	return n.changeServers(n.group, s, reports)
}

// A raftChange is one change of Raft's configuration.
type raftChange struct {
	what   string // for the log
	name   string
	server raft.Server
	remove bool
}

// raftChanges returns what Raft's configuration lacks, most urgent first.
func raftChanges(s *state.State, self string, c raft.Configuration, reports map[string]SeenReport) []raftChange {
	var out []raftChange
	servers := make(map[string]raft.Server)
	for _, server := range c.Servers {
		servers[string(server.ID)] = server
		// First those that are gone: Raft knows no two servers at one address, and the
		// new node of a host that lost its data dir is where the old one was.
		if _, ok := s.Nodes[string(server.ID)]; !ok && string(server.ID) != self {
			out = append(out, raftChange{what: "removing node", name: string(server.ID), server: server, remove: true})
		}
	}
	for _, node := range s.SortedNodes() {
		want := raft.Server{ID: raft.ServerID(node.ID), Address: raft.ServerAddress(node.Address), Suffrage: raft.Nonvoter}
		server, member := servers[node.ID]
		report, reported := reports[node.ID]
		fresh := reported && report.Age < reportFresh
		switch {
		case !member && fresh:
			out = append(out, raftChange{what: "adding node", name: node.Name, server: want})
		case !member:
			// It was admitted but does not run yet.
		case server.Address != want.Address:
			want.Suffrage = server.Suffrage
			out = append(out, raftChange{what: "node is at another address", name: node.Name, server: want})
		case server.Suffrage != raft.Voter && fresh && report.Applied >= s.Version:
			// It has the whole state and with it the length of a promise, which the
			// lease of whoever leads depends on from now on.
			want.Suffrage = raft.Voter
			out = append(out, raftChange{what: "node has caught up and votes from now on", name: node.Name, server: want})
		}
	}
	return out
}

// firstChange makes the first change that can be made.
func firstChange(changes []raftChange, make func(raftChange) error) error {
	var failures []error
	for _, c := range changes {
		err := make(c)
		if err == nil {
			break
		}
		failures = append(failures, fmt.Errorf("%s %s (%s): %w", c.what, c.name, c.server.Address, err))
		if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipLost) {
			break
		}
	}
	return errors.Join(failures...)
}

func (n *Node) changeRaft(g *group.Group, c raftChange) error {
	const wait = 2 * time.Second
	var err error
	if c.remove {
		err = g.RemoveServer(string(c.server.ID), wait)
	} else {
		err = g.SetServer(c.server, wait)
	}
	if err == nil {
		n.log.Info(c.what, "group", g.Name(), "member", c.name, "address", c.server.Address)
	}
	return err
}

// settle keeps the heartbeat timeout at what the operator asked for, or at what the
// slowest guard of a node needs, and ends a change when every voter has it.
func (n *Node) settle(ctx context.Context, s *state.State, reports map[string]SeenReport, settle *settling) error {
	if s.Heartbeat.Current == s.Heartbeat.Previous {
		want := s.Heartbeat.Configured
		for id := range s.Nodes {
			// A node that has not reported yet keeps what was granted before.
			if r, ok := reports[id]; ok {
				want = max(want, min(r.MinHeartbeat, state.MaxHeartbeat))
			} else {
				want = max(want, s.Heartbeat.Current)
			}
		}
		if want == s.Heartbeat.Current {
			return nil
		}
		n.log.Info("changing heartbeat_timeout", "from", s.Heartbeat.Current, "to", want, "configured", s.Heartbeat.Configured)
		return n.Apply(ctx, state.Command{Heartbeat: &want})
	}
	settle.begin(s)
	// Raft's voters are asked as well as the nodes: one that was removed from the
	// list votes until Raft has removed it too, by the promise it knows.
	ids := n.group.Voters()
	for id := range s.Nodes {
		ids = append(ids, id)
	}
	for _, id := range ids {
		if r, ok := reports[id]; !ok || r.Applied < settle.version {
			return nil
		}
	}
	n.setTiming(s.Version, s.Heartbeat)
	if settle.since == 0 {
		settle.since = boottime.Now()
	}
	if !n.group.Shortened() {
		return nil // at a later round
	}
	// A node that was removed may have led another group by a lease that a voter here
	// agreed to just before: it has ended a promise later.
	if len(s.Groups) > 0 && boottime.Now()-settle.since < s.Heartbeat.Promise() {
		return nil
	}
	return n.Apply(ctx, state.Command{Settle: &struct{}{}})
}

// ledFor is how long this node leads in its present term, or less; 0 if it does not.
func (n *Node) ledFor() time.Duration {
	standing := n.group.Standing()
	if !standing.Leading {
		return 0
	}
	n.ledMu.Lock()
	defer n.ledMu.Unlock()
	if n.ledTerm != standing.Term {
		n.ledTerm, n.ledSince = standing.Term, boottime.Now()
	}
	return boottime.Now() - n.ledSince
}

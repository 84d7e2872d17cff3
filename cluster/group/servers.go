package group

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"github.com/raftvip/raftvip/cluster/raftlog"
	"github.com/raftvip/raftvip/cluster/state"
)

// Configuration returns Raft's newest configuration, committed or not.
func (g *Group) Configuration() raft.Configuration {
	return g.raft.GetConfiguration().Configuration()
}

// SetServer adds a server, or changes its address or suffrage; only the leader can. It
// waits for at most the time given until the change can begin.
func (g *Group) SetServer(s raft.Server, wait time.Duration) error {
	if s.Suffrage == raft.Voter {
		return g.awaitChange(g.raft.AddVoter(s.ID, s.Address, 0, wait), wait)
	}
	return g.awaitChange(g.raft.AddNonvoter(s.ID, s.Address, 0, wait), wait)
}

// changeWithin is how long a change of the configuration may take from its begin on.
const changeWithin = 10 * time.Second

// awaitChange waits for a change of the configuration, and no longer than the group lives:
// Raft v1.8.0 may leave one unanswered that it was asked for in the moment of its
// shutdown.
func (g *Group) awaitChange(f raft.Future, wait time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }() // nobody can wait for what is never answered
	select {
	case err := <-done:
		return err
	case <-g.ended:
		return raft.ErrRaftShutdown
	case <-time.After(wait + changeWithin):
		return fmt.Errorf("it has not taken effect in %v: no majority of the voters answers", wait+changeWithin)
	}
}

// RemoveServer takes a server out of the configuration; only the leader can.
func (g *Group) RemoveServer(nodeID string, wait time.Duration) error {
	return g.awaitChange(g.raft.RemoveServer(raft.ServerID(nodeID), 0, wait), wait)
}

// Bootstrap founds the group with this node, at an address, as its only voter. It fails
// with raft.ErrCantBootstrap if there is a log.
func (g *Group) Bootstrap(address string) error {
	return g.raft.BootstrapCluster(firstConfiguration(g.self, address)).Error()
}

// Found writes the first entry of a group's log, before it is opened: this node, at an
// address, is its only voter.
func Found(p Options, address string) error {
	config := raftConfig(p.Self, p.Heartbeat.Current, false)
	config.Logger = raftlog.New(p.RaftLog)
	err := raft.BootstrapCluster(config, p.Logs, p.Stable, p.Snapshots, p.Inner, firstConfiguration(p.Self, address))
	if err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	return nil
}

// Begin writes the first entry of an ownership group's log, the same on every node, before
// it is opened. A log that has begun is left as it is; the caller has seen to it that there
// is no snapshot in place of one.
func Begin(p Options, first []state.GroupVoter) error {
	config := raftConfig(p.Self, p.Heartbeat.Promise(), true)
	config.Logger = raftlog.New(p.RaftLog)
	var c raft.Configuration
	for _, v := range first {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(v.ID), Address: raft.ServerAddress(v.Address)})
	}
	err := raft.BootstrapCluster(config, p.Logs, p.Stable, p.Snapshots, p.Inner, c)
	if errors.Is(err, raft.ErrCantBootstrap) {
		// Raft writes the term first: a beginning that was cut short in between left a term
		// without a log, with which this node would never stand.
		var last uint64
		if last, err = p.Logs.LastIndex(); err == nil && last == 0 {
			err = p.Logs.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)})
		}
	}
	if err != nil {
		return fmt.Errorf("begin group %s: %w", p.Name, err)
	}
	return nil
}

func firstConfiguration(self, address string) raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(self), Address: raft.ServerAddress(address),
	}}}
}

// Warm uses a connection to a member, which opens one if there is none.
func (g *Group) Warm(nodeID, address string) error {
	if err := g.trans.warm(raft.ServerID(nodeID), raft.ServerAddress(address)); err != nil {
		return fmt.Errorf("keep a connection to %s: %w", nodeID, err)
	}
	return nil
}

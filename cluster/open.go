package cluster

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/boottime"
)

// openGroup opens the default group, with a heartbeat timeout of a version of the state.
func (n *Node) openGroup(heartbeat state.HeartbeatSetting, version uint64) error {
	id := n.opts.Identity
	disk, err := store.Open(n.opts.DataDir.GroupDir(state.DefaultGroup), id.HasLog, version, n.opts.RaftLog)
	if err != nil {
		return err
	}
	disk.Votes.Failed = func(err error) { n.disk.Note("vote", err, false) }
	network := group.NewNetwork(n.port.Layer(state.DefaultGroup), n.opts.Advertise, heartbeat.Promise(), n.log, n.opts.RaftLog)
	fail := func(err error) error {
		network.Close()
		disk.Close()
		return err
	}
	logs, err := raft.NewLogCache(512, &store.WatchedStore{LogStore: disk.Log, Disk: n.disk})
	if err != nil {
		return fail(fmt.Errorf("open log: %w", err))
	}
	parts := group.Options{
		Name: state.DefaultGroup, Self: id.NodeID, Log: n.log, Now: boottime.Now, Heartbeat: heartbeat, Version: version,
		Sink: n.opts.Sink(state.DefaultGroup), Lateness: n.opts.Lateness, Inner: network, Logs: logs, Stable: disk.Votes, Snapshots: disk.Snapshots,
		Peers: memberCalls{n.client}, Changed: n.changed, RaftLog: n.opts.RaftLog,
		Order: n.order(state.DefaultGroup), DiskFault: n.disk.Broken, TermSaved: disk.Votes.Saved, Reserve: disk.Votes.Reserve, Retimed: network.Retime, Beats: n.beats,
	}
	n.existing = disk.Existing
	if id.Origin == store.OriginInit && !n.existing {
		if err := group.Found(parts, n.opts.Advertise); err != nil {
			return fail(err)
		}
		if err := n.mark(); err != nil {
			return fail(fmt.Errorf("found cluster: %w", err))
		}
		n.existing = true
	}
	if n.group, err = group.Open(parts); err != nil {
		return fail(err)
	}
	n.store, n.votes = disk.Log, disk.Votes
	return nil
}

// order is Options.Order, from the moment the node runs.
func (n *Node) order(group string) func(lost string) []string {
	if n.opts.Order == nil {
		return nil
	}
	return func(lost string) []string {
		if !n.running.Load() {
			return nil
		}
		return n.opts.Order(group, lost)
	}
}

package cluster

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/internal/boottime"
)

// openGroup opens the default group, with a heartbeat timeout of a version of the state.
func (n *Node) openGroup(heartbeat HeartbeatSetting, version uint64) error {
	id := n.opts.Identity
	disk, err := openStores(n.opts.DataDir.groupDir(DefaultGroup), id.HasLog, version, n.opts.RaftLog)
	if err != nil {
		return err
	}
	disk.votes.failed = func(err error) { n.disk.note("vote", err, false) }
	network := openNetwork(n.port.layer(DefaultGroup), n.opts.Advertise, heartbeat.Promise(), n.log, n.opts.RaftLog)
	fail := func(err error) error {
		network.Close()
		disk.Close()
		return err
	}
	logs, err := raft.NewLogCache(512, &watchedStore{LogStore: disk.log, disk: n.disk})
	if err != nil {
		return fail(fmt.Errorf("open log: %w", err))
	}
	parts := groupParts{
		name: DefaultGroup, self: id.NodeID, log: n.log, now: boottime.Now, heartbeat: heartbeat, version: version,
		sink: n.opts.Sink(DefaultGroup), inner: network, logs: logs, stable: disk.votes, snapshots: disk.snapshots,
		peers: memberCalls{n.client}, changed: n.changed, raftLog: n.opts.RaftLog,
		order: n.order(), diskFault: n.disk.broken, termSaved: disk.votes.saved, retimed: network.retime,
	}
	n.existing = disk.existing
	if id.Origin == OriginInit && !n.existing {
		if err := found(parts, n.opts.Advertise); err != nil {
			return fail(err)
		}
		if err := n.mark(); err != nil {
			return fail(fmt.Errorf("found cluster: %w", err))
		}
		n.existing = true
	}
	if n.group, err = newGroup(parts); err != nil {
		return fail(err)
	}
	n.store, n.votes = disk.log, disk.votes
	return nil
}

// order is Options.Order, from the moment the node runs.
func (n *Node) order() func(lost string) []string {
	if n.opts.Order == nil {
		return nil
	}
	return func(lost string) []string {
		if !n.running.Load() {
			return nil
		}
		return n.opts.Order(lost)
	}
}

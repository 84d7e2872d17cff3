package cluster

import (
	"fmt"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
)

// testDisk writes where Raft writes, without a change of what it has written.
func (n *Node) testDisk() error {
	if err := store.TestWrite(n.opts.DataDir.GroupDir(state.DefaultGroup)); err != nil {
		return err
	}
	if err := n.store.SetUint64([]byte("disk test"), uint64(time.Now().Unix())); err != nil {
		return fmt.Errorf("test log: %w", err)
	}
	if err := n.groupStores.TestWrite(); err != nil {
		return err
	}
	return n.votes.Rewrite()
}

// LogFault says why this node cannot follow the cluster's log, or is "": it cannot
// write it or its vote, does not understand it, or may not speak for its identity. It must not own until the fault has
// ended and its log is complete again.
func (n *Node) LogFault() string {
	if err := n.group.Stopped(); err != nil {
		return err.Error()
	}
	if f := n.Barred(); f != nil {
		return "this node does not take part: " + f.Text
	}
	if why := n.groupFault.Load(); why != nil && *why != "" {
		return *why
	}
	return n.disk.Fault()
}

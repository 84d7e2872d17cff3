package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/raftvip/raftvip/internal/boottime"
)

func (n *Node) openGroup(heartbeat HeartbeatSetting, version uint64) error {
	dir := n.opts.DataDir.groupDir(DefaultGroup)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	id := n.opts.Identity
	path := filepath.Join(dir, "raft.db")
	if err := missingLog(path, id.HasLog); err != nil {
		return err
	}
	store, err := openStore(path)
	if err != nil {
		return err
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, newRaftLogger(n.opts.RaftLog))
	if err != nil {
		store.Close()
		return fmt.Errorf("open snapshots: %w", err)
	}
	have, err := extentOf(store, snapshots)
	if err != nil {
		err = fmt.Errorf("read log in %s: %w", dir, err)
	} else if err = have.whole(id.HasLog, version); err != nil {
		err = fmt.Errorf("%s: %w", dir, err)
	}
	if err != nil {
		store.Close()
		return err
	}
	votes, err := openVotes(dir, have, id.HasLog)
	if err != nil {
		store.Close()
		return err
	}
	votes.failed = func(err error) { n.disk.note("vote", err, false) }
	close := func() {}
	fail := func(err error) error { close(); store.Close(); votes.Close(); return err }
	n.existing = !have.empty()
	stream := n.port.layer(DefaultGroup)
	layer := &timedLayer{StreamLayer: sendOn(stream)}
	layer.heartbeat.Store(int64(heartbeat.Promise()))
	inner := receiveOn(stream, raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                layer,
		MaxPool:               poolSize,
		Timeout:               raftTimeout,
		Logger:                newRaftLogger(n.opts.RaftLog),
		ServerAddressProvider: nil,
	}), n.log, checkSnapshot)
	close = func() { inner.Close() }
	if id.Origin == OriginInit && !n.existing {
		config := raftConfig(id.NodeID, heartbeat.Current)
		config.Logger = newRaftLogger(n.opts.RaftLog)
		err := raft.BootstrapCluster(config, store, votes, snapshots, inner, raft.Configuration{Servers: []raft.Server{{
			Suffrage: raft.Voter, ID: raft.ServerID(id.NodeID), Address: raft.ServerAddress(n.opts.Advertise),
		}}})
		if err == nil {
			err = n.mark()
		}
		if err != nil {
			return fail(fmt.Errorf("found cluster: %w", err))
		}
		n.existing = true
	}
	logs, err := raft.NewLogCache(512, &watchedStore{LogStore: store, disk: n.disk})
	if err != nil {
		return fail(fmt.Errorf("open log: %w", err))
	}
	n.group, err = newGroup(groupParts{
		name: DefaultGroup, self: id.NodeID, log: n.log, now: boottime.Now, heartbeat: heartbeat, version: version,
		sink: n.opts.Sink(DefaultGroup), inner: advertised{inner, raft.ServerAddress(n.opts.Advertise)},
		logs: logs, stable: votes, snapshots: snapshots, peers: n.client, changed: n.changed, raftLog: n.opts.RaftLog,
		order: n.order(), diskFault: n.disk.broken, termSaved: votes.saved,
		retimed: func(h time.Duration) { layer.heartbeat.Store(int64(h)) },
	})
	if err != nil {
		return fail(err)
	}
	n.store, n.votes = store, votes
	return nil
}

// openVotes opens the term and vote beside a log.
func openVotes(dir string, have extent, hasLog bool) (*voteStore, error) {
	path := filepath.Join(dir, "vote")
	fresh := have.empty() && !hasLog
	if fresh {
		// A node without a log was never a voter: a founding, or a joining, was cut short.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open vote: %w", err)
		}
	}
	votes, err := openVoteStore(path, fresh, sameBoot(dir))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(votes.atLeast(have.lastTerm), noteBoot(dir)); err != nil {
		return nil, errors.Join(err, votes.Close())
	}
	return votes, nil
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

// openStore opens the log and turns bbolt's panics on damaged pages into errors.
func openStore(path string) (s *raftboltdb.BoltStore, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("open log %s: %w: %v", path, ErrLogLost, p)
		}
	}()
	s, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{Timeout: 2 * time.Second}})
	switch {
	case errors.Is(err, berrors.ErrVersionMismatch):
		return nil, fmt.Errorf("open log: %w", &NewerError{path, "its format is that of another version"})
	case errors.Is(err, berrors.ErrTimeout), isErrno(err):
		return nil, fmt.Errorf("open log %s: %w", path, err) // it is all there: no room, no descriptors, not permitted
	case err != nil:
		return nil, fmt.Errorf("open log %s: %w: %w", path, ErrLogLost, err)
	}
	return s, nil
}

// isErrno tells whether an error is the system's word rather than a library's.
func isErrno(err error) bool {
	_, is := errors.AsType[syscall.Errno](err)
	return is && !errors.Is(err, syscall.EIO)
}

// advertised is a transport whose own address is the advertised one rather than
// the one listened on.
type advertised struct {
	networkTransport
	address raft.ServerAddress
}

// LocalAddr implements raft.Transport.
func (a advertised) LocalAddr() raft.ServerAddress { return a.address }

// EncodePeer implements raft.Transport.
func (a advertised) EncodePeer(id raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

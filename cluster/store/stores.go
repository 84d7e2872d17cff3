package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/raftvip/raftvip/cluster/raftlog"
	"github.com/raftvip/raftvip/cluster/state"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// stores are what Raft keeps of one group on the disk.
type stores struct {
	Log       *raftboltdb.BoltStore
	Votes     *VoteStore
	Snapshots raft.SnapshotStore
	// Existing: there was a log, or a snapshot, before.
	Existing bool
}

// Open opens what is in a group's directory, or makes it. hasLog tells that there
// was a log, and applied is the index of an entry that was applied once: if less is
// there, the error is ErrLogLost.
func Open(dir string, hasLog bool, applied uint64, log *slog.Logger) (s stores, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return s, fmt.Errorf("open log: %w", err)
	}
	path := filepath.Join(dir, "raft.db")
	if err := missingLog(path, hasLog); err != nil {
		return s, err
	}
	if s.Log, err = OpenStore(path); err != nil {
		return s, err
	}
	defer func() {
		if err != nil {
			s.Log.Close()
		}
	}()
	if s.Snapshots, err = raft.NewFileSnapshotStoreWithLogger(dir, 2, raftlog.New(log)); err != nil {
		return s, fmt.Errorf("open snapshots: %w", err)
	}
	have, err := extentOf(s.Log, s.Snapshots)
	if err != nil {
		return s, fmt.Errorf("read log in %s: %w", dir, err)
	}
	if err := have.whole(hasLog, applied); err != nil {
		return s, fmt.Errorf("%s: %w", dir, err)
	}
	s.Existing = !have.empty()
	s.Votes, err = openVotes(dir, have, hasLog)
	return s, err
}

// Close closes them.
func (s stores) Close() error { return errors.Join(s.Log.Close(), s.Votes.Close()) }

// openVotes opens the term and vote beside a log.
func openVotes(dir string, have extent, hasLog bool) (*VoteStore, error) {
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

// OpenStore opens the log and turns bbolt's panics on damaged pages into errors.
func OpenStore(path string) (s *raftboltdb.BoltStore, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("open log %s: %w: %v", path, ErrLogLost, p)
		}
	}()
	s, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{Timeout: 2 * time.Second}})
	if err != nil {
		return nil, openError(path, err)
	}
	return s, nil
}

// openError says what it means that bbolt cannot open a file.
func openError(path string, err error) error {
	switch {
	case errors.Is(err, berrors.ErrVersionMismatch):
		return fmt.Errorf("open log: %w", &state.NewerError{What: path, Why: "its format is that of another version"})
	case errors.Is(err, berrors.ErrTimeout), isErrno(err):
		return fmt.Errorf("open log %s: %w", path, err) // it is all there: no room, no descriptors, not permitted
	}
	return fmt.Errorf("open log %s: %w: %w", path, ErrLogLost, err)
}

// isErrno tells whether an error is the system's word rather than a library's.
func isErrno(err error) bool {
	_, is := errors.AsType[syscall.Errno](err)
	return is && !errors.Is(err, syscall.EIO)
}

package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/cluster/raftlog"
	"github.com/raftvip/raftvip/cluster/state"
)

// Files in the directory of the ownership groups.
const (
	groupsDir      = "groups"
	hadGroupsFile  = "groups.json" // in the data dir
	groupLogsFile  = "raft.db"
	groupVotesFile = "votes"
)

// ErrGroupEnded: the group has ended, and this node has removed what it had of it.
var ErrGroupEnded = errors.New("the group has ended")

// Groups are what Raft keeps on the disk of the ownership groups beside the default one.
type Groups struct {
	data     *DataDir
	dir      string
	raftLog  *slog.Logger
	logs     *groupLogs
	votes    *groupVotes
	sameBoot bool
	records  map[string]state.GroupRecord
	// ended are the groups that were removed, with the version of the default group's
	// state that had them no more. A node that starts again sees the states of before once
	// more, one after the other. It must not begin such a group anew: it has forgotten its
	// votes there, and its log, which others may not have got.
	ended map[string]uint64
}

// A GroupStore is what Raft keeps of one of them.
type GroupStore struct {
	Log       raft.LogStore
	Votes     *VoteStore
	Snapshots raft.SnapshotStore
	// Existing: there was a log, or a snapshot, before.
	Existing bool
}

// OpenGroups opens the files, or makes them. A group whose vote is there and whose log is
// not, or the other way round, is an error that is ErrLogLost. So is a directory that has
// had groups and has lost a file.
func (d *DataDir) OpenGroups(raftLog *slog.Logger) (_ *Groups, err error) {
	dir := d.GroupDir(groupsDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open logs of groups: %w", err)
	}
	g := &Groups{data: d, dir: dir, raftLog: raftLog, sameBoot: sameBoot(dir), records: make(map[string]state.GroupRecord), ended: make(map[string]uint64)}
	for _, name := range []string{groupLogsFile, groupVotesFile} {
		if err := missingLog(filepath.Join(dir, name), d.hadGroups()); err != nil {
			return nil, err
		}
	}
	if g.logs, err = openGroupLogs(filepath.Join(dir, groupLogsFile)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	if g.votes, err = openGroupVotes(filepath.Join(dir, groupVotesFile)); err != nil {
		return nil, err
	}
	found, err := g.logs.groups()
	if err != nil {
		return nil, err
	}
	for id, e := range found {
		switch {
		case e.gone:
			g.ended[id] = e.ended
		case e.ended > 0: // its removal was cut short
			if err := g.Drop(id, e.ended); err != nil {
				return nil, err
			}
		default:
			g.records[id] = e.record
		}
	}
	// All of them before this boot is noted: what was written ahead of a vote before another
	// boot counts as given, also if this process ends before it opens the group.
	for _, id := range g.votes.ids() {
		_, known := g.records[id]
		votes, err := g.votes.open(id, false, g.sameBoot)
		if known && (err == nil || errors.Is(err, ErrLogLost)) {
			continue // Open tells
		}
		if err != nil {
			return nil, err
		}
		if term, _ := votes.GetUint64([]byte(keyCurrentTerm)); term > 0 {
			return nil, fmt.Errorf("log of group %s: %w: it is not there, and this node took part in term %d", id, ErrLogLost, term)
		}
		if err := g.votes.drop(id); err != nil { // it was being made
			return nil, err
		}
	}
	return g, noteBoot(dir)
}

// Records are the groups that have a log here, by ID.
func (g *Groups) Records() []state.GroupRecord {
	out := slices.Collect(maps.Values(g.records))
	slices.SortFunc(out, func(a, b state.GroupRecord) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return out
}

// Open opens what there is of a group, or makes it. Of one that was dropped the error is
// ErrGroupEnded.
func (g *Groups) Open(r state.GroupRecord) (s GroupStore, err error) {
	if err := checkGroupID(r.ID); err != nil {
		return s, err
	}
	if _, ended := g.ended[r.ID]; ended {
		return s, ErrGroupEnded
	}
	_, known := g.records[r.ID]
	if !known {
		if err := g.data.noteGroups(); err != nil {
			return s, err
		}
		// The vote first: alone, without a term, it is nothing.
		if s.Votes, err = g.votes.open(r.ID, true, g.sameBoot); err != nil {
			return s, err
		}
		if err := g.logs.create(r); err != nil {
			return s, err
		}
		g.records[r.ID] = r
	}
	log := groupLog{g.logs, []byte(r.ID)}
	s.Log = log
	if s.Snapshots, err = raft.NewFileSnapshotStoreWithLogger(g.snapshots(r.ID), 2, raftlog.New(g.raftLog)); err != nil {
		return s, fmt.Errorf("open snapshots of group %s: %w", r.ID, err)
	}
	have, err := extentOf(s.Log, s.Snapshots)
	if err != nil {
		return s, fmt.Errorf("read log of group %s: %w", r.ID, err)
	}
	if err := have.whole(false, 0); err != nil {
		return s, fmt.Errorf("log of group %s: %w", r.ID, err)
	}
	s.Existing = !have.empty()
	if known {
		if s.Votes, err = g.votes.open(r.ID, have.empty(), g.sameBoot); err != nil {
			return s, err
		}
		if term, _ := s.Votes.GetUint64([]byte(keyCurrentTerm)); term > 0 && have.empty() && len(r.Voters) > 0 {
			// Raft takes part in no term before there is a configuration in the log, and this
			// node may have got its first one from a leader: then it voted for nobody.
			if s.Votes.MayHaveVotedIn() > 0 {
				return s, fmt.Errorf("log of group %s: %w: it is empty, and this node voted in term %d", r.ID, ErrLogLost, s.Votes.MayHaveVotedIn())
			}
		}
	}
	return s, s.Votes.atLeast(have.lastTerm)
}

// checkGroupID keeps from the disk what no state machine has made: an ID is the name of a
// directory.
func checkGroupID(id string) error {
	if !state.GroupID.MatchString(id) {
		return fmt.Errorf("%.80q is not the ID of a group", id)
	}
	return nil
}

// hadGroups tells whether this node ever took part in an ownership group: then the file of
// their logs, or of their votes, is lost if it is not there.
func (d *DataDir) hadGroups() bool {
	_, err := os.Lstat(d.file(hadGroupsFile))
	return !errors.Is(err, fs.ErrNotExist)
}

// noteGroups notes it, before the first one is made.
func (d *DataDir) noteGroups() error {
	if d.hadGroups() {
		return nil
	}
	for _, dir := range []string{d.GroupDir(groupsDir), filepath.Join(d.path, RaftDir)} {
		if err := syncDir(dir); err != nil {
			return fmt.Errorf("write data dir: %w", err)
		}
	}
	return d.write(hadGroupsFile, struct {
		Groups bool `json:"groups"`
	}{true})
}

func (g *Groups) snapshots(id string) string { return filepath.Join(g.dir, id) }

// Drop removes what there is of a group that is not in the default group's state of this
// version any more, but for the note that it has ended. Cut short, it is done again at the
// next start.
func (g *Groups) Drop(id string, version uint64) error {
	if err := checkGroupID(id); err != nil {
		return err
	}
	delete(g.records, id)
	g.ended[id] = version
	err := g.logs.end(id, version)
	if err == nil {
		err = g.votes.drop(id)
	}
	if err == nil {
		err = os.RemoveAll(g.snapshots(id))
	}
	if err == nil {
		err = g.logs.remove(id)
	}
	if err != nil {
		return fmt.Errorf("remove group %s: %w", id, err)
	}
	return nil
}

// Forget removes the notes of groups that had ended at a version of the default group's
// state: the one with which this node starts, so that it sees no older one again.
func (g *Groups) Forget(version uint64) error {
	for id, at := range g.ended {
		if at > version {
			continue
		}
		if err := g.logs.forget(id); err != nil {
			return fmt.Errorf("forget group %s: %w", id, err)
		}
		delete(g.ended, id)
	}
	return nil
}

// TestWrite tries to write where Raft writes, without a change of what it has written.
func (g *Groups) TestWrite() error {
	if err := TestWrite(g.dir); err != nil {
		return err
	}
	return g.votes.sync()
}

// Close closes the files.
func (g *Groups) Close() error {
	var err error
	if g.logs != nil {
		err = g.logs.db.Close()
	}
	if g.votes != nil {
		err = errors.Join(err, g.votes.close())
	}
	return err
}

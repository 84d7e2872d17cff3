package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"
)

// An extent is how far a node's log and its snapshots go.
type extent struct {
	first, last uint64 // of the log; 0 if it is empty
	lastTerm    uint64 // the newest term in either
	snapshot    uint64 // up to which the newest snapshot goes; 0 for none
}

func (e extent) empty() bool { return e.last == 0 && e.snapshot == 0 }

// extentOf reads it.
func extentOf(logs raft.LogStore, snapshots raft.SnapshotStore) (e extent, err error) {
	if e.first, err = logs.FirstIndex(); err != nil {
		return e, err
	}
	if e.last, err = logs.LastIndex(); err != nil {
		return e, err
	}
	if e.last > 0 {
		var entry raft.Log
		if err := logs.GetLog(e.last, &entry); err != nil {
			return e, err
		}
		e.lastTerm = entry.Term
	}
	list, err := snapshots.List()
	if err != nil {
		return e, err
	}
	for _, s := range list {
		e.snapshot, e.lastTerm = max(e.snapshot, s.Index), max(e.lastTerm, s.Term)
	}
	return e, nil
}

// whole tells whether the log has all that it must have: hasLog says that there was
// one, and applied is the index of an entry that this node has applied. What a node has
// acknowledged and does not have any more may be lost to the cluster, so that it must
// not vote under its old identity.
func (e extent) whole(hasLog bool, applied uint64) error {
	switch end := max(e.last, e.snapshot); {
	case hasLog && e.empty():
		return fmt.Errorf("%w: it is empty, and this node had one and may have voted", ErrLogLost)
	case end < applied:
		return fmt.Errorf("%w: it ends at entry %d, and this node had applied entry %d", ErrLogLost, end, applied)
	case e.first > e.snapshot+1:
		return fmt.Errorf("%w: it begins at entry %d, and the snapshot of what came before is gone", ErrLogLost, e.first)
	}
	return nil
}

// missingLog tells whether the file of a log that there was is gone, before it is made
// anew.
func missingLog(path string, hasLog bool) error {
	if _, err := os.Stat(path); !hasLog || !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("open log %s: %w: the file is gone, and this node had one and may have voted", path, ErrLogLost)
}

// bootFile is beside the log. It says under which boot of the machine the group was
// opened last.
const bootFile = "boot"

// sameBoot tells whether the machine has run without a pause since the group was opened
// last: then what was written and not synced is there. Where nothing says so, it has not.
func sameBoot(dir string) bool {
	boot, err := bootID()
	if err != nil {
		return false
	}
	last, err := os.ReadFile(filepath.Join(dir, bootFile))
	return err == nil && strings.TrimSpace(string(last)) == boot
}

// noteBoot is what sameBoot compares with at the next start. If it is lost, a vote that
// was written ahead counts as given.
func noteBoot(dir string) error {
	boot, err := bootID()
	if err != nil {
		return nil // unknown here: the next start finds nothing
	}
	if err := os.WriteFile(filepath.Join(dir, bootFile), []byte(boot+"\n"), 0o600); err != nil {
		return fmt.Errorf("note boot: %w", err)
	}
	return nil
}

// bootID names this boot of the machine (random(4)).
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil && strings.TrimSpace(string(b)) == "" {
		err = errors.New("empty boot ID")
	}
	return strings.TrimSpace(string(b)), err
}

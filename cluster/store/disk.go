package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// diskTestEvery is how often a node that could not write tries whether it can.
	diskTestEvery = time.Second
	// diskTestSize is more room than a change of the log takes, so that a disk with
	// a few blocks left is not found well only to fail at the next write.
	diskTestSize = 256 << 10
	// behindTests is how many tests in a row end a fault although nobody has sent
	// what was missed: Raft's longest pause between two attempts is 10 s.
	behindTests = 15
)

// A DiskWatch knows whether this node can write what Raft must remember. A leader
// whose log fails steps down, and would win again and fail again: with a fault
// noted here a node neither stands for election nor may own.
type DiskWatch struct {
	dir     string
	log     *slog.Logger
	changed func()
	// test tries to write, after a failure.
	test  func() error
	every time.Duration
	wake  chan struct{} // a fault has begun

	mu     sync.Mutex
	fault  string
	failed uint64 // writes that have failed
	good   int    // tests that have succeeded since
	// behind: an entry was not written, and none has been since. Who leads sends it
	// again, after a pause that may last for seconds, and cannot hand over before.
	behind bool
}

func WatchDisk(dir string, log *slog.Logger, changed func(), test func() error) *DiskWatch {
	return &DiskWatch{dir: dir, log: log, changed: changed, test: test, every: diskTestEvery, wake: make(chan struct{}, 1)}
}

// wrote is called when entries have been written.
func (d *DiskWatch) wrote() {
	d.mu.Lock()
	d.behind = false
	ended := d.endLocked()
	d.mu.Unlock()
	d.tell(ended)
}

// endLocked ends a fault that is over. One write alone does not show that: the
// next one may be larger.
func (d *DiskWatch) endLocked() bool {
	if d.fault == "" || d.good == 0 || d.behind && d.good < behindTests {
		return false
	}
	d.fault = ""
	return true
}

func (d *DiskWatch) tell(ended bool) {
	if ended {
		d.log.Info("the disk can be written again", "dir", d.dir)
		d.changed()
	}
}

// Note is called when a write of the log or the vote has failed; entry says that
// it was one of entries.
func (d *DiskWatch) Note(what string, err error, entry bool) {
	reason := err.Error()
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		reason = errno.Error()
	}
	fault := fmt.Sprintf("cannot write the %s in %s: %s", what, d.dir, reason)
	d.mu.Lock()
	d.failed++
	d.good, d.behind = 0, d.behind || entry
	news := fault != d.fault
	d.fault = fault
	d.mu.Unlock()
	if !news {
		return
	}
	d.log.Error(fault+": this node cannot lead, nor confirm what a leader asks", "error", err)
	d.changed()
	select {
	case d.wake <- struct{}{}:
	default: // the test is under way
	}
}

// Fault says why this node cannot write, or is "".
func (d *DiskWatch) Fault() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fault
}

// Broken is Fault until a test has succeeded: then a node may stand for election,
// or nobody would where all had failed.
func (d *DiskWatch) Broken() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.good > 0 {
		return ""
	}
	return d.fault
}

// Run ends a fault when a test succeeds.
func (d *DiskWatch) Run(ctx context.Context) {
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	for {
		select {
		case <-d.wake:
		case <-ctx.Done():
			return
		}
		tick.Reset(d.every)
		for d.Fault() != "" {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			d.try()
		}
	}
}

func (d *DiskWatch) try() {
	d.mu.Lock()
	before := d.failed
	d.mu.Unlock()
	if err := d.test(); err != nil {
		d.log.Debug("the disk still fails", "dir", d.dir, "error", err)
		d.mu.Lock()
		d.good = 0
		d.mu.Unlock()
		return
	}
	d.mu.Lock()
	first, ended := false, false
	if d.failed == before && d.fault != "" { // else one has failed, or the fault has ended, meanwhile
		d.good++
		if ended = d.endLocked(); !ended {
			first = d.good == 1
			d.fault = fmt.Sprintf("the log in %s could not be written for a while and is not complete yet", d.dir)
		}
	}
	d.mu.Unlock()
	d.tell(ended)
	if first {
		d.changed()
	}
}

// TestWrite tells whether a file system has room and takes it.
func TestWrite(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "test.new"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("test disk: %w", err)
	}
	// Without its name nothing is left, however this ends.
	err = os.Remove(f.Name())
	if err == nil {
		_, err = f.Write(make([]byte, diskTestSize))
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("test disk: %w", err)
	}
	return nil
}

// A WatchedStore is a log whose failures are noted.
type WatchedStore struct {
	raft.LogStore
	Disk *DiskWatch
}

// StoreLogs implements raft.LogStore.
func (l *WatchedStore) StoreLogs(logs []*raft.Log) error {
	err := l.LogStore.StoreLogs(logs)
	if err != nil {
		l.Disk.Note("log", err, true)
	} else {
		l.Disk.wrote()
	}
	return err
}

// StoreLog implements raft.LogStore.
func (l *WatchedStore) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// DeleteRange implements raft.LogStore.
func (l *WatchedStore) DeleteRange(first, last uint64) error {
	err := l.LogStore.DeleteRange(first, last)
	if err != nil {
		l.Disk.Note("log", err, false)
	}
	return err
}

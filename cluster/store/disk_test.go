package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftvip/raftvip/internal/testlog"

	"github.com/hashicorp/raft"
)

// A fullStore is a log on a disk that may be full.
type fullStore struct {
	raft.LogStore
	full *atomic.Bool
}

func (s fullStore) StoreLogs(logs []*raft.Log) error {
	if s.full.Load() {
		return &os.PathError{Op: "write", Path: "raft.db", Err: syscall.ENOSPC}
	}
	return s.LogStore.StoreLogs(logs)
}

func TestLogFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		changes, tests := 0, 0
		d := WatchDisk("/data", testlog.New(t, "a"), func() { changes++ }, func() error {
			tests++
			if full.Load() {
				return syscall.ENOSPC
			}
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go d.Run(ctx)
		log := &WatchedStore{fullStore{raft.NewInmemStore(), &full}, d}
		write := func() error { return log.StoreLog(&raft.Log{Index: 1}) }
		if err := write(); err != nil || d.Fault() != "" {
			t.Fatalf("%v, fault %q", err, d.Fault())
		}
		full.Store(true)
		for range 2 {
			if err := write(); !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
		}
		const want = "cannot write the log in /data: no space left on device"
		if d.Fault() != want || changes != 1 {
			t.Errorf("fault %q, want %q; told %d times", d.Fault(), want, changes)
		}
		time.Sleep(3*diskTestEvery + time.Millisecond)
		synctest.Wait()
		if d.Fault() != want || tests != 3 {
			t.Errorf("after %d tests: fault %q", tests, d.Fault())
		}
		full.Store(false)
		if err := write(); err != nil || d.Fault() != want {
			t.Errorf("%v; a write ended the fault without a test: %q", err, d.Fault())
		}
		time.Sleep(diskTestEvery)
		synctest.Wait()
		if d.Fault() != "" || changes != 2 {
			t.Errorf("fault %q, told %d times", d.Fault(), changes)
		}
		time.Sleep(time.Minute)
		if synctest.Wait(); tests != 4 {
			t.Errorf("%d tests, of a disk that is well", tests)
		}
	})
}

// A write that fails while the test succeeds is news that the test does not have.
func TestLogFaultDuringATest(t *testing.T) {
	var d *DiskWatch
	d = WatchDisk("/data", testlog.New(t, "a"), func() {}, func() error {
		d.Note("log", syscall.EIO, true)
		return nil
	})
	d.Note("vote", syscall.EIO, false)
	d.try()
	if got := d.Fault(); got != "cannot write the log in /data: input/output error" {
		t.Errorf("fault %q", got)
	}
}

// A node that has missed an entry may lead again, but not own before it has it.
func TestLogFaultUntilCaughtUp(t *testing.T) {
	changes := 0
	d := WatchDisk("/data", testlog.New(t, "a"), func() { changes++ }, func() error { return nil })
	log := &WatchedStore{raft.NewInmemStore(), d}
	d.Note("log", syscall.ENOSPC, true)
	if d.Broken() == "" {
		t.Error("it may stand for election")
	}
	d.try()
	if d.Broken() != "" || !strings.Contains(d.Fault(), "not complete yet") || changes != 2 {
		t.Errorf("broken %q, fault %q, told %d times", d.Broken(), d.Fault(), changes)
	}
	if err := log.StoreLog(&raft.Log{Index: 1}); err != nil || d.Fault() != "" || changes != 3 {
		t.Errorf("%v, fault %q, told %d times", err, d.Fault(), changes)
	}
	d.Note("log", syscall.ENOSPC, true)
	for range behindTests {
		if d.Fault() == "" {
			t.Error("it was not waited for")
		}
		d.try()
	}
	if d.Fault() != "" {
		t.Errorf("fault %q, and nobody will send what is missing", d.Fault())
	}
}

func TestVoteFault(t *testing.T) {
	s, err := openVoteStore(filepath.Join(t.TempDir(), "vote"), true, true)
	if err != nil {
		t.Fatal(err)
	}
	d := WatchDisk("/data", testlog.New(t, "a"), func() {}, s.Rewrite)
	s.Failed = func(err error) { d.Note("vote", err, false) }
	if err := s.SetUint64([]byte(keyCurrentTerm), 3); err != nil {
		t.Fatal(err)
	}
	if d.try(); d.Fault() != "" {
		t.Errorf("fault %q", d.Fault())
	}
	s.Close()
	if err := s.Set([]byte(keyLastVoteCand), []byte("b")); err == nil {
		t.Fatal("a vote was written to a closed file")
	}
	if d.try(); !strings.HasPrefix(d.Fault(), "cannot write the vote in /data: ") {
		t.Errorf("fault %q", d.Fault())
	}
}

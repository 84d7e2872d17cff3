package cluster

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

	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/internal/pki"
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
		d := newDiskWatch("/data", testLog(t, "a"), func() { changes++ }, func() error {
			tests++
			if full.Load() {
				return syscall.ENOSPC
			}
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go d.run(ctx)
		log := &watchedStore{fullStore{newMemStore(), &full}, d}
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
	var d *diskWatch
	d = newDiskWatch("/data", testLog(t, "a"), func() {}, func() error {
		d.note("log", syscall.EIO, true)
		return nil
	})
	d.note("vote", syscall.EIO, false)
	d.try()
	if got := d.Fault(); got != "cannot write the log in /data: input/output error" {
		t.Errorf("fault %q", got)
	}
}

// A node that has missed an entry may lead again, but not own before it has it.
func TestLogFaultUntilCaughtUp(t *testing.T) {
	changes := 0
	d := newDiskWatch("/data", testLog(t, "a"), func() { changes++ }, func() error { return nil })
	log := &watchedStore{newMemStore(), d}
	d.note("log", syscall.ENOSPC, true)
	if d.broken() == "" {
		t.Error("it may stand for election")
	}
	d.try()
	if d.broken() != "" || !strings.Contains(d.Fault(), "not complete yet") || changes != 2 {
		t.Errorf("broken %q, fault %q, told %d times", d.broken(), d.Fault(), changes)
	}
	if err := log.StoreLog(&raft.Log{Index: 1}); err != nil || d.Fault() != "" || changes != 3 {
		t.Errorf("%v, fault %q, told %d times", err, d.Fault(), changes)
	}
	d.note("log", syscall.ENOSPC, true)
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
	d := newDiskWatch("/data", testLog(t, "a"), func() {}, s.rewrite)
	s.failed = func(err error) { d.note("vote", err, false) }
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

func TestFaultyNodeDoesNotStand(t *testing.T) {
	r := newRig(t, 1).awake()
	fault := "cannot write the log in /data: no space left on device"
	r.trans.diskFault = func() string { return fault }
	ask := func() error {
		return r.trans.RequestPreVote("b", "b", &raft.RequestPreVoteRequest{RPCHeader: from("a"), Term: 2}, &raft.RequestPreVoteResponse{})
	}
	if err := ask(); !errors.Is(err, errDisk) || !strings.Contains(err.Error(), fault) || len(r.net.sent) != 0 {
		t.Errorf("%v, sent %v", err, r.net.sent)
	}
	fault = ""
	if err := ask(); err != nil || len(r.net.sent) != 1 {
		t.Errorf("%v, sent %v", err, r.net.sent)
	}
}

// The whole node: its test writes where Raft does, and leaves nothing.
func TestDiskTest(t *testing.T) {
	var token pki.Token
	m, _ := startFirst(t, &token)
	eventually(t, "a leader", func() bool { return leading(m) != nil })
	before, _ := m.votes.GetUint64([]byte(keyCurrentTerm))
	if err := m.testDisk(); err != nil {
		t.Error(err)
	}
	if after, _ := m.votes.GetUint64([]byte(keyCurrentTerm)); after != before {
		t.Errorf("term %d, was %d", after, before)
	}
	if left, _ := filepath.Glob(filepath.Join(m.opts.DataDir.groupDir(DefaultGroup), "*.new")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	m.disk.note("vote", syscall.ENOSPC, false)
	if m.LogFault() == "" {
		t.Error("no fault")
	}
	eventually(t, "the fault to end", func() bool { return m.LogFault() == "" })
}

// A leader whose disk hangs keeps its lease as long as voters answer: a heartbeat
// writes nothing. Cut off as well, its lease ends by the evidence alone, as Raft
// cannot step down before its disk goes on.
func TestOwnersDiskHangs(t *testing.T) {
	directed(t, 3, func(s *sim, owner *simHost, others []*simHost) {
		p := owner.proc
		term := p.raft.CurrentTerm()
		deadline := func() time.Duration { p.mu.Lock(); defer p.mu.Unlock(); return p.deadline }
		owner.hangDisk()
		p.raft.Apply([]byte("{}"), time.Second)
		for range 50 {
			before := deadline()
			s.advance(s.hb / 2)
			if !owner.answers() || deadline() <= before {
				t.Fatal("the lease is not renewed while the disk hangs")
			}
		}
		for _, o := range others {
			s.net.change(owner.name, o.name, func(l *simLink) { l.cut(false) })
			s.net.change(o.name, owner.name, func(l *simLink) { l.cut(false) })
		}
		s.advance(2 * time.Millisecond) // what was under way arrives
		last := deadline()
		moved := func() bool { return deadline() > last }
		s.within(2*s.hb, "the lease ends", func() bool { return !owner.answers() })
		s.within(20*s.hb, "another owns", func() bool { return s.owner() != nil })
		if p.raft.State() != raft.Leader || p.raft.CurrentTerm() != term {
			t.Fatal("Raft has stepped down while its disk hangs: this test shows nothing")
		}
		if moved() {
			t.Error("the lease was renewed without evidence")
		}
		// It thinks that it leads, and is heard again, and asks for its lease.
		s.net.healAll()
		for range 50 {
			s.advance(s.hb / 5)
			p.group.RefreshLease()
			if moved() || owner.answers() {
				t.Fatal("the old term's lease came back")
			}
		}
		owner.freeDisk()
		s.within(20*s.hb, "it steps down", func() bool { return p.raft.CurrentTerm() > term })
		s.advance(5 * s.hb)
		if s.owner() == nil {
			t.Error("nobody owns")
		}
	})
}

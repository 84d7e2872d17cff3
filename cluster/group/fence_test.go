package group

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// deadlineSink keeps the last deadline, as the guard's map does.
type deadlineSink struct{ until time.Duration }

func (s *deadlineSink) Renew(_ uint64, until time.Duration) { s.until = until }
func (s *deadlineSink) Revoke(uint64)                       { s.until = 0 }

// A renewal happens many times a second for as long as the node owns.
func TestRenewalAllocatesNothing(t *testing.T) {
	now, sink := time.Hour, &deadlineSink{}
	f := newFence("a", func() time.Duration { return now }, rigPromise, rigLength, 1, sink)
	f.readVoters = func() []string { return []string{"a", "b", "c"} }
	now += rigPromise
	f.acknowledged(2, "b", now)
	f.lead(2)
	allocated := testing.AllocsPerRun(100, func() {
		now += time.Millisecond
		f.acknowledged(2, "b", now)
	})
	if allocated != 0 {
		t.Errorf("%v allocations for each renewal", allocated)
	}
	if want := now + rigLength; sink.until != want {
		t.Errorf("the lease ends at %v, want %v", sink.until, want)
	}
}

// The quorum follows the configuration in the log, stored but not yet noted by Raft.
func TestLeaseCountsTheStoredConfiguration(t *testing.T) {
	now := time.Hour
	f := newFence("a", func() time.Duration { return now }, rigPromise, rigLength, 1, &deadlineSink{})
	stale := []string{"a", "b", "c"}
	f.readVoters = func() []string { return stale }
	log := &voterLog{raft.NewInmemStore(), f}
	store := func(index uint64, voters ...string) {
		t.Helper()
		var c raft.Configuration
		for _, id := range voters {
			c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
		}
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Nonvoter, ID: "n", Address: "n"})
		if err := log.StoreLog(&raft.Log{Index: index, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)}); err != nil {
			t.Fatal(err)
		}
	}
	until := func() time.Duration { _, u := f.until(); return u }
	now += rigPromise
	f.acknowledged(2, "b", now)
	f.lead(2)
	if until() == 0 {
		t.Fatal("no lease by two of three voters")
	}
	store(1, "a", "b", "c", "d", "e")
	if until() != 0 {
		t.Error("a lease by two of five voters")
	}
	store(2, "a", "b", "c")
	if until() == 0 {
		t.Error("no lease by two of the three voters that are left")
	}
	store(3, "a", "b", "c", "d")
	f.lead(2) // does not go back to what Raft has not noted yet
	if until() != 0 {
		t.Error("a lease by two of four voters")
	}
	if err := log.DeleteRange(1, 1); err != nil { // the beginning, as it is in a snapshot
		t.Fatal(err)
	}
	if until() != 0 {
		t.Error("the configuration is forgotten with the beginning of the log")
	}
	if err := log.DeleteRange(3, 3); err != nil {
		t.Fatal(err)
	}
	if until() == 0 {
		t.Error("the configuration that was deleted still counts")
	}
}

package group

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/raftvip/raftvip/cluster/state"
)

func configurationOf(ids ...string) raft.Configuration {
	var c raft.Configuration
	for _, id := range ids {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	return c
}

// A snapshot comes in while an append of an older configuration hangs on the disk. Raft
// deals with one after the other, and its last configuration is that of the snapshot.
func TestVotersOfAnInstalledSnapshot(t *testing.T) {
	r := newRig(t, 1).awake()
	snapshots := groupSnapshots{&memSnapshots{}, r.fence, &r.trans.installing}
	log := &voterLog{raft.NewInmemStore(), r.fence}
	older, newer := configurationOf("a", "b", "c"), configurationOf("a", "b", "c", "d", "e")
	appended := make(chan struct{})
	inner := r.raft
	r.raft = func(command any) any {
		req, ok := command.(*raft.InstallSnapshotRequest)
		if !ok {
			return inner(command)
		}
		<-appended // Raft's main loop writes the log until then
		sink, err := snapshots.Create(raft.SnapshotVersionMax, req.LastLogIndex, req.LastLogTerm, newer, 6, nil)
		if err != nil {
			t.Error(err)
			return nil
		}
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
		return inner(command)
	}
	answered := make(chan raft.RPCResponse, 1)
	go func() {
		answered <- r.ask(&raft.InstallSnapshotRequest{
			RPCHeader: from("b"), SnapshotVersion: raft.SnapshotVersionMax, Term: 2, LastLogIndex: 9, LastLogTerm: 2,
			ConfigurationIndex: 6, Configuration: raft.EncodeConfiguration(newer),
		})
	}()
	for end := time.Now().Add(10 * time.Second); !r.trans.installing.has(2, 9); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("Raft was not given the snapshot")
		}
	}
	err := log.StoreLog(&raft.Log{Index: 4, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(older)})
	if err != nil {
		t.Fatal(err)
	}
	close(appended)
	<-answered
	r.fence.mu.Lock()
	got := slices.Clone(r.fence.votersLocked())
	r.fence.mu.Unlock()
	if want := []string{"a", "b", "c", "d", "e"}; !slices.Equal(got, want) {
		t.Errorf("the lease is counted by %v, want %v", got, want)
	}
	// What this node takes of its own state says nothing new.
	sink, err := snapshots.Create(raft.SnapshotVersionMax, 9, 2, older, 4, nil)
	if err == nil {
		err = sink.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	r.fence.mu.Lock()
	defer r.fence.mu.Unlock()
	if got := r.fence.votersLocked(); len(got) != 5 {
		t.Errorf("an own snapshot changed the voters to %v", got)
	}
}

// The last command before a snapshot was refused. It does not come again, and nobody may
// wait for it.
func TestLeadAfterASnapshotThatEndsInARefusal(t *testing.T) {
	directed(t, 3, func(s *sim, owner *simHost, _ []*simHost) {
		s.advance(5 * time.Second)
		unknown := "no such token"
		if err := owner.proc.group.Apply(context.Background(), state.Command{DropToken: &unknown}); err == nil {
			t.Fatal("a token that nobody knows was dropped")
		}
		refused := owner.proc.raft.LastIndex()
		s.advance(5 * time.Second)
		for _, h := range s.hosts {
			// Raft takes none where all is in one already.
			if err := h.proc.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && !strings.Contains(err.Error(), "wait until the configuration") {
				t.Fatal(err)
			}
			meta := h.snaps.meta
			if meta == nil || meta.Index < refused || h.proc.group.machine.state.Load().Version > refused {
				t.Fatalf("%s: the snapshot %+v does not end in the refusal at %d", h.name, meta, refused)
			}
		}
		for _, h := range s.hosts {
			h.kill()
		}
		for _, h := range s.hosts {
			h.boot()
		}
		s.advance(s.hb) // the old lease ends
		s.within(5*time.Second, "somebody owns", func() bool { return s.owner() != nil })
	})
}

package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/pki"
)

// Whatever of a log is gone, the node does not go on under its old identity.
func TestLostLogIsNoticed(t *testing.T) {
	var token pki.Token
	lb1, _ := startFirst(t, &token)
	eventually(t, "founded", func() bool { return lb1.State().Founded() })
	for range 3 {
		if err := lb1.Apply(context.Background(), state.Command{PutToken: &state.TokenRecord{ID: pki.Token{}.ID + "x", Expires: time.Now().Add(time.Hour), Uses: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := lb1.group.Raft().Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		t.Logf("no snapshot: %v", err)
	}
	lb1.stop()
	dir := filepath.Join(lb1.dir, store.RaftDir, state.DefaultGroup)
	file := filepath.Join(dir, "raft.db")
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what, why string) {
		t.Helper()
		if _, err := openMember(t, lb1.dir, freeAddress(t)); !errors.Is(err, store.ErrLogLost) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want ErrLogLost with %q", what, err, why)
		}
	}
	remove := func() {
		t.Helper()
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	refused("raft.db is missing beside the vote", "the file is gone")
	if _, err := os.Stat(file); err == nil {
		t.Error("an empty log was left in the place of the lost one")
	}
	snaps := filepath.Join(dir, "snapshots")
	if err := os.Rename(snaps, snaps+".away"); err != nil {
		t.Fatal(err)
	}
	empty, err := store.OpenStore(file)
	if err != nil {
		t.Fatal(err)
	}
	empty.Close()
	refused("an empty log", "it is empty")
	remove()
	if err := os.WriteFile(file, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(snaps); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(snaps+".away", snaps); err != nil {
		t.Fatal(err)
	}
	applied := func(add int) {
		t.Helper()
		data, err := store.OpenDataDir(lb1.dir)
		if err != nil {
			t.Fatal(err)
		}
		defer data.Close()
		cache, err := data.Cache()
		if err != nil {
			t.Fatal(err)
		}
		if cache.Version == 0 {
			t.Error("the version of the state is not written down")
		}
		cache.Version = uint64(int(cache.Version) + add)
		if err := data.WriteCache(cache); err != nil {
			t.Fatal(err)
		}
	}
	applied(1000)
	refused("an older log", "had applied entry")
	applied(-1000)
	again, err := openMember(t, lb1.dir, freeAddress(t))
	if err != nil {
		t.Fatalf("with its own log: %v", err)
	}
	again.stop()
}

// Where the disk of a voter fails, it takes no part until it has recovered, and the
// process lives.
func TestVoterThatCannotWriteItsTerm(t *testing.T) {
	all, _ := threeNodes(t)
	var leader *member
	eventually(t, "a leader of three voters", func() bool {
		leader = leading(all[:]...)
		return leader != nil && voters(leader) == 3
	})
	var voter, other *member
	for _, m := range all {
		switch {
		case m == leader:
		case voter == nil:
			voter = m
		default:
			other = m
		}
	}
	voter.votes.Close() // no write succeeds from here on
	leader.stop()
	eventually(t, "the fault is noticed", func() bool { return voter.disk.Fault() != "" })
	time.Sleep(time.Second)
	if l := leading(voter, other); l != nil {
		t.Errorf("%s leads, with a vote that is on no disk", l.Self().Name)
	}
	dir, address := voter.dir, voter.Advertise()
	voter.stop()
	voter, err := openMember(t, dir, address)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the two that are left elect one", func() bool { return leading(voter, other) != nil })
}

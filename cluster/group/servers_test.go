package group

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/cluster/state"
)

// unanswered is a future that Raft has forgotten.
type unanswered struct{ end chan struct{} }

func (f unanswered) Error() error { <-f.end; return nil }

// A change that Raft was asked for in the moment of its shutdown keeps nobody from ending.
func TestChangeThatIsNeverAnswered(t *testing.T) {
	g := &Group{ended: make(chan struct{})}
	f := unanswered{make(chan struct{})}
	defer close(f.end)
	close(g.ended)
	if err := g.awaitChange(f, time.Hour); !errors.Is(err, raft.ErrRaftShutdown) {
		t.Error(err)
	}
}

// A beginning that was cut short after its term was written is completed.
func TestBeginIsCompleted(t *testing.T) {
	store := raft.NewInmemStore()
	if err := store.SetUint64([]byte("CurrentTerm"), 1); err != nil {
		t.Fatal(err)
	}
	p := Options{Name: "g1.1", Self: "a", Heartbeat: state.HeartbeatSetting{Current: time.Second, Previous: time.Second}, Logs: store, Stable: store, Snapshots: raft.NewInmemSnapshotStore(), RaftLog: slog.New(slog.DiscardHandler)}
	voters := []state.GroupVoter{{ID: "a", Address: "a:1"}, {ID: "b", Address: "b:1"}}
	for range 2 {
		if err := Begin(p, voters); err != nil {
			t.Fatal(err)
		}
		var e raft.Log
		last, _ := store.LastIndex()
		if err := store.GetLog(1, &e); err != nil || last != 1 || e.Type != raft.LogConfiguration || e.Term != 1 {
			t.Fatalf("the log ends at %d, entry 1 is %+v: %v", last, e, err)
		}
	}
}

package group

import (
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/testlog"
)

func TestDivergedStatesAreFound(t *testing.T) {
	same := func() *stateMachine { return newStateMachine(state.New(), NewBroadcast(), testlog.New(t, "fsm")) }
	a, b := same(), same()
	a.kept.Self, b.kept.Self = "a", "b"
	put := func(m *stateMachine, index uint64, name string) {
		s, err := m.state.Load().Apply(state.Command{PutNode: &state.NodeRecord{ID: name, Name: name}, Found: nil}, index)
		if err != nil {
			t.Fatal(err)
		}
		m.state.Store(s)
		m.kept.Keep(index, s)
	}
	for _, m := range []*stateMachine{a, b} {
		s, err := m.state.Load().Apply(state.Command{Found: &state.Founding{ClusterID: "c", Node: state.NodeRecord{ID: "a", Name: "a"}, Heartbeat: time.Second}}, 1)
		if err != nil {
			t.Fatal(err)
		}
		m.state.Store(s)
		m.kept.Keep(1, s)
	}
	put(a, 2, "x")
	index, sum := a.kept.Newest()
	if b.kept.Compare("a", "a", index, sum) || len(b.kept.Findings()) > 0 {
		t.Error("an entry that is not here yet is a difference")
	}
	put(b, 2, "x")
	if b.kept.Compare("a", "a", index, sum) {
		t.Error("equal states differ")
	}
	put(a, 3, "y")
	put(b, 3, "z")
	index, sum = a.kept.Newest()
	put(b, 4, "w") // and it has gone on
	if !b.kept.Compare("a", "a", index, sum) || len(b.kept.Findings()) != 1 || b.kept.Compare("a", "a", index, sum) {
		t.Error("states that differ are no news, once")
	}
}

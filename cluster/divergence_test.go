package cluster

import (
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testlog"
)

func TestDivergedStatesAreFound(t *testing.T) {
	same := func() *stateMachine { return newStateMachine(newBroadcast(), testlog.New(t, "fsm")) }
	a, b := same(), same()
	a.kept.self, b.kept.self = "a", "b"
	put := func(m *stateMachine, index uint64, name string) {
		s, err := m.state.Load().apply(Command{PutNode: &NodeRecord{ID: name, Name: name}, Found: nil}, index)
		if err != nil {
			t.Fatal(err)
		}
		m.state.Store(s)
		m.kept.keep(index, s)
	}
	for _, m := range []*stateMachine{a, b} {
		s, err := m.state.Load().apply(Command{Found: &Founding{ClusterID: "c", Node: NodeRecord{ID: "a", Name: "a"}, Heartbeat: time.Second}}, 1)
		if err != nil {
			t.Fatal(err)
		}
		m.state.Store(s)
		m.kept.keep(1, s)
	}
	put(a, 2, "x")
	index, sum := a.kept.newest()
	if b.kept.compare("a", "a", index, sum) || len(b.kept.findings()) > 0 {
		t.Error("an entry that is not here yet is a difference")
	}
	put(b, 2, "x")
	if b.kept.compare("a", "a", index, sum) {
		t.Error("equal states differ")
	}
	put(a, 3, "y")
	put(b, 3, "z")
	index, sum = a.kept.newest()
	put(b, 4, "w") // and it has gone on
	if !b.kept.compare("a", "a", index, sum) || len(b.kept.findings()) != 1 || b.kept.compare("a", "a", index, sum) {
		t.Error("states that differ are no news, once")
	}
}

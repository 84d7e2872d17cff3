package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// A stateMachine applies the log to the replicated state (raft.FSM).
type stateMachine struct {
	state atomic.Pointer[State]
	// applied is the index of the newest command applied, or less.
	applied atomic.Uint64
	changed *broadcast
}

func newStateMachine(changed *broadcast) *stateMachine {
	m := &stateMachine{changed: changed}
	m.state.Store(newState())
	return m
}

// Apply implements raft.FSM. It returns nil or the error by which the command was
// refused; a refused command leaves the state as it was, on every node.
func (m *stateMachine) Apply(entry *raft.Log) any {
	defer m.applied.Store(entry.Index)
	var c Command
	if err := json.Unmarshal(entry.Data, &c); err != nil {
		return fmt.Errorf("log entry %d: %w", entry.Index, err)
	}
	next, err := m.state.Load().apply(c, entry.Index)
	if err != nil {
		return err
	}
	m.state.Store(next)
	m.changed.notify()
	return nil
}

// Snapshot implements raft.FSM.
func (m *stateMachine) Snapshot() (raft.FSMSnapshot, error) {
	return snapshot{m.state.Load()}, nil
}

// Restore implements raft.FSM.
func (m *stateMachine) Restore(r io.ReadCloser) error {
	defer r.Close()
	s := newState()
	if err := json.NewDecoder(r).Decode(s); err != nil {
		return fmt.Errorf("read snapshot of the replicated state: %w", err)
	}
	if s.Format > StateFormat {
		return fmt.Errorf("read snapshot of the replicated state: it has format %d, this version of raftvip knows up to %d", s.Format, StateFormat)
	}
	m.state.Store(s)
	m.applied.Store(s.Version)
	m.changed.notify()
	return nil
}

type snapshot struct{ state *State }

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode(s.state); err != nil {
		sink.Cancel()
		return fmt.Errorf("write snapshot of the replicated state: %w", err)
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (snapshot) Release() {}

// A broadcast wakes everyone who waits for a change. Waiters read the newest
// value after waking, so no change can be missed, though several may be seen as one.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

func newBroadcast() *broadcast { return &broadcast{ch: make(chan struct{})} }

// wait returns a channel that is closed at the next notify. Take it before
// reading the value.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}

func (b *broadcast) notify() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.ch)
	b.ch = make(chan struct{})
}

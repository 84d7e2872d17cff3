package group

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"github.com/raftvip/raftvip/cluster/state"
)

// A stateMachine applies the log to the replicated state (raft.FSM).
type stateMachine struct {
	// group is the ID of the ownership group whose state it is, "" for the default one.
	group string
	state atomic.Pointer[state.State]
	// applied is the index of the newest command applied, or less.
	applied atomic.Uint64
	changed *Broadcast
	log     *slog.Logger

	// kept are the newest states, to compare with those of other nodes.
	kept *state.Divergence

	// halted says why nothing is applied any more, nil while all is.
	halted atomic.Pointer[error]
	// opening: Raft is being opened and tries one snapshot after the other.
	opening atomic.Bool
}

// newStateMachine begins with a state; a group's first one says whose it is.
func newStateMachine(first *state.State, changed *Broadcast, log *slog.Logger) *stateMachine {
	m := &stateMachine{group: first.Group, changed: changed, log: log, kept: &state.Divergence{}}
	m.opening.Store(true)
	m.state.Store(first)
	return m
}

// halt ends applying: what follows would be applied to a state that is not the
// cluster's. Only a whole state ends it, or a program that understands more.
func (m *stateMachine) halt(err error) {
	if old := m.stopped(); old == nil || old.Error() != err.Error() {
		m.log.Error("cannot follow the replicated state: this node neither leads nor owns", "error", err)
	}
	m.halted.Store(&err)
	m.changed.Notify()
}

// stopped says why nothing is applied, or is nil.
func (m *stateMachine) stopped() error {
	if p := m.halted.Load(); p != nil {
		return *p
	}
	return nil
}

// Apply implements raft.FSM. It returns nil or the error by which the command was
// refused; a refused command leaves the state as it was, on every node. A command that
// only a newer program understands is not refused: this node stops there.
func (m *stateMachine) Apply(entry *raft.Log) any {
	if err := m.stopped(); err != nil {
		return err
	}
	c, err := state.DecodeCommand(entry.Data, entry.Index)
	if _, newer := errors.AsType[*state.NewerError](err); newer {
		m.halt(err)
		return err
	}
	defer func() {
		m.applied.Store(entry.Index)
		m.kept.Keep(entry.Index, m.state.Load())
	}()
	if err != nil {
		return err
	}
	next, err := m.state.Load().Apply(c, entry.Index)
	if err != nil {
		return err
	}
	m.state.Store(next)
	m.changed.Notify()
	return nil
}

// Snapshot implements raft.FSM. Raft counts entries as applied that were not, where
// this node has stopped: a snapshot would hide that for good.
func (m *stateMachine) Snapshot() (raft.FSMSnapshot, error) {
	if err := m.stopped(); err != nil {
		return nil, err
	}
	return snapshot{m.state.Load()}, nil
}

// Restore implements raft.FSM.
func (m *stateMachine) Restore(r io.ReadCloser) error {
	defer r.Close()
	if err := m.stopped(); err != nil && m.opening.Load() {
		return err // an older snapshot is no way round a newer one
	}
	index := indexOf(r)
	s, err := readState(r)
	if err == nil && s.Group != m.group {
		err = fmt.Errorf("it is of group %.80q, and this is %q", s.Group, m.group)
	}
	if err != nil {
		err = fmt.Errorf("read snapshot of the replicated state: %w", err)
		m.halt(err)
		return err
	}
	m.state.Store(s)
	m.kept.Keep(s.Version, s)
	// Commands after the last change of the state, up to the end of the snapshot, were
	// refused. They are in the log and come again to nobody.
	m.applied.Store(max(s.Version, index))
	if m.stopped() != nil {
		m.log.Info("following the replicated state again")
		m.halted.Store(nil)
	}
	m.changed.Notify()
	return nil
}

// readState reads a snapshot's content.
func readState(r io.Reader) (*state.State, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxState+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxState {
		return nil, fmt.Errorf("it has more than %d bytes", maxState)
	}
	var head struct {
		Format int `json:"format"`
		Level  int `json:"level"`
	}
	_ = json.Unmarshal(data, &head) // an error is found again below
	switch {
	case head.Format > state.Format:
		return nil, &state.NewerError{What: "the replicated state", Why: fmt.Sprintf("it has format %d, this version knows up to %d", head.Format, state.Format)}
	case head.Level > state.FeatureLevel:
		return nil, &state.NewerError{What: "the replicated state", Why: fmt.Sprintf("it needs feature level %d, this version knows up to %d", head.Level, state.FeatureLevel)}
	}
	s := state.New()
	if err := state.DecodeStrictly(data, s); err != nil {
		if json.Valid(data) {
			return nil, &state.NewerError{What: "the replicated state", Why: state.Unknown(err)}
		}
		return nil, err
	}
	// Null in the file is no map, and commands write into these.
	fresh := state.New()
	if s.Nodes == nil {
		s.Nodes = fresh.Nodes
	}
	if s.Removed == nil {
		s.Removed = fresh.Removed
	}
	if s.Tokens == nil {
		s.Tokens = fresh.Tokens
	}
	return s, nil
}

// maxState bounds a snapshot in bytes: far more than the bounds of its parts allow.
const maxState = 64 << 20

type snapshot struct{ state *state.State }

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

// A Broadcast wakes everyone who waits for a change. Waiters read the newest
// value after waking, so no change can be missed, though several may be seen as one.
type Broadcast struct {
	mu sync.Mutex
	ch chan struct{}
	// then, if not nil, is called at each change, and does not block.
	then func()
}

func NewBroadcast() *Broadcast { return &Broadcast{ch: make(chan struct{})} }

// NewBroadcastTo is a broadcast that also calls then, which must not block, at each
// change.
func NewBroadcastTo(then func()) *Broadcast { return &Broadcast{ch: make(chan struct{}), then: then} }

// Wait returns a channel that is closed at the next notify. Take it before
// reading the value.
func (b *Broadcast) Wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}

func (b *Broadcast) Notify() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.ch)
	b.ch = make(chan struct{})
	if b.then != nil {
		b.then()
	}
}

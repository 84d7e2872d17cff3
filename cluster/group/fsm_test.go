package group

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/raftvip/raftvip/cluster/raftlog"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
)

// machineAt is a state machine that has applied one command.
func machineAt(t *testing.T, log io.Writer) *stateMachine {
	t.Helper()
	m := newStateMachine(state.New(), NewBroadcast(), slog.New(slog.NewTextHandler(log, nil)))
	m.opening.Store(false)
	b, err := state.EncodeCommand(state.Command{Found: &state.Founding{ClusterID: "c", Node: state.NodeRecord{ID: "lb1-00000001", Name: "lb1", Address: "192.0.2.1:7946"}, Heartbeat: time.Second, Level: 2}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if refused := m.Apply(&raft.Log{Index: 1, Data: b}); refused != nil {
		t.Fatal(refused)
	}
	return m
}

// What a newer program has written ends applying: neither is it skipped, nor does
// anything follow it, nor is a snapshot taken that would hide it.
func TestNewerEntriesStopTheNode(t *testing.T) {
	drain := `{"at":"2026-01-01T00:00:00Z","drain":{"node_id":"lb1-00000001","drained":true}}`
	for name, data := range map[string]string{
		"command": `{"at":"2026-01-01T00:00:00Z","teleport":{}}`,
		"field":   `{"at":"2026-01-01T00:00:00Z","drain":{"node_id":"lb1-00000001","drained":true,"softly":true}}`,
		"level":   `{"at":"2026-01-01T00:00:00Z","level":9,"drain":{"node_id":"lb1-00000001","drained":true}}`,
		"type":    `{"at":"2026-01-01T00:00:00Z","drain":{"node_id":["lb1-00000001"],"drained":true}}`,
	} {
		var log bytes.Buffer
		m := machineAt(t, &log)
		for i, entry := range []string{data, drain} {
			err, _ := m.Apply(&raft.Log{Index: uint64(2 + i), Data: []byte(entry)}).(error)
			if _, newer := errors.AsType[*state.NewerError](err); !newer || !strings.Contains(err.Error(), "log entry 2") {
				t.Errorf("%s, entry %d: %v", name, 2+i, err)
			}
		}
		if s := m.state.Load(); s.Version != 1 || s.Nodes["lb1-00000001"].Drained || m.applied.Load() != 1 {
			t.Errorf("%s: the state went on to version %d, applied %d", name, s.Version, m.applied.Load())
		}
		if _, err := m.Snapshot(); err == nil {
			t.Errorf("%s: a snapshot was taken", name)
		}
		if strings.Count(log.String(), "level=ERROR") != 1 {
			t.Errorf("%s: log:\n%s", name, log.String())
		}
		// The whole state, as a leader sends it later, is a new beginning.
		b, err := json.Marshal(machineAt(t, io.Discard).state.Load())
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Restore(io.NopCloser(bytes.NewReader(b))); err != nil || m.stopped() != nil {
			t.Errorf("%s: %v, %v", name, err, m.stopped())
		}
	}
	// What nobody understands is refused by all alike.
	m := machineAt(t, io.Discard)
	if err, _ := m.Apply(&raft.Log{Index: 2, Data: []byte("\x00rubbish")}).(error); err == nil || m.stopped() != nil || m.applied.Load() != 2 {
		t.Errorf("rubbish: %v, stopped %v, applied %d", err, m.stopped(), m.applied.Load())
	}
}

func TestRefusedSnapshotsAreSeen(t *testing.T) {
	for name, tt := range map[string]struct {
		data, want string
		newer      bool
	}{
		"format":  {`{"format":4,"cluster_id":"c"}`, "it has format 4, this version knows up to 3", true},
		"level":   {`{"format":2,"level":9,"cluster_id":"c"}`, "it needs feature level 9", true},
		"field":   {`{"format":2,"cluster_id":"c","moods":[]}`, `unknown field "moods"`, true},
		"damaged": {`{"format":1,"cluster_id":`, "unexpected EOF", false},
	} {
		var log bytes.Buffer
		m := machineAt(t, &log)
		err := m.Restore(io.NopCloser(strings.NewReader(tt.data)))
		_, newer := errors.AsType[*state.NewerError](err)
		if err == nil || newer != tt.newer || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if m.stopped() == nil || !strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("%s: stopped %v, log %q", name, m.stopped(), log.String())
		}
	}
	m := machineAt(t, io.Discard)
	if err := m.Restore(io.NopCloser(strings.NewReader(`{"format":1,"cluster_id":"c","nodes":null,"removed":null,"tokens":null}`))); err != nil {
		t.Fatal(err)
	}
	b := []byte(`{"at":"2026-01-01T00:00:00Z","join":{"node":{"id":"lb9-00000009","name":"lb9","address":"192.0.2.9:7946","joined":"2026-01-01T00:00:00Z"},"trusted":true}}`)
	if err := m.Apply(&raft.Log{Index: 9, Data: b}); err != nil {
		t.Errorf("a command after null maps: %v", err)
	}
}

// A daemon that is started with an older program says what is the matter.
func TestOlderProgramOnNewerData(t *testing.T) {
	dir := t.TempDir()
	mem := raft.NewInmemStore()
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, raftlog.New(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	_, trans := raft.NewInmemTransport("192.0.2.1:7946")
	write := func(index uint64, state string) {
		sink, err := snaps.Create(raft.SnapshotVersionMax, index, 1, raft.Configuration{Servers: []raft.Server{{ID: "lb1-00000001", Address: "192.0.2.1:7946"}}}, 1, trans)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(sink, state)
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write(1, `{"format":1,"cluster_id":"c"}`)
	write(9, `{"format":7,"cluster_id":"c"}`)
	_, err = Open(Options{
		Name: state.DefaultGroup, Self: "lb1-00000001", Log: slog.New(slog.DiscardHandler), RaftLog: slog.New(slog.DiscardHandler),
		Now: func() time.Duration { return 0 }, Heartbeat: state.HeartbeatSetting{Current: time.Second, Previous: time.Second},
		Sink: &recordingSink{}, Inner: trans, Logs: mem, Stable: mem, Snapshots: snaps, Changed: NewBroadcast(),
	})
	if _, newer := errors.AsType[*state.NewerError](err); !newer || errors.Is(err, store.ErrLogLost) {
		t.Errorf("got %v", err)
	}
}

func TestSnapshotWithNullMapsCanBeWrittenTo(t *testing.T) {
	s, err := readState(strings.NewReader(`{"format":1,"cluster_id":"c","nodes":null,"removed":null,"tokens":null}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []state.Command{
		{PutNode: &state.NodeRecord{ID: "n1-1", Name: "n1", Address: "h:1"}},
		{PutToken: &state.TokenRecord{ID: "t"}},
		{RemoveNode: new("n1-1")},
	} {
		if s, err = s.Apply(c, 2); err != nil {
			t.Fatal(err)
		}
	}
}

// The state of one group says of another one that it may own what it lists.
func TestSnapshotOfAnotherGroupIsRefused(t *testing.T) {
	own := state.NewGroup(state.GroupRecord{ID: "g1.1", Level: 3})
	for name, s := range map[string]*state.State{
		"another group": state.NewGroup(state.GroupRecord{ID: "g1.2", Level: 3}), "the default group": state.New(), "": own,
	} {
		m := newStateMachine(own, NewBroadcast(), slog.New(slog.DiscardHandler))
		m.opening.Store(false)
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Restore(io.NopCloser(bytes.NewReader(b))); (err != nil) != (name != "") || (m.stopped() != nil) != (name != "") {
			t.Errorf("%q: %v, stopped %v", name, err, m.stopped())
		}
	}
}

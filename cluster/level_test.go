package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/raftvip/raftvip/internal/pki"
)

var update = flag.Bool("update", false, "rewrite testdata")

// fieldsOf lists the fields of a type and of what is in it, without those with a level.
func fieldsOf(t reflect.Type, into map[string]bool) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		fieldsOf(t.Elem(), into)
	case reflect.Struct:
		if t.PkgPath() != reflect.TypeFor[State]().PkgPath() {
			return
		}
		for i := range t.NumField() {
			f := t.Field(i)
			name := t.Name() + "." + jsonName(f)
			if level, _ := tagOf(f); level > 1 || into[name] {
				continue
			}
			into[name] = true
			fieldsOf(f.Type, into)
		}
	}
}

// The fields of level 1 are what the first programs know. One more without a tag would
// be written into clusters whose members do not know it.
func TestNewFieldsHaveALevel(t *testing.T) {
	fields := make(map[string]bool)
	fieldsOf(reflect.TypeFor[Command](), fields)
	fieldsOf(reflect.TypeFor[State](), fields)
	path := filepath.Join("testdata", "level1.txt")
	have := strings.Join(slices.Sorted(maps.Keys(fields)), "\n") + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(have), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Fields(string(want))
	for name := range fields {
		if !slices.Contains(known, name) {
			t.Errorf("%s is new: give it a tag level:\"%d\", or level:\"%d,drop\" if it may be left out where members are older (see FeatureLevel)", name, FeatureLevel, FeatureLevel)
		}
	}
	for _, name := range known {
		if !fields[name] {
			t.Errorf("%s is gone: older logs and snapshots have it, and would not be understood", name)
		}
	}
}

func founded(level int) *State {
	s, err := newState().apply(Command{At: time.Now(), Found: &Founding{
		ClusterID: "c", Node: NodeRecord{ID: "lb1-00000001", Name: "lb1", Address: "192.0.2.1:7946"}, Heartbeat: time.Second, Level: level,
	}}, 1)
	if err != nil {
		panic(err)
	}
	return s
}

func TestCommandsWaitForTheLevel(t *testing.T) {
	join := Command{Join: &JoinCommand{Node: NodeRecord{ID: "lb2-00000002", Name: "lb2", Address: "192.0.2.2:7946"}, Trusted: true, Level: 2}}
	b, err := encodeCommand(join, 1)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), `"level"`) {
		t.Errorf("at level 1: %s", b)
	}
	if join.Join.Level != 2 {
		t.Error("the caller's command was changed")
	}
	if b, err = encodeCommand(join, 2); err != nil || strings.Count(string(b), `"level":2`) != 2 {
		t.Errorf("at level 2: %s, %v", b, err)
	}
	type part struct {
		New string `json:"new" level:"3"`
	}
	if level, field := levelOf(reflect.ValueOf(struct{ Parts []*part }{[]*part{nil, {New: "x"}}})); level != 3 || field != "new" {
		t.Errorf("level %d of field %q, want 3 of new", level, field)
	}
}

func TestLevelIsRaisedWhenAllKnowIt(t *testing.T) {
	s := founded(0)
	if s.Format != 1 || s.FeatureLevel() != 1 {
		t.Fatalf("format %d, level %d", s.Format, s.FeatureLevel())
	}
	s, err := s.apply(Command{Join: &JoinCommand{Node: NodeRecord{ID: "lb2-00000002", Name: "lb2", Address: "192.0.2.2:7946"}, Trusted: true}}, 2)
	if err != nil {
		t.Fatal(err)
	}
	report := func(level int, age time.Duration) map[string]SeenReport {
		return map[string]SeenReport{"lb2-00000002": {Report: Report{Level: level}, Age: age}}
	}
	for _, tt := range []struct {
		name    string
		reports map[string]SeenReport
		want    int
	}{
		{"silent", nil, 0},
		{"silent for long", report(2, time.Minute), 0},
		{"older", report(0, 0), 1},
		{"newer", report(9, 0), FeatureLevel},
	} {
		if got, _ := commonLevel(s, "lb1-00000001", tt.reports); got != tt.want {
			t.Errorf("%s: level %d, want %d", tt.name, got, tt.want)
		}
	}
	// One is admitted after the leader has looked.
	_, err = s.apply(Command{Raise: &RaiseCommand{Level: 2, Nodes: []string{"lb1-00000001"}}}, 3)
	refusedWith(t, err, CodeNotReady)
	s, err = s.apply(Command{Raise: &RaiseCommand{Level: 2, Nodes: []string{"lb1-00000001", "lb2-00000002"}}}, 3)
	if err != nil || s.Level != 2 || s.Format != 2 {
		t.Fatalf("%+v, %v", s, err)
	}
	_, err = s.apply(Command{Join: &JoinCommand{Node: NodeRecord{ID: "lb3-00000003", Name: "lb3", Address: "192.0.2.3:7946"}, Trusted: true}}, 4)
	if r := refusedWith(t, err, CodeOlderMember); !strings.Contains(r.Message, "lb3 runs an older raftvip") {
		t.Errorf("message %q", r.Message)
	}
}

// machineAt is a state machine that has applied one command.
func machineAt(t *testing.T, log io.Writer) *stateMachine {
	t.Helper()
	m := newStateMachine(newBroadcast(), slog.New(slog.NewTextHandler(log, nil)))
	m.opening.Store(false)
	b, err := encodeCommand(Command{Found: &Founding{ClusterID: "c", Node: NodeRecord{ID: "lb1-00000001", Name: "lb1", Address: "192.0.2.1:7946"}, Heartbeat: time.Second, Level: 2}}, 1)
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
			if _, newer := errors.AsType[*NewerError](err); !newer || !strings.Contains(err.Error(), "log entry 2") {
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
		b, err := json.Marshal(founded(2))
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
		"format":  {`{"format":3,"cluster_id":"c"}`, "it has format 3, this version knows up to 2", true},
		"level":   {`{"format":2,"level":9,"cluster_id":"c"}`, "it needs feature level 9", true},
		"field":   {`{"format":2,"cluster_id":"c","moods":[]}`, `unknown field "moods"`, true},
		"damaged": {`{"format":1,"cluster_id":`, "unexpected EOF", false},
	} {
		var log bytes.Buffer
		m := machineAt(t, &log)
		err := m.Restore(io.NopCloser(strings.NewReader(tt.data)))
		_, newer := errors.AsType[*NewerError](err)
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
	store := raft.NewInmemStore()
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, newRaftLogger(slog.New(slog.DiscardHandler)))
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
	_, err = newGroup(groupParts{
		name: DefaultGroup, self: "lb1-00000001", log: slog.New(slog.DiscardHandler), raftLog: slog.New(slog.DiscardHandler),
		now: func() time.Duration { return 0 }, heartbeat: HeartbeatSetting{Current: time.Second, Previous: time.Second},
		sink: &recordingSink{}, inner: trans, logs: store, stable: store, snapshots: snaps, changed: newBroadcast(),
	})
	if _, newer := errors.AsType[*NewerError](err); !newer || errors.Is(err, ErrLogLost) {
		t.Errorf("got %v", err)
	}
}

// A node that has met something newer keeps its log and its vote, but does not lead,
// also after a restart.
func TestNodeThatIsTooOldDoesNotLead(t *testing.T) {
	var token pki.Token
	lb1, _ := startFirst(t, &token)
	eventually(t, "leads", func() bool { return leading(lb1) != nil && lb1.State().Founded() })
	if level := lb1.State().Level; level != FeatureLevel {
		t.Errorf("founded at level %d", level)
	}
	future := lb1.group.raft.Apply([]byte(`{"at":"2026-01-01T00:00:00Z","teleport":{}}`), 5*time.Second)
	if err := future.Error(); err != nil {
		t.Fatal(err)
	}
	check := func(m *member) {
		t.Helper()
		eventually(t, "says why", func() bool { return strings.Contains(m.LogFault(), `unknown field "teleport"`) })
		if err := m.group.trans.stand(); !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "older than its cluster") {
			t.Errorf("stands for election: %v", err)
		}
	}
	check(lb1)
	dir, address := lb1.dir, lb1.Advertise()
	lb1.stop()
	lb1, err := openMember(t, dir, address)
	if err != nil {
		t.Fatal(err)
	}
	// The lone voter asks nobody for its vote: it wins, reads its log, and stops there.
	check(lb1)
	if leading(lb1) != nil {
		t.Error("it leads with a log that it does not understand")
	}
}

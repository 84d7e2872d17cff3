package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/pki"
)

func TestLevelIsRaisedWhenAllKnowIt(t *testing.T) {
	s, err := state.New().Apply(state.Command{At: time.Now(), Found: &state.Founding{
		ClusterID: "c", Node: state.NodeRecord{ID: "lb1-00000001", Name: "lb1", Address: "192.0.2.1:7946"}, Heartbeat: time.Second,
	}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if s.Format != 1 || s.FeatureLevel() != 1 {
		t.Fatalf("format %d, level %d", s.Format, s.FeatureLevel())
	}
	s, err = s.Apply(state.Command{Join: &state.JoinCommand{Node: state.NodeRecord{ID: "lb2-00000002", Name: "lb2", Address: "192.0.2.2:7946"}, Trusted: true}}, 2)
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
		{"newer", report(9, 0), state.FeatureLevel},
	} {
		if got, _ := commonLevel(s, "lb1-00000001", tt.reports); got != tt.want {
			t.Errorf("%s: level %d, want %d", tt.name, got, tt.want)
		}
	}
	// One is admitted after the leader has looked.
	_, err = s.Apply(state.Command{Raise: &state.RaiseCommand{Level: 2, Nodes: []string{"lb1-00000001"}}}, 3)
	refusedWith(t, err, state.CodeNotReady)
	s, err = s.Apply(state.Command{Raise: &state.RaiseCommand{Level: 2, Nodes: []string{"lb1-00000001", "lb2-00000002"}}}, 3)
	if err != nil || s.Level != 2 || s.Format != 2 {
		t.Fatalf("%+v, %v", s, err)
	}
	_, err = s.Apply(state.Command{Join: &state.JoinCommand{Node: state.NodeRecord{ID: "lb3-00000003", Name: "lb3", Address: "192.0.2.3:7946"}, Trusted: true}}, 4)
	if r := refusedWith(t, err, state.CodeOlderMember); !strings.Contains(r.Message, "lb3 runs an older raftvip") {
		t.Errorf("message %q", r.Message)
	}
}

// A node that has met something newer keeps its log and its vote, but does not lead,
// also after a restart.
func TestNodeThatIsTooOldDoesNotLead(t *testing.T) {
	var token pki.Token
	lb1, _ := startFirst(t, &token)
	eventually(t, "leads", func() bool { return leading(lb1) != nil && lb1.State().Founded() })
	if level := lb1.State().Level; level != state.FeatureLevel {
		t.Errorf("founded at level %d", level)
	}
	future := lb1.group.Raft().Apply([]byte(`{"at":"2026-01-01T00:00:00Z","teleport":{}}`), 5*time.Second)
	if err := future.Error(); err != nil {
		t.Fatal(err)
	}
	check := func(m *member) {
		t.Helper()
		eventually(t, "says why", func() bool { return strings.Contains(m.LogFault(), `unknown field "teleport"`) })
		if why := m.group.Unfit(); !strings.Contains(why, "older than its cluster") {
			t.Errorf("stands for election: %q", why)
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

package cluster

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/cluster/port"
	"github.com/raftvip/raftvip/cluster/state"
)

func TestCheckReport(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Report)
		want   string // "" for none
	}{
		{"plain", func(r *Report) {}, ""},
		{"guard lifetime", func(r *Report) { r.MinHeartbeat = 6667 * time.Millisecond }, ""},
		{"a year", func(r *Report) { r.MinHeartbeat = 365 * 24 * time.Hour }, "min_heartbeat"},
		{"negative", func(r *Report) { r.MinHeartbeat = -1 }, "min_heartbeat"},
		{"4 MB of hint", func(r *Report) { r.Hint = json.RawMessage(strings.Repeat(" ", 4<<20)) }, "hint of 4194304 bytes"},
		{"last entry", func(r *Report) { r.Applied = 1<<64 - 1 }, "entry"},
		{"no port", func(r *Report) { r.Address = "lb1" }, "HOST:PORT"},
		{"a line in the address", func(r *Report) { r.Address = "lb1\nx:7" }, "address"},
	} {
		r := Report{NodeID: "a", Address: "10.0.0.1:7355", Run: identity.Run{Boot: identity.NewBoot()}}
		tt.change(&r)
		err := checkReport(r)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// Followers read the leader's answer up to MaxBody: a longer one tells them nothing.
func TestAnswerWithLargeHintsStaysShort(t *testing.T) {
	var reports []SeenReport
	for range 20 {
		reports = append(reports, SeenReport{Report: Report{Hint: json.RawMessage(`"` + strings.Repeat("x", maxHint-2) + `"`)}})
	}
	reports = append(reports, SeenReport{Report: Report{NodeID: "small", Hint: json.RawMessage(`"y"`)}})
	b, err := json.Marshal(ReportAnswer{Reports: boundHints(reports)})
	if err != nil || len(b) > port.MaxBody/2 || !strings.Contains(string(b), `"y"`) {
		t.Errorf("answer of %d bytes: %v", len(b), err)
	}
}

// What Raft does not take of one node does not keep the others from being added.
func TestMembershipGoesOnPastARefusal(t *testing.T) {
	s := state.New()
	for _, n := range []state.NodeRecord{{ID: "a", Name: "a", Address: "h:1"}, {ID: "b", Name: "b", Address: "h:1"}, {ID: "c", Name: "c", Address: "h:3"}} {
		s.Nodes[n.ID] = n
	}
	conf := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "h:1"}, {ID: "gone", Address: "h:9"}}}
	fresh := map[string]SeenReport{"b": {}, "c": {}}
	changes := raftChanges(s, "a", conf, fresh)
	var names []string
	for _, c := range changes {
		names = append(names, c.name)
	}
	if got := strings.Join(names, " "); got != "gone b c" {
		t.Fatalf("changes: %s", got)
	}
	var made []string
	err := firstChange(changes[1:], func(c raftChange) error {
		if c.name == "b" {
			return errors.New("found duplicate address")
		}
		made = append(made, c.name)
		return nil
	})
	if len(made) != 1 || made[0] != "c" || err == nil || !strings.Contains(err.Error(), "b (h:1)") {
		t.Errorf("made %v, told %v", made, err)
	}
}

func TestAddressOfAMemberIsTaken(t *testing.T) {
	s := state.New()
	s.ClusterID, s.Level = "c", state.FeatureLevel
	s.Nodes["a-1"] = state.NodeRecord{ID: "a-1", Name: "a", Address: "10.0.0.1:7355"}
	join := func(id, name, address string) error {
		_, err := s.Apply(state.Command{Join: &state.JoinCommand{Trusted: true, Level: state.FeatureLevel, Node: state.NodeRecord{ID: id, Name: name, Address: address}}}, 2)
		return err
	}
	refusedWith(t, join("b-1", "b", "10.0.0.1:7355"), state.CodeAddressInUse)
	for _, err := range []error{join("b-1", "b", "10.0.0.2:7355"), join("a-1", "a", "10.0.0.1:7355")} {
		if err != nil {
			t.Error(err)
		}
	}
	reports := map[string]SeenReport{"a-1": {Report: Report{Address: "10.0.0.9:7355"}}}
	if name, taken := occupant(s, nil, "b-1", "10.0.0.1:7355"); !taken || name != "a" {
		t.Error("the address of a member is free")
	}
	if _, taken := occupant(s, reports, "b-1", "10.0.0.1:7355"); taken {
		t.Error("the address that a member has left is taken")
	}
}

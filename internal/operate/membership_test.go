package operate

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/state"
)

// A removed node votes in a group until that group's leader has removed it there, too: with
// another one that is removed meanwhile the group might never have a leader again.
func TestRemovedVoterIsSilent(t *testing.T) {
	s := state.New()
	for _, name := range []string{"a", "b", "c"} {
		s.Nodes[name] = state.NodeRecord{ID: name, Name: name}
	}
	votes := map[string]cluster.Suffrage{"a": cluster.SuffrageVoter, "b": cluster.SuffrageVoter, "c": cluster.SuffrageVoter, "n": cluster.SuffrageNonvoter}
	contact := func(id string) (time.Duration, bool) { return 0, id != "a" }
	if _, ok := quorumWithout(answering(s, "a", votes, contact), "b"); !ok {
		t.Error("one of three that answer cannot be removed")
	}
	delete(s.Nodes, "b")
	voters := answering(s, "a", votes, contact)
	silent, ok := quorumWithout(voters, "c")
	if ok || len(silent) == 0 || silent[0] != "b" {
		t.Errorf("voters %v: removing c after b: %q, %v", voters, silent, ok)
	}
	err := noMajorityWithout(s, "c", "default", silent)
	var r *state.Refusal
	if !errors.As(err, &r) || !strings.HasPrefix(r.Hint, "try again") {
		t.Errorf("refused with %v", err)
	}
}

// fixedGroup is a group that someone leads.
type fixedGroup struct {
	leader string
	silent bool
}

func (g fixedGroup) Standing() group.Standing             { return group.Standing{LeaderID: g.leader} }
func (g fixedGroup) Contact(string) (time.Duration, bool) { return time.Millisecond, !g.silent }

func TestLeaderOfAGroupIsNotRemoved(t *testing.T) {
	s, b := state.New(), state.NodeRecord{ID: "b", Name: "b"}
	for name, c := range map[string]struct {
		base, other fixedGroup
		refused     bool
	}{
		"it leads a group":              {fixedGroup{leader: "a"}, fixedGroup{leader: "b"}, true},
		"it leads nothing":              {fixedGroup{leader: "a"}, fixedGroup{leader: "a"}, false},
		"it led a group, and is silent": {fixedGroup{leader: "a", silent: true}, fixedGroup{leader: "b"}, false},
	} {
		srv := New(Config{Seats: func() []Seat {
			return []Seat{{ID: state.DefaultGroup, Group: c.base}, {ID: "g1.1", Name: "web", Group: c.other}}
		}})
		var r *state.Refusal
		if err := srv.refuseLeader(s, b); errors.As(err, &r) != c.refused || c.refused && !strings.Contains(r.Hint, "-g web") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestQuorumWithout(t *testing.T) {
	for _, tt := range []struct {
		name    string
		voters  map[string]bool
		removed string
		silent  []string
		ok      bool
	}{
		{"all answer", map[string]bool{"a": true, "b": true, "c": true}, "b", nil, true},
		{"the dead one of three", map[string]bool{"a": true, "b": true, "c": false}, "c", nil, true},
		{"the other one of three: a and the dead c would be left", map[string]bool{"a": true, "b": true, "c": false}, "b", []string{"c"}, false},
		{"one of two", map[string]bool{"a": true, "b": true}, "b", nil, true},
		{"a dead one of five, another is dead", map[string]bool{"a": true, "b": true, "c": true, "d": false, "e": false}, "e", []string{"d"}, true},
		{"a live one of five, two are dead", map[string]bool{"a": true, "b": true, "c": true, "d": false, "e": false}, "b", []string{"d", "e"}, false},
		{"one that does not vote", map[string]bool{"a": true, "b": true, "c": false}, "x", []string{"c"}, true},
	} {
		silent, ok := quorumWithout(tt.voters, tt.removed)
		if ok != tt.ok || !slices.Equal(silent, tt.silent) {
			t.Errorf("%s: got %q %v, want %q %v", tt.name, silent, ok, tt.silent, tt.ok)
		}
	}
}

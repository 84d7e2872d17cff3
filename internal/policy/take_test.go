package policy

import (
	"testing"
	"time"
)

func missing(n int) func(*Node) {
	return func(x *Node) { x.Take = Take{Wanted: 4, Missing: n, Reason: "fd00::1: permission denied"} }
}

// TestStepByTakes: who cannot put all addresses up hands over to who can.
func TestStepByTakes(t *testing.T) {
	const some = " (fd00::1: permission denied)"
	for _, tt := range []struct {
		name     string
		idle     bool
		nodes    []Node
		transfer string
		reason   string
	}{
		{name: "to one that can, at once, whatever the priorities", nodes: []Node{node("a", 150, missing(1)), node("b", 100, noPreempt, delayed(time.Hour))},
			transfer: "b", reason: "a has 3 of 4 addresses up" + some + "; best eligible b with priority 100"},
		{name: "to the best of those that can", nodes: []Node{node("a", 150, missing(1)), node("b", 100), node("c", 140, missing(1)), node("d", 120)},
			transfer: "d", reason: "a has 3 of 4 addresses up" + some + "; best eligible d with priority 120"},
		{name: "to one that can put up more, if nobody can all", nodes: []Node{node("a", 150, missing(3)), node("b", 100, missing(1))},
			transfer: "b", reason: "a has 1 of 4 addresses up" + some + "; best eligible b with priority 100, which can put up 3 of 4 addresses" + some},
		{name: "all fail alike: stay and say so", nodes: []Node{node("a", 100, missing(1)), node("b", 100, missing(1)), node("c", 150, missing(2))},
			reason: "a has 3 of 4 addresses up" + some + "; no eligible node can put up more"},
		{name: "all fail alike: the priority decides", nodes: []Node{node("a", 100, missing(1)), node("b", 101, missing(1))},
			transfer: "b", reason: "b has priority 101, higher than 100 of a"},
		{name: "not to one that cannot, however high its priority", nodes: []Node{node("a", 100), node("b", 150, missing(1))},
			reason: "no eligible node is better than a with priority 100; b can put up 3 of 4 addresses" + some},
		{name: "a fault weighs more: to one that cannot put all up", nodes: []Node{node("a", 100, faulty("x")), node("b", 150, missing(1))},
			transfer: "b", reason: "fault of a: x; best eligible b with priority 150, which can put up 3 of 4 addresses" + some},
		{name: "not to one in fault", nodes: []Node{node("a", 100, missing(1)), node("b", 150, faulty("x"))},
			reason: "a has 3 of 4 addresses up" + some + "; no eligible node can put up more"},
		{name: "before it owns", idle: true, nodes: []Node{node("a", 100, missing(1)), node("b", 90)},
			transfer: "b", reason: "a can put up 3 of 4 addresses" + some + "; best eligible b with priority 90"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := Step(State{}, 5*sec, "a", !tt.idle, nil)
			_, d := Step(s, time.Hour, "a", !tt.idle, tt.nodes)
			if d.Transfer != (tt.transfer != "") || d.To != tt.transfer || d.Release || d.Reason != tt.reason {
				t.Errorf("got  %+v\nwant transfer to %q, reason %q", d, tt.transfer, tt.reason)
			}
		})
	}
}

// TestTakes is a story of one node: at each step what it sees and what it tells.
func TestTakes(t *testing.T) {
	bad := func(n int) Take { return Take{Wanted: 4, Missing: n, Reason: "x"} }
	all := Take{Wanted: 4}
	min := time.Minute
	type step struct {
		at     time.Duration
		owning bool
		cause  string
		seen   Take
		want   int // missing
	}
	for name, steps := range map[string][]step{
		"a failed take is remembered, and longer each time": {
			{1 * sec, true, "c", bad(1), 1},
			{2 * sec, false, "c", all, 1},
			{2*sec + MinTakePause - 1, false, "c", all, 1},
			{2*sec + MinTakePause, false, "c", all, 0},
			{10 * min, true, "c", all, 0}, // until it is known
			{10*min + sec, true, "c", bad(1), 1},
			{10*min + 2*sec, false, "c", all, 1},
			{10*min + 2*sec + 2*MinTakePause - 1, false, "c", all, 1},
			{10*min + 2*sec + 2*MinTakePause, false, "c", all, 0},
		},
		"it is forgotten when the cause has changed": {
			{1 * sec, true, "c", bad(1), 1},
			{2 * sec, false, "c", all, 1},
			{3 * sec, false, "d", all, 0},
			{4 * sec, false, "c", all, 0},
		},
		"it is forgotten when it mends itself while owning": {
			{1 * sec, true, "c", bad(1), 1},
			{2 * sec, true, "c", all, 0},
			{3 * sec, false, "c", all, 0},
		},
		"a whole take that lasts ends the growing of the pause": {
			{1 * sec, true, "c", bad(1), 1},
			{2 * sec, false, "c", all, 1},
			{10 * min, true, "c", all, 0},
			{10*min + MinTakePause, true, "c", all, 0},
			{20 * min, true, "c", bad(1), 1},
			{20*min + sec, false, "c", all, 1},
			{20*min + sec + MinTakePause, false, "c", all, 0},
		},
		"what is foreseen counts without a take": {
			{1 * sec, false, "c", bad(2), 2},
			{2 * sec, false, "c", all, 0},
		},
		"the worse of the two": {
			{1 * sec, true, "c", bad(1), 1},
			{2 * sec, false, "c", bad(3), 3},
			{3 * sec, false, "c", all, 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s Takes
			for _, st := range steps {
				var got Take
				if s, got = s.Look(st.at, st.owning, st.cause, st.seen); got.Missing != st.want {
					t.Errorf("at %v: %+v, want %d missing", st.at, got, st.want)
				}
			}
		})
	}
	// The pause has a limit.
	var s Takes
	now := sec
	for range 10 {
		s, _ = s.Look(now, true, "c", bad(1))
		s, _ = s.Look(now+sec, false, "c", all)
		if got := s.until - now - sec; got > MaxTakePause {
			t.Errorf("pause %v", got)
		}
		now = s.until + sec
	}
}

// TestNoPingPongByTakes: three nodes that fail alike, each with its memory. The
// group is tried on each and then stays.
func TestNoPingPongByTakes(t *testing.T) {
	takes := map[string]Takes{}
	told := map[string]Take{}
	ids := []string{"a", "b", "c"}
	owner, since, moves := "a", sec, 0
	var s State
	for now := sec; now < time.Minute; now += 100 * ms {
		var nodes []Node
		for _, id := range ids {
			seen := Take{Wanted: 4}
			if id == owner && now-since > 500*ms {
				seen.Missing, seen.Reason = 1, "x"
			}
			takes[id], told[id] = takes[id].Look(now, id == owner, "c", seen)
			nodes = append(nodes, node(id, 100, aged(0), func(n *Node) { n.Take = told[id] }))
		}
		var d Decision
		if s, d = Step(s, now, owner, true, nodes); d.Transfer {
			owner, since, moves = d.To, now, moves+1
		}
	}
	if moves != 2 {
		t.Errorf("%d moves, want 2: each node is tried once", moves)
	}
}

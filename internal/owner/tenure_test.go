package owner

import (
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/state"
)

func moved(term uint64, from, to string) state.Move {
	return state.Move{Group: "default", Term: term, From: from, To: to}
}

// members are lb1 to lb3, with the IDs id1 to id3, and the history given.
func members(moves ...state.Move) *state.State {
	s := &state.State{ClusterID: "c", Nodes: map[string]state.NodeRecord{}, Removed: map[string]state.RemovedNode{"id9": {Name: "old9"}}, Moves: moves}
	for _, name := range []string{"1", "2", "3"} {
		s.Nodes["id"+name] = state.NodeRecord{ID: "id" + name, Name: "lb" + name}
	}
	return s
}

const ms = time.Millisecond

// nobody says that it owns.
func nobody(string, uint64) bool { return false }

// TestAccount: times are those of lb1, which owns in term 9 and has the addresses up
// at 100 s.
func TestAccount(t *testing.T) {
	const up = 100 * time.Second
	base := takeover{group: "default", self: "id1", term: 9, took: up - 5*ms, arrived: up, lease: 270 * ms}
	with := func(s *state.State, change func(*takeover)) takeover {
		in := base
		in.state = s
		change(&in)
		return in
	}
	heard := func(id string, term uint64, ago time.Duration) [2]group.HeardLeader {
		return [2]group.HeardLeader{{NodeID: id, Term: term, At: up - 5*ms - ago}}
	}
	for _, tt := range []struct {
		name   string
		in     takeover
		from   string
		reason string
		gap    time.Duration
		least  time.Duration
	}{
		{"the owner died", with(members(moved(8, "", "lb2")), func(in *takeover) {
			in.before, in.heard = tenure{"id2", 8, up - 335*ms}, heard("id2", 8, 330*ms)
		}), "lb2", "election: lb2 was not heard for 330ms", 335 * ms, 65 * ms},
		{"the owner died and could not be known to be silent at the end of its lease", with(members(moved(8, "", "lb2")), func(in *takeover) {
			in.before, in.heard, in.lease = tenure{"id2", 8, up - 335*ms}, heard("id2", 8, 330*ms), -1
		}), "lb2", "election: lb2 was not heard for 330ms", 335 * ms, 0},
		{"the owner died before it could be written down", with(members(moved(7, "", "lb3")), func(in *takeover) {
			in.before, in.heard = tenure{"id2", 8, up - 335*ms}, heard("id2", 8, 330*ms)
		}), "lb2", "election: lb2 was not heard for 330ms", 335 * ms, 65 * ms},
		{"handed over", with(members(moved(8, "", "lb2")), func(in *takeover) {
			in.before, in.heard = tenure{"id2", 8, up - 4*ms}, heard("id2", 8, 4*ms)
			in.release, in.releasedAt = group.Release{Term: 8, From: "id2", To: "id1", Reason: "lb2 is drained"}, up-3*ms
		}), "lb2", "lb2 is drained", 3 * ms, 3 * ms},
		{"handed over by a leader that did not own: the gap is the owner's", with(members(moved(7, "", "lb3")), func(in *takeover) {
			in.before, in.heard = tenure{"id3", 7, up - 35*time.Second}, heard("id2", 8, 4*ms)
			in.release, in.releasedAt = group.Release{Term: 8, From: "id2", To: "id1", Reason: "fault of lb2: eth0 is down"}, up-85*ms
		}), "lb3", "handed over by lb2, which led without owning: fault of lb2: eth0 is down", 35 * time.Second, 35*time.Second - 270*ms},
		{"handed over by a leader that did not own, to a node that was restarted", with(members(moved(7, "", "lb3")), func(in *takeover) {
			in.heard = heard("id2", 8, 4*ms)
			in.release, in.releasedAt = group.Release{Term: 8, From: "id2", To: "id1", Reason: "fault of lb2: eth0 is down"}, up-85*ms
		}), "lb3", "handed over by lb2, which led without owning: fault of lb2: eth0 is down", 0, 0},
		{"a leader in between that did not own died", with(members(moved(7, "", "lb3")), func(in *takeover) {
			in.before, in.heard = tenure{"id3", 7, up - 35*time.Second}, heard("id2", 8, 330*ms)
		}), "lb3", "election: lb2, which led without owning, was not heard for 330ms", 35 * time.Second, 35*time.Second - 270*ms},
		{"regained", with(members(moved(8, "", "lb1")), func(in *takeover) {
			in.before, in.stopped = tenure{"id1", 8, up - 500*ms}, "the lease has ended"
		}), "lb1", "lease regained: nobody else took over since this node stopped owning (the lease has ended)", 500 * ms, 500 * ms},
		{"regained in the term that was handed over to it", with(members(moved(9, "lb2", "lb1")), func(in *takeover) {
			in.before, in.heard, in.stopped = tenure{"id1", 9, up - 500*ms}, heard("id2", 8, 60*time.Second), "the lease has ended"
			in.release, in.releasedAt = group.Release{Term: 8, From: "id2", To: "id1", Reason: "requested with raftvip transfer"}, up-60*time.Second
		}), "lb1", "lease regained: nobody else took over since this node stopped owning (the lease has ended)", 500 * ms, 500 * ms},
		{"undrained in the term that was handed over to it", with(members(moved(9, "lb2", "lb1"), moved(9, "lb1", "")), func(in *takeover) {
			in.before, in.heard, in.stopped = tenure{"id1", 9, up - 3*time.Second}, heard("id2", 8, 60*time.Second), "lb1 is drained; no other node is eligible"
			in.release, in.releasedAt = group.Release{Term: 8, From: "id2", To: "id1", Reason: "requested with raftvip transfer"}, up-60*time.Second
		}), "", "owns again: nobody owned since it stopped (lb1 is drained; no other node is eligible)", 3 * time.Second, 3 * time.Second},
		{"had owned, and another led in between: that is no regaining", with(members(moved(7, "", "lb1")), func(in *takeover) {
			in.before, in.heard, in.stopped = tenure{"id1", 7, up - 5*time.Second}, heard("id2", 8, 330*ms), "x"
		}), "lb1", "election: lb2, which led without owning, was not heard for 330ms", 5 * time.Second, 5 * time.Second},
		{"had owned, and another owned in between without being able to write it down", with(members(moved(7, "", "lb1")), func(in *takeover) {
			in.before, in.heard = tenure{"id2", 8, up - 335*ms}, heard("id2", 8, 330*ms)
		}), "lb2", "election: lb2 was not heard for 330ms", 335 * ms, 65 * ms},
		{"the history knows a later owner than this node has heard", with(members(moved(8, "", "lb3")), func(in *takeover) {
			in.before = tenure{"id1", 7, up - 5*time.Second}
		}), "lb3", "election after a restart of lb1", 0, 0},
		{"nobody owned: the owner had given up in its term", with(members(moved(8, "", "lb2"), moved(8, "lb2", "")), func(in *takeover) {
			in.before, in.heard = tenure{"id2", 8, up - 60*time.Second}, heard("id2", 8, 330*ms)
		}), "", "election: lb2 was not heard for 330ms", 60 * time.Second, 60*time.Second - 270*ms},
		{"first", with(members(), func(*takeover) {}), "", "first owner of the cluster", 0, 0},
		{"first of another group", with(members(), func(in *takeover) { in.group = "a" }), "", "first owner of the group", 0, 0},
		{"restarted", with(members(moved(8, "", "lb2")), func(*takeover) {}), "lb2", "election after a restart of lb1", 0, 0},
		{"restarted, and was owner", with(members(moved(8, "", "lb1")), func(*takeover) {}), "lb1", "election after a restart of lb1", 0, 0},
		{"after a loss of the quorum, in which this node owned to the end", with(members(moved(8, "", "lb1")), func(in *takeover) {
			in.before, in.stopped = tenure{"id1", 8, up - 35*time.Second}, "the lease has ended"
			in.loss = QuorumLoss{Since: up - 35*time.Second, Until: up - 20*ms, Missing: []string{"lb2", "lb3"}}
		}), "lb1", "quorum is back after 35s: lb2 and lb3 had not answered", 35 * time.Second, 35 * time.Second},
		{"after a loss of the quorum, by the other survivor: it does not blame the owner", with(members(moved(8, "", "lb2")), func(in *takeover) {
			in.before, in.heard = tenure{"id2", 8, up - 35*time.Second}, heard("id2", 8, 35*time.Second)
			in.loss = QuorumLoss{Since: up - 35*time.Second, Until: up - 20*ms, Missing: []string{"lb3"}}
		}), "lb2", "quorum is back after 35s: lb3 had not answered", 35 * time.Second, 35*time.Second - 270*ms},
		{"a loss of long ago says nothing", with(members(moved(8, "", "lb2")), func(in *takeover) {
			in.before, in.heard = tenure{"id2", 8, up - 335*ms}, heard("id2", 8, 330*ms)
			in.loss = QuorumLoss{Since: up - 90*time.Second, Until: up - 80*time.Second, Missing: []string{"lb3"}}
		}), "lb2", "election: lb2 was not heard for 330ms", 335 * ms, 65 * ms},
		{"a member that was removed has a name yet", with(members(moved(7, "", "old9")), func(in *takeover) {
			in.before, in.heard = tenure{"id9", 8, up - 335*ms}, heard("id9", 8, 330*ms)
		}), "old9", "election: old9 was not heard for 330ms", 335 * ms, 65 * ms},
	} {
		got := tt.in.account()
		if want := (account{tt.from, tt.reason, tt.gap, tt.least}); got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.name, got, want)
		}
	}
}

// TestAccountAfterLoss: what is done before the quorum is back is named too.
func TestAccountAfterLoss(t *testing.T) {
	got := takeover{
		state: members(moved(7, "", "lb3")), group: "default", self: "id1", term: 9, took: time.Minute, arrived: time.Minute,
		before: tenure{"id3", 7, 20 * time.Second}, loss: QuorumLoss{Since: 20 * time.Second, Until: 59 * time.Second, Missing: []string{"lb3", "lb2"}},
		release: group.Release{Term: 8, From: "id2", To: "id1", Reason: "lb2 is a witness"}, releasedAt: time.Minute - ms,
	}.account()
	want := "quorum is back after 39s: lb3 and lb2 had not answered; handed over by lb2, which led without owning: lb2 is a witness"
	if got.reason != want || got.gap != 40*time.Second {
		t.Errorf("got %+v, want %q", got, want)
	}
}

func TestOwnedIn(t *testing.T) {
	says := func(id string, term uint64) func(string, uint64) bool {
		return func(i string, t uint64) bool { return i == id && t == term }
	}
	loss := state.Move{Group: "default", Term: 8, From: "lb2", Loss: true}
	other := state.Move{Group: "web", Term: 8, To: "lb2"}
	for _, tt := range []struct {
		name string
		s    *state.State
		id   string
		term uint64
		says func(string, uint64) bool
		want bool
	}{
		{"written down", members(moved(7, "", "lb1"), moved(8, "lb1", "lb2")), "id2", 8, nobody, true},
		{"another one", members(moved(8, "lb1", "lb2")), "id1", 8, nobody, false},
		{"not written down", members(moved(7, "", "lb1")), "id2", 8, nobody, false},
		{"not written down, but it says so", members(moved(7, "", "lb1")), "id2", 8, says("id2", 8), true},
		{"it says so of an older term", members(moved(7, "", "lb1")), "id2", 8, says("id2", 7), false},
		{"given up in that term", members(moved(8, "", "lb2"), moved(8, "lb2", "")), "id2", 8, says("id2", 8), false},
		{"a loss of the quorum that was written down late is no move", members(moved(8, "", "lb2"), loss), "id2", 8, nobody, true},
		{"newer terms do not matter", members(moved(8, "", "lb2"), moved(9, "lb2", "lb3")), "id2", 8, nobody, true},
		{"another group", members(other), "id2", 8, nobody, false},
		{"nobody", members(), "", 0, nobody, false},
	} {
		if got := OwnedIn(tt.s, "default", tt.id, tt.term, tt.says); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// TestHeardOwner: the leader before the last one counts if only that one owned.
func TestHeardOwner(t *testing.T) {
	heard := [2]group.HeardLeader{{NodeID: "id2", Term: 8, At: 9 * time.Second}, {NodeID: "id3", Term: 7, At: 5 * time.Second}}
	for _, tt := range []struct {
		name  string
		s     *state.State
		known tenure
		want  tenure
	}{
		{"both owned", members(moved(7, "", "lb3"), moved(8, "lb3", "lb2")), tenure{}, tenure{"id2", 8, 9 * time.Second}},
		{"the one before owned", members(moved(7, "", "lb3")), tenure{}, tenure{"id3", 7, 5 * time.Second}},
		{"known from before", members(), tenure{"id1", 6, time.Second}, tenure{"id1", 6, time.Second}},
		{"heard again", members(moved(8, "", "lb2")), tenure{"id2", 8, 3 * time.Second}, tenure{"id2", 8, 9 * time.Second}},
		{"own and newer", members(moved(8, "", "lb2"), moved(9, "lb2", "lb1")), tenure{"id1", 9, 4 * time.Second}, tenure{"id1", 9, 4 * time.Second}},
	} {
		if got := heardOwner(tt.known, tt.s, "default", heard, nobody); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

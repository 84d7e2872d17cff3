package owner

import (
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/policy"
)

func TestDecide(t *testing.T) {
	const now = 10 * time.Second
	fit := policy.Node{ID: "a", Name: "lb1", Self: true, Ready: true, Priority: 100}
	base := ownInputs{
		standing: group.Standing{Leading: true, Term: 3, LeaseUntil: now + 1}, now: now, founded: true,
		self: fit, decision: policy.Decision{Reason: "best"},
	}
	with := func(change func(*ownInputs)) ownInputs { in := base; change(&in); return in }
	for _, tt := range []struct {
		name string
		in   ownInputs
		want ownership
		why  string
	}{
		{"leads, lease valid, fit", base, owning, "best"},
		{"no cluster", with(func(in *ownInputs) { in.founded = false }), standby, "not been founded"},
		{"leading is not owning: no evidence yet", with(func(in *ownInputs) { in.standing.LeaseUntil = 0 }), standby, "no majority has confirmed"},
		{"lease ends at this instant", with(func(in *ownInputs) { in.standing.LeaseUntil = now }), standby, "lease has ended"},
		{"lease without leadership", with(func(in *ownInputs) { in.standing.Leading, in.standing.LeaderID = false, "b" }), standby, "another node leads"},
		{"elected without what it takes to own", with(func(in *ownInputs) {
			in.standing = group.Standing{Term: 3, LeaderID: "a", Obstacle: "its log cannot be applied"}
		}), standby, "elected and cannot own: its log cannot be applied"},
		{"no leader", with(func(in *ownInputs) { in.standing.Leading = false }), standby, "knows no leader"},
		{"policy: nobody may own", with(func(in *ownInputs) { in.decision = policy.Decision{Release: true, Reason: "fault"} }), standby, "fault"},
		{"an address of another group is still here", with(func(in *ownInputs) { in.stray = "192.0.2.9" }), standby, "192.0.2.9, which is not"},
		{"an address was given away while owning", with(func(in *ownInputs) { in.stray, in.was = "192.0.2.9", owning }), owning, "best"},
		{"to be handed over", with(func(in *ownInputs) { in.handover = true }), standby, "best"},
		{"in fault", with(func(in *ownInputs) { in.self.Faults = []string{"eth0 is down"} }), standby, "eth0 is down"},
		{"drained", with(func(in *ownInputs) { in.self.Drained = true }), standby, "drained"},
		{"drained, though owning", with(func(in *ownInputs) { in.self.Drained, in.was = true, owning }), standby, "drained"},
		{"drained, and other groups are handed over first", with(func(in *ownInputs) { in.self.Drained, in.was, in.waits = true, owning, true }), owning, "best"},
		{"the same, not owning", with(func(in *ownInputs) { in.self.Drained, in.waits = true, true }), standby, "drained"},
		{"the same, and the lease has ended", with(func(in *ownInputs) {
			in.was, in.waits, in.standing.LeaseUntil = owning, true, now
		}), standby, "lease has ended"},
		{"witness", with(func(in *ownInputs) { in.self.Witness = true }), standby, "witness"},
		{"checks without a result, not owning", with(func(in *ownInputs) { in.self.Ready = false }), standby, "first result"},
		{"checks without a result, owning (after a reload)", with(func(in *ownInputs) { in.self.Ready, in.was = false, owning }), owning, "best"},
		{"nothing known", ownInputs{}, standby, ""},
	} {
		got, why := decide(tt.in)
		if got != tt.want || !strings.Contains(why, tt.why) {
			t.Errorf("%s: got %v %q, want %v with %q", tt.name, got, why, tt.want, tt.why)
		}
	}
}

func TestChooseTarget(t *testing.T) {
	s := &state.State{}
	fit := func(id string, priority int) policy.Node {
		return policy.Node{ID: id, Name: id, Voter: true, Connected: true, CaughtUp: true, Ready: true, Priority: priority}
	}
	self := fit("lb1", 200)
	self.Self = true
	drained := fit("lb4", 250)
	drained.Drained = true
	nodes := []policy.Node{self, fit("lb2", 100), fit("lb3", 101), drained}
	for _, tt := range []struct {
		to, want, problem string
	}{
		{"", "lb3", ""},
		{"lb2", "lb2", ""},
		{"lb1", "", "leads already"},
		{"lb4", "", "is drained"},
		{"lb9", "", "no node lb9"},
	} {
		got, err := chooseTarget(s, nodes, tt.to)
		if got != tt.want || (err == nil) != (tt.problem == "") || err != nil && !strings.Contains(err.Error(), tt.problem) {
			t.Errorf("to %q: got %q, %v; want %q, %q", tt.to, got, err, tt.want, tt.problem)
		}
	}
	if _, err := chooseTarget(s, []policy.Node{self, drained}, ""); err == nil || !strings.Contains(err.Error(), "lb4 is drained") {
		t.Errorf("nobody fit: %v does not say why", err)
	}
}

// TestNewReign: a node that has seen its new term as a candidate still notices that
// it leads, or it would not know that an operator moved the group here.
func TestNewReign(t *testing.T) {
	for _, tt := range []struct {
		name    string
		term    uint64
		leading bool
		now     group.Standing
		want    bool
	}{
		{"follows on", 4, false, group.Standing{Term: 4}, false},
		{"new term, elected at once", 4, false, group.Standing{Term: 5, Leading: true}, true},
		{"candidate", 4, false, group.Standing{Term: 5}, true},
		{"elected after a turn as candidate", 5, false, group.Standing{Term: 5, Leading: true}, true},
		{"leads on", 5, true, group.Standing{Term: 5, Leading: true}, false},
		{"leads again at once", 5, true, group.Standing{Term: 7, Leading: true}, true},
		{"stepped down in its term", 5, true, group.Standing{Term: 5}, true},
	} {
		if got := newReign(tt.term, tt.leading, tt.now); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

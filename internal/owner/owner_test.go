package owner

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/policy"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/viptest"
)

// A fakeGroup is a cluster of this node, which leads, and lb2. It notes in which
// order things are done.
type fakeGroup struct {
	o     *Owner
	did   []string
	told  Told
	state state.State
	wake  chan struct{}
}

func (g *fakeGroup) note(what string) {
	if _, open := g.o.gate.Term(); open {
		what += ", address up"
	}
	g.did = append(g.did, what)
}

func (g *fakeGroup) Standing() group.Standing {
	return group.Standing{Leading: true, Term: 7, LeaseUntil: time.Hour}
}
func (g *fakeGroup) Prepare(context.Context, string) error { g.note("prepare"); return nil }
func (g *fakeGroup) Transfer(_ context.Context, to, _ string, manual bool) error {
	what := "transfer to " + to + ", saying " + slices.Concat(g.told.Faults, []string{"nothing"})[0]
	if manual {
		what += ", to stay there"
	}
	g.note(what)
	return nil
}
func (g *fakeGroup) RefreshLease()                               {}
func (g *fakeGroup) Contact(string) (time.Duration, bool)        { return 0, true }
func (g *fakeGroup) LastRelease() (group.Release, time.Duration) { return group.Release{}, 0 }
func (g *fakeGroup) HeardLeaders() [2]group.HeardLeader          { return [2]group.HeardLeader{} }
func (g *fakeGroup) LogFault() string                            { return "" }
func (g *fakeGroup) Self() store.Identity {
	return store.Identity{NodeID: "id1", Name: "lb1"}
}
func (g *fakeGroup) Publish(t Told)            { g.told = t }
func (g *fakeGroup) Owns(string, uint64) bool  { return false }
func (g *fakeGroup) Unguarded(string) bool     { return false }
func (g *fakeGroup) Follow(*state.State, bool) {}
func (g *fakeGroup) Decide(bool, bool)         {}
func (g *fakeGroup) Faults() []string          { return nil }
func (g *fakeGroup) Candidates(*state.State, func(string) bool, bool) []policy.Node {
	fit := policy.Node{Voter: true, Connected: true, CaughtUp: true, Ready: true}
	self, other := fit, fit
	self.ID, self.Name, self.Self, self.Priority = "id1", "lb1", true, 120
	other.ID, other.Name, other.Priority = "id2", "lb2", 100
	return []policy.Node{self, other}
}
func (g *fakeGroup) State() *state.State {
	s := g.state
	if len(g.did) > 3 { // lb2 has taken over by the second look after the transfer
		s.Moves = []state.Move{{Group: "default", Term: 8, From: "lb1", To: "lb2"}}
	}
	return &s
}
func (g *fakeGroup) Changed() <-chan struct{} {
	g.note("looked for the successor")
	return g.wake
}

// What can be done while the address is up is done then; leadership goes over when the
// kernel is shut, however long that takes; the node says that it stops
// before it hands over, or it would be given the group back; and it stays until the
// successor has the address.
func TestShutdownHandsOver(t *testing.T) {
	g := &fakeGroup{wake: make(chan struct{}), state: state.State{
		ClusterID: "c", Nodes: map[string]state.NodeRecord{"id1": {ID: "id1", Name: "lb1"}, "id2": {ID: "id2", Name: "lb2"}},
	}}
	close(g.wake)
	kernel := &viptest.Guard{}
	gate := oneGate{vip.NewGate(kernel, 1, nil)}
	gate.Open(7)
	gate.Renew(7, boottime.Now()+time.Hour)
	kernel.OnSettle(func(group uint32) {
		kernel.OnSettle(nil)
		time.Sleep(20 * time.Millisecond) // others have the lock
		g.note(fmt.Sprintf("kernel shut, deadline %v", kernel.Deadline(group)))
	})
	g.o = New(Config{
		Name: "default", Seat: g, Members: g, Gate: gate, Sink: NewSink(gate, 0), Keeper: noAddresses{}, Consent: g, Advice: g,
		Log: slog.New(slog.DiscardHandler), Now: func() time.Duration { return time.Minute }, Silent: true,
		Addresses: func(*state.State) ([]vip.Address, vip.Schedule, []string) { return nil, vip.Schedule{}, nil },
	})
	g.o.state = owning
	g.o.shutdown()
	want := []string{"prepare, address up", "kernel shut, deadline 0s", "transfer to id2, saying it is stopping", "looked for the successor"}
	if !slices.Equal(g.did, want) {
		t.Errorf("did %q, want %q", g.did, want)
	}
	if _, open := gate.Term(); open {
		t.Error("the gate is open")
	}
}

// Another group may own what is left here from a list of before: with the gate it would
// answer.
func TestStrayKeepsTheGateShut(t *testing.T) {
	g := &fakeGroup{wake: make(chan struct{}), state: state.State{
		ClusterID: "c", Version: 9, Nodes: map[string]state.NodeRecord{"id1": {ID: "id1", Name: "lb1"}, "id2": {ID: "id2", Name: "lb2"}},
		Groups: map[string]state.GroupRecord{"g1.1": {ID: "g1.1", Name: "b"}},
	}}
	gate := oneGate{vip.NewGate(&viptest.Guard{}, 1, nil)}
	keeper := &strayKeeper{}
	listed := vip.Address{Prefix: netip.MustParsePrefix("192.0.2.1/24")}
	g.o = New(Config{
		Name: "default", Seat: g, Members: g, Gate: gate, Sink: NewSink(gate, 0), Keeper: keeper, Consent: g, Advice: g,
		Log: slog.New(slog.DiscardHandler), Now: func() time.Duration { return time.Minute }, Silent: true, Beat: func() {},
		Record: func(state.Move) {}, Claims: noClaims{},
		Addresses: func(*state.State) ([]vip.Address, vip.Schedule, []string) {
			return []vip.Address{listed}, vip.Schedule{}, nil
		},
	})
	keeper.kept = []vip.AddressStatus{
		{Address: listed, State: vip.StatePresent, Present: true},
		{Address: vip.Address{Prefix: netip.MustParsePrefix("192.0.2.9/24")}, State: vip.StateRemoving, Present: true},
	}
	g.o.turn(context.Background())
	if _, open := gate.Term(); open || keeper.wanted.Own {
		t.Error("the gate is open, and an address is here that is not the group's")
	}
	if v := g.o.View(); v.Version != 9 || len(keeper.wanted.Addresses) != 1 {
		t.Errorf("acts on version %d with %v", v.Version, keeper.wanted.Addresses)
	}
	keeper.kept = keeper.kept[:1]
	g.o.turn(context.Background())
	if _, open := gate.Term(); !open || !keeper.wanted.Own {
		t.Error("the gate is shut without a reason")
	}
}

type strayKeeper struct {
	noAddresses
	kept   []vip.AddressStatus
	wanted vip.Wanted
}

func (k *strayKeeper) Set(w vip.Wanted)   { k.wanted = w }
func (k *strayKeeper) Status() vip.Status { return vip.Status{Applied: true, Addresses: k.kept} }

type noClaims struct{}

func (noClaims) Follow([]vip.Address) {}

// A node that leaves says so before it hands over, or it would be given the group back; and
// the group may go on to a better node. What an operator moves stays.
func TestRequestOfOneThatLeaves(t *testing.T) {
	for says, r := range map[string]*Request{
		"transfer to id2, saying it is leaving the cluster": {Leaves: true},
		"transfer to id2, saying nothing, to stay there":    {Manual: true},
	} {
		g := &fakeGroup{state: state.State{ClusterID: "c", Nodes: map[string]state.NodeRecord{"id1": {ID: "id1", Name: "lb1"}, "id2": {ID: "id2", Name: "lb2"}}}}
		gate := oneGate{vip.NewGate(&viptest.Guard{}, 1, nil)}
		g.o = New(Config{
			Name: "default", Seat: g, Members: g, Gate: gate, Sink: NewSink(gate, 0), Keeper: noAddresses{}, Consent: g, Advice: g,
			Log: slog.New(slog.DiscardHandler), Now: func() time.Duration { return time.Minute }, Silent: true,
			Addresses: func(*state.State) ([]vip.Address, vip.Schedule, []string) { return nil, vip.Schedule{}, nil },
		})
		r.done = make(chan error, 1)
		g.o.request(t.Context(), r)
		if err := <-r.done; err != nil || !slices.Contains(g.did, says) {
			t.Errorf("did %q, %v; want %q", g.did, err, says)
		}
	}
}

// noAddresses is a keeper that has none.
type noAddresses struct{}

func (noAddresses) Set(vip.Wanted)                     {}
func (noAddresses) WaitReleased(context.Context) error { return nil }
func (noAddresses) Status() vip.Status                 { return vip.Status{Applied: true} }
func (noAddresses) Changed() <-chan struct{}           { return nil }
func (noAddresses) Announce(string)                    {}
func (noAddresses) Waits(netip.Addr) bool              { return false }

// oneGate is the gate of a group in which nobody else has one.
type oneGate struct{ *vip.Gate }

func (g oneGate) Renew(term uint64, until time.Duration) { g.Gate.Renew(term, until) }

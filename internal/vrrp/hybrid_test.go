package vrrp

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vrrpcompat"
	"github.com/raftvip/raftvip/vrrpcompat/vrrpnet"
)

// fakeSpeaker writes down what it is told. It does not run: become is its machine.
type fakeSpeaker struct {
	told []string
	st   vrrpnet.Status
	sink vrrpnet.Sink
}

func (f *fakeSpeaker) say(s string)                  { f.told = append(f.told, s) }
func (f *fakeSpeaker) Run(ctx context.Context) error { <-ctx.Done(); f.say("ended"); return nil }
func (f *fakeSpeaker) Entitle(fellow bool) {
	if !f.st.Entitled {
		f.say(map[bool]string{false: "entitled", true: "entitled as successor"}[fellow])
	}
	f.st.Entitled = true
}

func (f *fakeSpeaker) Disentitle(handedOver bool) {
	if f.st.Entitled {
		f.say(map[bool]string{false: "resigns", true: "hands over"}[handedOver])
	}
	f.st.Entitled = false
	if f.st.State == vrrpcompat.Master {
		f.become(vrrpcompat.Backup)
	}
}
func (f *fakeSpeaker) SetPriority(p uint8)       { f.say("priority"); f.st.Priority = p }
func (f *fakeSpeaker) SetFellows(a []netip.Addr) { f.say("fellows " + join(a)) }
func (f *fakeSpeaker) SetAddresses(a []netip.Addr) error {
	f.say("addresses " + join(a))
	return nil
}
func (f *fakeSpeaker) Status() vrrpnet.Status   { return f.st }
func (f *fakeSpeaker) Changed() <-chan struct{} { return nil }

func (f *fakeSpeaker) become(s vrrpcompat.State) {
	if f.st.State == vrrpcompat.Master || s == vrrpcompat.Backup {
		f.sink.Backup("")
	}
	f.st.State = s
}

func (f *fakeSpeaker) take() string {
	s := strings.Join(f.told, ", ")
	f.told = nil
	return s
}

func join(addrs []netip.Addr) string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return strings.Join(s, " ")
}

// rig is a hybrid with fakes around it, and its run.
type rig struct {
	*Hybrid
	speakers []*fakeSpeaker
	conf     *config.Config
	state    *state.State
	reports  check.Report
	known    map[string][]Member
	clock    time.Duration
	full     error // no slot is to be had
	freed    chan *slot
}

func newRig(t *testing.T) *rig {
	r := &rig{state: &state.State{ClusterID: "c"}, freed: make(chan *slot, 1)}
	holdings := NewHoldings(NewGates(vip.NewGate(nil, 0, nil)), &fakeHolding{}, func() {})
	r.Hybrid = &Hybrid{
		log: slog.New(slog.DiscardHandler), holdings: holdings, routers: map[string]*virtualRouter{},
		config: func() *config.Config { return r.conf }, report: func() check.Report { return r.reports },
		members: func() map[string][]Member { return r.known }, wake: func() {},
		now: func() time.Duration { return r.clock },
		newSlot: func(name string) (*slot, error) {
			if r.full != nil {
				return nil, r.full
			}
			s, _ := newSlot(name)
			return s, nil
		},
		freeSlot: func(s *slot) { r.freed <- s },
		newSpeaker: func(_ string, s speakerSettings, addrs []netip.Addr, priority uint8, sink vrrpnet.Sink) (speaker, error) {
			f := &fakeSpeaker{sink: sink, st: vrrpnet.Status{Priority: priority, Source: netip.MustParseAddr("10.0.0.9")}}
			f.say("new with " + join(addrs))
			r.speakers = append(r.speakers, f)
			return f, nil
		},
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	began := make(chan struct{})
	r.tasks.start(func(ctx context.Context) error { close(began); <-ctx.Done(); return nil })
	go func() { ended <- r.Run(ctx) }()
	<-began // with its own tasks, so that the end of one is waited for
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	r.file(t, "vrrp hybrid")
	return r
}

func (r *rig) file(t *testing.T, lines string) {
	t.Helper()
	r.conf = &config.Config{Instances: []*config.Instance{instanceFrom(t, lines)}}
}

// turn is what the owner's loop does.
func (r *rig) turn(own, successor, owning bool) {
	r.Follow(r.state, owning)
	r.Decide(own, successor)
}

func (r *rig) last() *fakeSpeaker { return r.speakers[len(r.speakers)-1] }

func (r *rig) up() bool { return r.routers["V"].last.up && r.routers["V"].slot.permitted() }

func TestHybridFollowsOwnership(t *testing.T) {
	r := newRig(t)
	r.turn(false, false, false)
	if len(r.routers) != 0 {
		t.Fatal("a virtual router without an instance that speaks")
	}
	r.state.Instances = place.InstancesOf(r.conf)
	r.known = map[string][]Member{"V": {{Source: netip.MustParseAddr("10.0.0.8")}}}
	r.turn(false, true, false)
	f := r.last()
	if got := f.take(); got != "new with 10.0.0.2 10.0.0.1, fellows 10.0.0.8" {
		t.Errorf("started as %q", got)
	}
	f.become(vrrpcompat.Backup)
	r.turn(true, false, false)
	if got := f.take(); got != "entitled" || r.up() {
		t.Errorf("as owner: %q, up %v", got, r.up())
	}
	f.become(vrrpcompat.Master)
	if r.turn(true, false, true); !r.up() {
		t.Error("owner and master, and not up")
	}
	f.become(vrrpcompat.Backup)
	if r.routers["V"].slot.permitted() {
		t.Error("still permitted when the loss has been told")
	}
	if r.turn(true, false, true); r.up() || f.take() != "" {
		t.Error("up as backup")
	}
	f.become(vrrpcompat.Master)
	r.turn(true, false, true)
	r.reports = check.Report{Instances: []check.InstanceReport{{Name: "V", Effective: 42}}}
	f.st.Announcements++
	r.turn(true, false, true)
	if got := f.take(); got != "priority" || f.st.Priority != 42 || !r.up() {
		t.Errorf("after a check: %q, priority %d", got, f.st.Priority)
	}
	if k := r.routers["V"].slot.holding.(*fakeHolding); len(k.announce) != 1 {
		t.Errorf("announced %d times after another router's claim", len(k.announce))
	}
	r.turn(false, true, false)
	if got := f.take(); got != "hands over" || r.up() {
		t.Errorf("a member took over: %q", got)
	}
	r.turn(true, false, false)
	f.take()
	r.turn(false, false, false)
	if got := f.take(); got != "resigns" {
		t.Errorf("without a successor: %q", got)
	}
}

func TestHybridFollowsTheFile(t *testing.T) {
	r := newRig(t)
	r.state.Instances = place.InstancesOf(r.conf)
	r.turn(false, false, false)
	f := r.last()
	f.become(vrrpcompat.Backup)
	r.turn(true, false, false)
	f.become(vrrpcompat.Master)
	r.turn(true, false, true)
	f.take()

	// Another list, the same router.
	r.state.Instances = place.InstancesOf(r.conf)
	r.state.Instances[0].Addresses = slices.Clone(r.state.Instances[0].Addresses[1:])
	if r.turn(true, false, true); f.take() != "addresses 10.0.0.1" || !r.up() {
		t.Error("another list was not taken over in place")
	}
	// Other settings: another router, which goes on where the old one ended.
	r.file(t, "vrrp hybrid\nadvert_int 2")
	r.turn(true, false, true)
	if got := f.take(); got != "hands over, ended" {
		t.Errorf("the old router %q", got)
	}
	g := r.last()
	if got := g.take(); g == f || got != "new with 10.0.0.1, entitled as successor" || !r.up() {
		t.Errorf("the new router %q, up %v", got, r.up())
	}
	g.become(vrrpcompat.Backup)
	g.become(vrrpcompat.Master)
	r.turn(true, false, true)
	// The file says no more that it speaks, the cluster does.
	r.file(t, "")
	if r.turn(true, false, true); g.take() != "" || !r.up() || len(r.Faults()) != 0 {
		t.Errorf("a file that is ahead of the cluster changed something: %v", r.Faults())
	}
	r.state.Instances[0].VRRP = ""
	r.turn(true, false, true)
	if got := g.take(); got != "resigns, ended" || !r.up() {
		t.Errorf("without VRRP: %q, up %v", got, r.up())
	}
	// And back: what is up stays so.
	r.file(t, "vrrp hybrid")
	r.state.Instances[0].VRRP = "hybrid"
	r.turn(true, false, true)
	if got := r.last().take(); !strings.Contains(got, "entitled as successor") || !r.up() {
		t.Errorf("with VRRP again: %q, up %v", got, r.up())
	}
	r.state.Instances = nil
	r.turn(true, false, true)
	if got := r.last().take(); got != "resigns, ended" {
		t.Errorf("the instance is gone: %q", got)
	}
}

// The slot of an instance that is gone is free once its addresses are another's; a node
// without a free one must not own.
func TestHybridSlots(t *testing.T) {
	r := newRig(t)
	r.state.Instances = place.InstancesOf(r.conf)
	r.full = errors.New("no number left")
	if r.turn(true, false, false); len(r.Faults()) != 1 || !strings.Contains(r.Faults()[0], "no number left") {
		t.Errorf("without a slot: %v", r.Faults())
	}
	r.full = nil
	r.turn(true, false, false)
	if len(r.Faults()) != 0 {
		t.Errorf("with a slot again: %v", r.Faults())
	}
	s := r.routers["V"].slot
	r.holdings.Set(vip.Wanted{Own: true, Term: 1, Addresses: []vip.Address{address("10.0.0.1/24"), address("10.0.0.2/24")}})
	r.state.Instances = nil
	r.turn(true, false, true)
	if len(r.routers) != 1 || len(r.holdings.gates.all()) != 1 {
		t.Error("the slot is gone before its addresses are another's")
	}
	r.holdings.Set(vip.Wanted{Own: true, Term: 1})
	r.turn(true, false, true)
	if len(r.routers) != 0 || len(r.holdings.gates.all()) != 0 {
		t.Fatal("the slot stays")
	}
	if got := <-r.freed; got != s || !s.holding.(*fakeHolding).closed {
		t.Error("the number of a slot is free before its addresses are gone")
	}
}

// A virtual router that has just begun to listen goes on where a member was master
// a moment ago, unless it has heard another one itself.
func TestHybridSucceedsMember(t *testing.T) {
	foreign := &vrrpnet.Speaker{Addr: netip.MustParseAddr("10.0.0.7"), Priority: 200}
	for name, c := range map[string]struct {
		master bool
		age    time.Duration
		heard  *vrrpnet.Speaker
		want   string
	}{
		"a member is master":            {true, time.Second, nil, "entitled as successor"},
		"it was, long ago":              {true, 4 * time.Second, nil, "entitled"},
		"no member is":                  {false, 0, nil, "entitled"},
		"another router is, I heard it": {true, 0, foreign, "entitled"},
	} {
		r := newRig(t)
		r.clock = time.Minute
		r.state.Instances = place.InstancesOf(r.conf)
		r.known = map[string][]Member{"V": {{netip.MustParseAddr("10.0.0.8"), c.master, c.age}}}
		r.turn(false, true, false)
		f := r.last()
		f.become(vrrpcompat.Backup)
		f.st.Other = c.heard
		f.take()
		r.known["V"][0] = Member{Source: netip.MustParseAddr("10.0.0.8")} // it has handed over
		r.turn(true, false, false)
		if got := f.take(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// A node that cannot speak must not own.
func TestHybridFaults(t *testing.T) {
	r := newRig(t)
	r.state.Instances = place.InstancesOf(r.conf)
	r.file(t, "")
	if r.turn(true, false, false); len(r.Faults()) != 1 || r.up() || len(r.speakers) != 0 {
		t.Errorf("without it in the file: %v", r.Faults())
	}
	r.file(t, "vrrp hybrid\nunicast_fault_no_peer")
	if r.turn(true, false, false); len(r.Faults()) != 1 || r.up() {
		t.Errorf("without a peer: %v", r.Faults())
	}
	r.file(t, "vrrp hybrid\n")
	r.turn(true, false, false)
	f := r.last()
	f.st.Down = vrrpnet.ErrNoInterface
	if r.turn(true, false, false); len(r.Faults()) != 0 {
		t.Errorf("a router that has just begun: %v", r.Faults())
	}
	f.become(vrrpcompat.Master)
	r.turn(true, false, true)
	r.clock += 2 * downGrace
	if r.turn(true, false, true); len(r.Faults()) != 1 || !strings.Contains(r.Faults()[0], "cannot speak VRRP") || r.up() {
		t.Errorf("without a socket: %v, up %v", r.Faults(), r.up())
	}
	f.st.Down = nil
	r.turn(true, false, true)
	f.become(vrrpcompat.Master)
	r.turn(true, false, true)
	if len(r.Faults()) != 0 || !r.up() {
		t.Errorf("with a socket again: %v, up %v", r.Faults(), r.up())
	}
	var none *Hybrid // a witness
	none.Follow(r.state, false)
	none.Decide(true, false)
	if none.Faults() != nil || len(none.Told()) != 0 {
		t.Error("a witness has no VRRP half")
	}
}

package daemon

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/operate"
	"github.com/raftvip/raftvip/internal/owner"
	"github.com/raftvip/raftvip/internal/tick"
	"github.com/raftvip/raftvip/internal/vrrp"
	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/guard"
)

// A seat is this node's in one ownership group: a gate, what stands beneath it, and the
// loop that decides.
type seat struct {
	id      string // of the group
	gate    *vip.Gate
	gates   *vrrp.Gates // with those of VRRP
	sink    *owner.Sink
	holding *vip.Holding // nil on a witness
	kept    *vrrp.Holdings
	hybrid  *vrrp.Hybrid // nil on a witness
	members *members
	advice  *advice
	owner   *owner.Owner    // nil until the group runs
	moves   chan state.Move // entries of its history that are to be written
	stop    context.CancelFunc
	ended   errgroup.Group // what runs until stop
	// stopRouting ends VRRP's part, stopRecording the writing of the history.
	stopRouting, stopRecording context.CancelFunc
}

// seats are those of all groups.
type seats struct {
	mu  sync.Mutex
	all map[string]*seat // by the group's ID
}

func (s *seats) get(id string) *seat {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[id]
}

// with are the seats that have an owner, the default group's first.
func (s *seats) with() []*seat {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*seat
	for _, id := range slices.Sorted(maps.Keys(s.all)) {
		if t := s.all[id]; t.owner != nil {
			out = append(out, t)
		}
	}
	slices.SortStableFunc(out, func(a, b *seat) int {
		switch {
		case a.id == state.DefaultGroup:
			return -1
		case b.id == state.DefaultGroup:
			return 1
		}
		return 0
	})
	return out
}

// ownPatience is the owners' patience beside the default group's.
const ownPatience = 10 * time.Millisecond

// sinkOf makes the seat of a group that is about to be opened, as far as its lease needs
// it. Where the guard has no number left for another gate, nothing is ever owned by it.
func (d *Daemon) sinkOf(id string) group.LeaseSink {
	d.seats.mu.Lock()
	before := d.seats.all[id]
	d.seats.mu.Unlock()
	if before != nil && before.owner == nil {
		return before.sink // it could not be opened, and that is tried again
	}
	t := &seat{id: id, moves: make(chan state.Move, 64)}
	gate, err := d.newGate()
	if err != nil {
		d.log.Error("this node cannot own in a group", "group", id, "reason", err)
		return barredSink{}
	}
	t.gate = gate
	t.gates = vrrp.NewGates(t.gate)
	t.sink = owner.NewSink(t.gates, d.lateness())
	if !d.silent() {
		t.sink.Release = func(ctx context.Context) error {
			if kept := d.kept(t); kept != nil {
				return kept.Release(ctx)
			}
			return nil // nothing was put up yet
		}
	}
	d.seats.mu.Lock()
	defer d.seats.mu.Unlock()
	d.seats.all[id] = t
	return t.sink
}

// silent tells whether the guard silences addresses the moment their gate is shut.
func (d *Daemon) silent() bool {
	if d.guard == nil {
		return true
	}
	kind := d.guard.Kind()
	return kind != guard.Lifetime && kind != guard.Off
}

func (d *Daemon) kept(t *seat) *vrrp.Holdings {
	d.seats.mu.Lock()
	defer d.seats.mu.Unlock()
	return t.kept
}

// A barredSink is that of a group in which this node never owns.
type barredSink struct{}

func (barredSink) Renew(uint64, time.Duration) {}
func (barredSink) Revoke(uint64)               {}

// openSeat makes the rest of a seat: the Holding, VRRP's part and the loop that decides.
func (d *Daemon) openSeat(t *seat) {
	g := d.node.Group(t.id)
	if g == nil {
		return // it has ended already
	}
	name := d.node.GroupName(t.id)
	log := d.log.With("group", name)
	kept := vrrp.NewHoldings(t.gates, vrrp.NoHolding{}, g.RefreshLease)
	if d.keeper != nil {
		t.holding = d.keeper.Hold(t.gate)
		kept = vrrp.NewHoldings(t.gates, t.holding, g.RefreshLease)
	}
	d.seats.mu.Lock()
	t.kept = kept
	d.seats.mu.Unlock()
	t.members = &members{Node: d.node, group: g, id: t.id}
	t.advice = &advice{
		id: t.id, node: d.node, hints: &d.hints, checks: d.checks, told: &d.told,
		report: func() check.Report { return d.reportOf(t.id) }, describe: d.describe,
	}
	patience := ownPatience
	if t.id == state.DefaultGroup {
		patience = 0
	}
	c := owner.Config{
		Patience: patience, Turns: d.turns,
		Name: name, Seat: g, Members: t.members, Gate: t.gates, Sink: t.sink, Keeper: t.kept, Advice: t.advice,
		Log: log, Now: boottime.Now,
		Addresses: func(s *state.State) ([]vip.Address, vip.Schedule, []string) { return d.places.Addresses(t.id, s) },
		Record:    func(m state.Move) { d.record(t, m) },
		Loss:      func() owner.QuorumLoss { return d.quorum.Loss(boottime.Now()) },
		Beat:      func() { d.watch.beat(t.id) },
	}
	if d.host != nil {
		c.Silent = d.silent()
		c.Links = d.links.Current
		t.hybrid = d.newHybrid(t, name, !c.Silent)
		if t.id == state.DefaultGroup {
			c.Turned = d.plain.Turned
		}
	}
	c.Consent, c.Claims = t.hybrid, d.claims.Of(t.id) // nil ones, on a witness, do nothing
	d.seats.mu.Lock()
	defer d.seats.mu.Unlock()
	t.owner = owner.New(c)
}

// keepSeats has a seat run for each group that runs here, until ctx ends: then each
// releases and hands over. keeping ends later, when the addresses are to be gone, and
// recording last.
func (d *Daemon) keepSeats(ctx, keeping, recording context.Context) error {
	failures := make(chan error, 1)
	failed := func(err error) {
		select {
		case failures <- err:
		default: // one is enough
		}
	}
	ticks := tick.New(time.Second)
	defer ticks.Stop()
	for {
		changed := d.node.Changed()
		here := d.node.Groups()
		for _, id := range here {
			t := d.seats.get(id)
			if t == nil || t.stop != nil {
				continue
			}
			if t.owner == nil {
				d.openSeat(t)
			}
			if t.owner == nil {
				continue
			}
			d.runSeat(ctx, keeping, recording, t, failed)
		}
		for _, t := range d.seats.with() {
			if t.id != state.DefaultGroup && !slices.Contains(here, t.id) {
				d.closeSeat(keeping, t)
			}
		}
		select {
		case <-changed:
		case <-ticks.C:
		case err := <-failures:
			for _, t := range d.seats.with() {
				if t.stop != nil {
					t.stop()
					_ = t.ended.Wait() // nil
				}
			}
			return err
		case <-ctx.Done():
			for _, t := range d.seats.with() {
				_ = t.ended.Wait() // nil
			}
			select {
			case err := <-failures:
				return err
			default:
				return nil
			}
		}
	}
}

// runSeat begins what runs for a seat.
func (d *Daemon) runSeat(ctx, keeping, recording context.Context, t *seat, failed func(error)) {
	ctx, t.stop = context.WithCancel(ctx)
	t.ended.Go(func() error {
		if err := t.owner.Run(ctx); err != nil {
			failed(fmt.Errorf("owner: %w", err))
		}
		return nil
	})
	recording, t.stopRecording = context.WithCancel(recording)
	d.histories.Go(func() error { d.writeHistory(recording, t); return nil })
	if t.hybrid == nil {
		return
	}
	keeping, t.stopRouting = context.WithCancel(keeping)
	d.routing.Go(func() error {
		if err := t.hybrid.Run(keeping); err != nil {
			failed(fmt.Errorf("vrrp: %w", err))
		}
		return nil
	})
}

// closeSeat ends the seat of a group that has ended: its addresses are off, or silent.
func (d *Daemon) closeSeat(ctx context.Context, t *seat) {
	t.stop()
	_ = t.ended.Wait() // nil
	t.stopRecording()
	d.watch.forget(t.id)
	d.places.Drop(t.id)
	d.told.drop(t.id)
	d.claims.Of(t.id).Follow(nil)
	if t.hybrid != nil {
		t.hybrid.Follow(&state.State{}, false) // none of its instances is the cluster's any more
		t.stopRouting()
	}
	d.seats.mu.Lock()
	delete(d.seats.all, t.id)
	d.seats.mu.Unlock()
	if t.holding == nil {
		d.freeGate(t.gate)
		return
	}
	d.routing.Go(func() error {
		// It lasts as long as an address cannot be deleted; until then the gate is shut and
		// its number in the guard is not used again.
		if err := t.holding.Close(ctx); err != nil {
			d.log.Debug("addresses of a group that has ended", "group", t.id, "error", err)
			return nil
		}
		d.freeGate(t.gate)
		return nil
	})
}

// members are what an owner knows of the cluster, with what its group may own.
type members struct {
	*cluster.Node
	group *group.Group
	id    string

	mu     sync.Mutex
	of     *state.State // of the default group,
	own    *state.State // and of the group's log,
	joined *state.State // of which this was made
}

// State is the replicated state of the cluster, with the instances that the group's own
// log lists, and its history. Of the default group that is one log.
func (m *members) State() *state.State {
	s, own := m.Node.State(), m.group.State()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == s && m.own == own {
		return m.joined
	}
	before := m.joined
	m.of, m.own = s, own
	m.joined = joinStates(m.id, s, own)
	// Readers tell by the slice that nothing has changed.
	if before != nil && sameList(before.Instances, m.joined.Instances) {
		joined := *m.joined
		joined.Instances = before.Instances
		m.joined = &joined
	}
	return m.joined
}

// Self implements owner.Members.
func (m *members) Self() store.Identity { return m.Node.Self() }

// released tells whether none of the addresses is on this node beneath the seat's gates, and
// none will be: the owner has had its list follow the version.
func (d *Daemon) released(id string, version uint64, addresses []netip.Addr) bool {
	t := d.seats.get(id)
	if t == nil {
		return true // nothing is ever owned here in that group
	}
	d.seats.mu.Lock()
	kept, loop := t.kept, t.owner
	d.seats.mu.Unlock()
	if loop == nil {
		return true // its loop will begin with a newer list
	}
	view := loop.View()
	follows := view.ListVersion
	if id == state.DefaultGroup {
		follows = view.Version
	}
	return follows >= version && letWent(kept.Status(), addresses)
}

// letWent tells whether a Holding has nothing to do with any of these addresses. One that
// it is still to have on a list would be put up at a take, also where it is absent now.
func letWent(st vip.Status, addresses []netip.Addr) bool {
	return st.Applied && !slices.ContainsFunc(st.Addresses, func(a vip.AddressStatus) bool {
		return (a.Wanted || a.State != vip.StateAbsent) && slices.Contains(addresses, a.Prefix.Addr())
	})
}

// reportOf is what the checks say about the instances of a group. Those with "vrrp only"
// are in none, and those that the cluster does not have are in the default one.
func (d *Daemon) reportOf(id string) check.Report {
	s := d.node.State()
	in := make(map[string]string)
	for _, i := range s.Instances {
		if g, ok := s.GroupByName(i.Group); ok {
			in[i.Name] = g
		}
	}
	return splitReport(d.checks.Report(), d.configuration(), func(name string) bool {
		g, ok := in[name]
		return ok && g == id || !ok && id == state.DefaultGroup
	})
}

// splitReport is the part of a report about the instances of a group.
func splitReport(r check.Report, c *config.Config, ours func(instance string) bool) check.Report {
	plain := make(map[string]bool)
	for _, in := range c.Instances {
		plain[in.Name] = in.VRRP != nil && in.VRRP.Mode == config.VRRPOnly
	}
	var part []check.InstanceReport
	for _, i := range r.Instances {
		if !plain[i.Name] && ours(i.Name) {
			part = append(part, i)
		}
	}
	if len(part) == len(r.Instances) {
		return r
	}
	return check.Combine(part)
}

// operated are the seats as operators ask about them.
func (d *Daemon) operated() []operate.Seat {
	var out []operate.Seat
	for _, t := range d.seats.with() {
		g := d.node.Group(t.id)
		if g == nil {
			continue
		}
		out = append(out, operate.Seat{
			ID: t.id, Name: d.node.GroupName(t.id), Group: g, Owner: t.owner, Kept: t.kept,
			State: t.members.State, Report: t.advice.report, Apply: g.Apply,
		})
	}
	return out
}

// virtualRouters are those of this node, for operators.
func (d *Daemon) virtualRouters() []operate.Routers {
	var out []operate.Routers
	for _, t := range d.seats.with() {
		out = append(out, t.hybrid)
	}
	return append(out, d.plain)
}

// vmacs are the interfaces with a virtual MAC, by instance.
func (d *Daemon) vmacs() map[string]string {
	out := make(map[string]string)
	for _, t := range d.seats.with() {
		maps.Copy(out, t.hybrid.VMACs())
	}
	return out
}

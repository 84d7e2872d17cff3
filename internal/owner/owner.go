package owner

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/lease"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/policy"
	"github.com/raftvip/raftvip/internal/tick"
	"github.com/raftvip/raftvip/vip"
)

const (
	// lookAgain is how often everything is looked at though nothing was told.
	lookAgain = time.Second
	// handoverPause is how long a failed hand-over is not tried again.
	handoverPause = time.Second
	// releaseWait bounds how long a hand-over waits for addresses to be deleted
	// where no guard silences them.
	releaseWait = 2 * time.Second
	// shutdownHandover bounds the hand-over of a daemon that is stopping.
	shutdownHandover = 500 * time.Millisecond
	// successorWait bounds how long it then waits for the new owner's word.
	successorWait = 500 * time.Millisecond
)

// A Seat is the part of a Raft group that its owner needs: a group.Group.
type Seat interface {
	Standing() group.Standing
	Prepare(ctx context.Context, to string) error
	Transfer(ctx context.Context, to, reason string, manual bool) error
	RefreshLease()
	Contact(nodeID string) (time.Duration, bool)
	LastRelease() (group.Release, time.Duration)
	HeardLeaders() [2]group.HeardLeader
	// Changed is closed when the group's state or standing changes.
	Changed() <-chan struct{}
}

// Members is what is known of the cluster: a cluster.Node.
type Members interface {
	State() *state.State
	Changed() <-chan struct{}
	Self() store.Identity
	// LogFault says why this node cannot follow the log, or "".
	LogFault() string
}

// A Gate lets the kernel answer, for a term and until a time: those of package vip, several
// as one. Shut and Settle return when the kernel obeys.
type Gate interface {
	Term() (uint64, bool)
	Open(term uint64) bool
	Renew(term uint64, until time.Duration)
	Shut()
	Settle()
}

// A Keeper puts the addresses up and takes them down: a vip.Holding, or several as one.
type Keeper interface {
	Set(vip.Wanted)
	WaitReleased(context.Context) error
	Status() vip.Status
	Changed() <-chan struct{}
	Announce(reason string)
	// Waits reports whether an address stays down because there is no consent to it.
	Waits(netip.Addr) bool
}

// Consent is VRRP's part: it can keep an address down that the lease would permit.
type Consent interface {
	// Follow brings it in line with the replicated state.
	Follow(s *state.State, owning bool)
	// Decide tells whether this node owns; successor says that a member goes on.
	Decide(own, successor bool)
	// Faults are why this node cannot own.
	Faults() []string
}

// A Listener hears who else claims the addresses that are owned; nil addresses for none.
type Listener interface{ Follow([]vip.Address) }

// Advice is what the members say of themselves. It can start a hand-over or keep one
// away, and puts nothing up.
type Advice interface {
	// Changed is closed when this node's checks have found something new.
	Changed() <-chan struct{}
	// Publish has the others told what this node is.
	Publish(Told)
	// Candidates are the members as the policy sees them, this one as it was published
	// last. connected tells whether a node answers, held that nobody preempts.
	Candidates(s *state.State, connected func(nodeID string) bool, held bool) []policy.Node
	// Owns reports whether a node says that it owns in the term.
	Owns(nodeID string, term uint64) bool
	// Unguarded reports whether a node says that no guard silences its addresses.
	Unguarded(nodeID string) bool
}

// Told is what an owner has others told of this node.
type Told struct {
	// Faults are why it cannot own, but for those that its checks find.
	Faults []string
	Owning bool
	Term   uint64 // the term in which it owns
	// Take is what keeps addresses from being up here, nil for nothing. Foreign are
	// others' copies of the addresses, NotRemoved how many cannot be removed.
	Take       *policy.Take
	Foreign    []vip.AddressStatus
	NotRemoved int
}

// A Config is what an owner is made of.
type Config struct {
	Name    string // of the group
	Seat    Seat
	Members Members
	Gate    Gate
	Sink    *Sink // of the same gate
	Keeper  Keeper
	Consent Consent
	Claims  Listener
	Advice  Advice
	Log     *slog.Logger
	// Silent: the guard silences the addresses the moment the gate is shut, so
	// that deleting them need not be waited for.
	Silent bool
	// Addresses resolves the group's addresses on this node; faults are those
	// that have no interface.
	Addresses func(*state.State) (addrs []vip.Address, schedule vip.Schedule, faults []string)
	// Links are this node's interfaces; nil on a node that never has addresses.
	Links func() []vip.Link
	// Record writes an entry of the history; it never blocks.
	Record func(state.Move)
	// Beat is called at each turn of the loop: the watchdog's food.
	Beat func()
	// Loss, if not nil, is the last time without a majority of the voters.
	Loss func() QuorumLoss
	// Turned, if not nil, is told of each turn: something may have changed.
	Turned func()
	// Patience is how long what has changed elsewhere in the cluster may wait to be looked
	// at with what follows: where there are many owners, each change of one wakes all.
	Patience time.Duration
	// Turns are shared by the owners of a node.
	Turns Turns
	Now   func() time.Duration // as boottime.Now
}

// An Owner is the loop that decides, for one group, whether this node owns it,
// and brings that about in the order that is safe: the gate first, then the
// hand-over, then the addresses.
type Owner struct {
	name      string
	seat      Seat
	members   Members
	gate      Gate
	sink      *Sink
	keeper    Keeper
	consent   Consent
	claims    Listener
	advice    Advice
	log       *slog.Logger
	silent    bool
	addresses func(*state.State) (addrs []vip.Address, schedule vip.Schedule, faults []string)
	links     func() []vip.Link
	record    func(state.Move)
	beat      func()
	loss      func() QuorumLoss
	turned    func()
	patience  time.Duration
	turns     Turns
	now       func() time.Duration
	requests  chan *Request
	// leaving: this node is about to be removed and must not be given the group back.
	leaving atomic.Bool

	// What follows belongs to the loop.
	policy   policy.State
	term     uint64 // the term that policy and held belong to,
	leading  bool   // and whether this node led in it
	held     bool   // moved here by an operator: nobody preempts
	state    ownership
	pauseEnd time.Duration // no hand-over before
	// waitsFrom is since when others hand over first, 0 for not waiting.
	waitsFrom time.Duration
	tookAt    time.Duration // when ownership began
	upAt      time.Duration // when the addresses were up, but for those that do not come up; 0: not yet
	known     tenure        // the newest ownership that this node knows of
	before    tenure        // the one before this node's own
	stopped   string        // why this node stopped owning the last time
	arrived   bool          // the take has been recorded
	takes     takes
	told      bool // that it owns, as last published
	doubts    doubts
	ledFrom   time.Duration // when this term's leadership was first seen
	silentAt  []string      // members that did not answer at the last turn as leader
	// version and listVersion are those of the state that the Keeper's list is from.
	version, listVersion uint64

	mu   sync.Mutex
	view View
}

// New makes the owner of a group. It does nothing before Run.
func New(c Config) *Owner {
	return &Owner{
		name: c.Name, seat: c.Seat, members: c.Members, gate: c.Gate, sink: c.Sink, keeper: c.Keeper, consent: c.Consent,
		claims: c.Claims, advice: c.Advice, log: c.Log, silent: c.Silent, addresses: c.Addresses, links: c.Links,
		record: c.Record, beat: c.Beat, loss: c.Loss, turned: c.Turned, patience: c.Patience, turns: c.Turns, now: c.Now, requests: make(chan *Request),
	}
}

// A View is what others may know of the loop.
type View struct {
	Owning   bool
	Why      string        // why it owns, or does not
	Since    time.Duration // when Owning last changed, as boottime.Now
	LastTurn time.Duration // as boottime.Now; 0: the loop has not turned yet
	Faults   []string      // why it cannot own, but for those that its checks find
	// Version and ListVersion are those of the state whose addresses the Keeper was told last.
	Version, ListVersion uint64
}

// Run is the loop. When ctx ends it releases and hands over, and returns.
func (o *Owner) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed, here, kept := o.members.Changed(), o.seat.Changed(), o.keeper.Changed()
		next := o.turn(ctx)
		if next == lookAgain {
			next = tick.Until(lookAgain)
		}
		timer.Reset(next)
		for waiting := true; waiting; {
			waiting = false
			select {
			case <-ctx.Done():
				o.shutdown()
				return nil
			case r := <-o.requests:
				o.request(ctx, r)
			case <-changed:
				if o.patience > 0 && next > o.patience {
					changed, waiting = nil, true
					timer.Reset(o.patience)
				}
			case <-here:
			case <-kept:
			case <-o.sink.wake:
			case <-o.advice.Changed():
			case <-timer.C:
			}
		}
	}
}

// turn looks at everything once and acts. It returns when to look again.
func (o *Owner) turn(ctx context.Context) time.Duration {
	o.beat()
	if o.turned != nil {
		o.turned()
	}
	s := o.members.State()
	self := o.members.Self().NodeID
	o.consent.Follow(s, o.state == owning)
	addrs, schedule, faults := o.addresses(s)
	faults = append(faults, o.consent.Faults()...)
	if fault := o.members.LogFault(); fault != "" {
		faults = append(faults, fault)
	}
	if o.leaving.Load() {
		faults = append(faults, "it is leaving the cluster")
	}
	o.lookAtTakes(addrs)
	o.publishHint(faults)
	standing := o.standing()
	o.known = heardOwner(o.known, s, o.name, o.seat.HeardLeaders(), o.advice.Owns)
	if newReign(o.term, o.leading, standing) {
		o.policy, o.term, o.leading = policy.State{}, standing.Term, standing.Leading
		o.held, o.silentAt, o.ledFrom = false, nil, o.now()
		if standing.Leading {
			r, _ := o.seat.LastRelease()
			o.held = r.Manual && r.To == self && r.Term+1 == standing.Term
		}
	}
	now := o.now()
	in := ownInputs{standing: standing, now: now, founded: s.Founded(), was: o.state}
	if standing.Leading && o.state != owning && len(s.Groups) > 0 {
		in.stray = strayOf(addrs, o.keeper.Status().Addresses)
	}
	next := lookAgain
	if standing.Leading && s.Founded() {
		o.logSilence(o.silentPeers(s))
		nodes := o.candidates(s)
		for _, n := range nodes {
			if n.Self {
				in.self = n
			}
		}
		// Where an operator moved the group to, nobody takes it from, also before the
		// lease is confirmed and it is owned.
		o.policy, in.decision = policy.Step(o.policy, now, self, o.state == owning || o.held, nodes)
		in.handover = in.decision.Transfer && now >= o.pauseEnd
		next = min(next, in.decision.NextCheck)
	}
	if in.handover && standing.LeaseUntil > now && o.state == owning {
		may, taken := o.mayHandOver(now)
		if taken {
			defer o.turns.leave()
		}
		if !may {
			in.handover, in.waits = false, true
			next = min(next, turnLook)
		}
	}
	state, why := decide(in)
	switch {
	case in.handover && standing.LeaseUntil > now:
		if err := o.handOver(ctx, in.decision.To, in.decision.Reason, false); err != nil {
			o.log.Warn("cannot hand over", "reason", in.decision.Reason, "error", err)
		}
		return 10 * time.Millisecond
	case state == owning:
		o.becomeOwner(standing.Term, why, addrs, schedule)
		if reason := o.doubts.look(now, o.silentPeers(s), standing.LeaseUntil-now); reason != "" {
			o.keeper.Announce(reason)
		}
		if left := standing.LeaseUntil - o.now(); left > 0 {
			next = min(next, left+time.Millisecond)
		}
		if at := o.takes.unsettled; at > 0 {
			next = min(next, at-now+time.Millisecond)
		}
	default:
		o.becomeStandby(why, addrs, schedule, standing)
	}
	if o.told != (o.state == owning) {
		o.publishHint(faults) // who asks another node is to know at once
	}
	if o.state == owning && o.arrived {
		o.claims.Follow(addrs)
	} else if o.state != owning {
		o.claims.Follow(nil)
	}
	o.version, o.listVersion = s.Version, s.ListVersion
	o.setView(why, faults)
	return max(next, time.Millisecond)
}

// strayOf names an address that is on the kernel beneath the group's gates and is not in its
// list, or is "". Another group may own it by now.
func strayOf(addrs []vip.Address, kept []vip.AddressStatus) string {
	listed := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		listed[a.Prefix.Addr()] = true
	}
	for _, a := range kept {
		if (a.Present || a.DeleteFailures > 0) && !listed[a.Prefix.Addr()] {
			return a.Prefix.Addr().String()
		}
	}
	return ""
}

// newReign tells whether this node has begun or ceased to lead since the last turn.
// The term alone does not tell: it is new before the election is won, and a turn may
// come in between.
func newReign(term uint64, leading bool, now group.Standing) bool {
	return now.Term != term || now.Leading != leading
}

// standing is the group's, with the lease shortened by the guard's lateness: the
// time until which this node may rely on being the only one.
func (o *Owner) standing() group.Standing {
	s := o.seat.Standing()
	if s.LeaseUntil > 0 {
		s.LeaseUntil -= o.sink.lateness
	}
	return s
}

func (o *Owner) candidates(s *state.State) []policy.Node {
	connected := func(id string) bool {
		ago, ok := o.seat.Contact(id)
		return ok && ago < max(s.Heartbeat.Current, time.Second)
	}
	return o.advice.Candidates(s, connected, o.held)
}

// logSilence says once when a member stops or begins to answer this leader.
func (o *Owner) logSilence(silent []string) {
	for _, name := range silent {
		if !slices.Contains(o.silentAt, name) {
			o.log.Warn("member does not answer", "member", name)
		}
	}
	for _, name := range o.silentAt {
		if !slices.Contains(silent, name) {
			o.log.Info("member answers", "member", name)
		}
	}
	o.silentAt = silent
}

// silentPeers are the members that do not answer this leader now.
func (o *Owner) silentPeers(s *state.State) []string {
	var names []string
	if o.now()-o.ledFrom < time.Second {
		return nil // a new leader has not heard from everyone yet
	}
	for id, n := range s.Nodes {
		if ago, ok := o.seat.Contact(id); id != o.members.Self().NodeID && (!ok || ago > max(s.Heartbeat.Current, time.Second)) {
			names = append(names, n.Name)
		}
	}
	return names
}

func (o *Owner) publishHint(faults []string) {
	t := Told{Faults: faults, Owning: o.state == owning, Take: o.takes.hint(), Foreign: o.takes.foreign, NotRemoved: o.takes.notRemoved}
	if t.Owning {
		t.Term = o.known.term
	}
	o.told = t.Owning
	o.advice.Publish(t)
}

// becomeOwner opens the gate for the term and puts the addresses up; as owner of
// the same term it only follows changes of the list.
func (o *Owner) becomeOwner(term uint64, why string, addrs []vip.Address, schedule vip.Schedule) {
	if open, ok := o.gate.Term(); !ok || open != term {
		o.gate.Open(term)
		o.seat.RefreshLease()
	}
	// Nothing that could wait stands before this: the addresses are down.
	o.consent.Decide(true, false)
	o.keeper.Set(vip.Wanted{Own: true, Term: term, Addresses: addrs, Schedule: schedule})
	if o.state != owning {
		o.state, o.tookAt, o.upAt, o.arrived, o.before = owning, o.now(), 0, false, o.known
		o.takes.missed = nil
		o.known = tenure{id: o.members.Self().NodeID, term: term, last: o.now()}
		o.log.Info("owner", "term", term, "reason", why)
	}
	o.arrive(term)
}

// lookAtTakes judges how many of the addresses are up here, or could be.
func (o *Owner) lookAtTakes(addrs []vip.Address) {
	if o.links == nil {
		return
	}
	o.takes.look(o.now(), o.state == owning, addrs, o.links(), o.keeper)
}

// arrive records the take once the addresses are there, or are known not to come up.
func (o *Owner) arrive(term uint64) {
	if o.arrived {
		return
	}
	k := o.keeper.Status()
	if !k.Applied {
		return
	}
	if o.upAt == 0 && !coming(k.Addresses, o.keeper.Waits) {
		o.upAt = o.now()
	}
	take := o.takes.taken(o.now(), nil, k.Addresses, o.keeper.Waits)
	if o.takes.unsettled > 0 {
		return
	}
	if o.upAt == 0 {
		o.upAt = o.now()
	}
	o.arrived = true
	s := o.members.State()
	told := o.explain(s, term)
	if take.Missing > 0 {
		told.reason += fmt.Sprintf("; %d of %d addresses up; %s", take.Wanted-take.Missing, take.Wanted, take.Reason)
		o.log.Error("not all addresses are up", "term", term, "up", take.Wanted-take.Missing, "wanted", take.Wanted, "reason", take.Reason)
	}
	o.record(state.Move{
		Group: o.name, Term: term, From: told.from, To: o.members.Self().Name, Reason: told.reason, Gap: told.gap, GapLeast: told.least,
	})
}

// explain gathers what the history is to say of this take.
func (o *Owner) explain(s *state.State, term uint64) account {
	r, ago := o.seat.LastRelease()
	now := o.now()
	t := takeover{
		state: s, group: o.name, self: o.members.Self().NodeID, term: term, took: o.tookAt, arrived: o.upAt,
		before: o.before, stopped: o.stopped, release: r, releasedAt: now - ago, heard: o.seat.HeardLeaders(),
		lease: lease.Length(s.Heartbeat.Counted()),
	}
	if o.loss != nil {
		t.loss = o.loss()
	}
	if o.advice.Unguarded(o.before.id) {
		t.lease = -1 // nothing silences it but the end of the addresses' lifetime
	}
	return t.account()
}

// ceaseOwning notes that this node has stopped owning, after the gate was shut.
func (o *Owner) ceaseOwning(why string) {
	o.state, o.stopped = standby, why
	o.known.last = o.now()
	if until := o.sink.until(); until > 0 {
		o.known.last = min(o.known.last, until) // the kernel was silent from then on
	}
}

// becomeStandby silences the addresses at once and has them deleted. The VRRP peers
// are told unless a member goes on.
func (o *Owner) becomeStandby(why string, addrs []vip.Address, schedule vip.Schedule, standing group.Standing) {
	if o.state == owning {
		o.gate.Shut()
		o.ceaseOwning(why)
		o.log.Info("not owner any more", "reason", why)
		if s := o.standing(); s.Leading && s.LeaseUntil > o.now() {
			// It still leads, so nobody else can say that nobody owns.
			o.record(state.Move{Group: o.name, Term: s.Term, From: o.members.Self().Name, Reason: why})
		}
	}
	o.keeper.Set(vip.Wanted{Own: false, Addresses: addrs, Schedule: schedule})
	o.consent.Decide(false, !standing.Leading && standing.LeaderID != "")
}

func (o *Owner) setView(why string, faults []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now, since := o.now(), o.view.Since
	if o.view.Owning != (o.state == owning) {
		since = now
	}
	o.view = View{Owning: o.state == owning, Why: why, Since: since, LastTurn: now, Faults: faults, Version: o.version, ListVersion: o.listVersion}
}

// View returns what the loop last decided.
func (o *Owner) View() View {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.view
}

// Wake has the loop turn at once.
func (o *Owner) Wake() { o.sink.Notify() }

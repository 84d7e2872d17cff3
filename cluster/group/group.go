package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/raftvip/raftvip/cluster/beat"
	"github.com/raftvip/raftvip/cluster/identity"
	"github.com/raftvip/raftvip/cluster/lease"
	"github.com/raftvip/raftvip/cluster/raftlog"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/tick"
)

// A Standing is what one node knows of one group at one moment.
type Standing struct {
	Group string
	// Leading: this node leads in Term and has applied everything committed before.
	Leading bool
	Term    uint64
	// LeaderID is the leader that this node knows of, or "".
	LeaderID string
	// LeaseUntil is the end of this node's own lease, 0 for none. It is in the
	// past once the lease has ended.
	LeaseUntil time.Duration
	// Obstacle says why this node leads and has had no lease for longer than that
	// takes, or is "".
	Obstacle string
	// Heard is the time since a leader was last heard; for the leader itself, 0.
	Heard time.Duration
}

// A Group is one Raft group on one node.
type Group struct {
	name    string
	self    string
	log     *slog.Logger
	now     func() time.Duration
	fence   *fence
	trans   *leaseTransport
	machine *stateMachine
	raft    *raft.Raft
	logs    raft.LogStore
	leaders chan bool
	changed *Broadcast
	// lateness is that of Options.
	lateness time.Duration
	peers    PeerCaller
	// reserve writes a vote ahead; nil for a store that cannot.
	reserve func(term uint64, candidate []byte) error

	mu sync.Mutex
	// release is the last one heard of, and when.
	release   Release
	releaseAt time.Duration
	transfer  bool // a hand-over is under way
	closing   bool // nothing begins any more that transfers or calls count

	transfers sync.WaitGroup // hand-overs under way
	calls     sync.WaitGroup // lease messages under way
	ended     chan struct{}  // closed when the group shuts down: nobody waits for calls then

	retimed func(heartbeat time.Duration)
	// members is that of Options, or the group's own state.
	members func() *state.State

	reload chan struct{} // holds a token during a change of Raft's timeouts
	// unsteady is the instant, by now, up to which Raft's heartbeats may leave at the
	// pace of before a change.
	unsteady atomic.Int64
	beating  beats
	// leaveBeats has no more beats sent about this group.
	leaveBeats func()
	detect     bool // notice a silent leader exactly one timeout after it was heard
	// role, led, pace and unbound each hold a token after what they are named for: Raft
	// has another role or leader, this node leads with a lease, heartbeats are to leave
	// at another pace, a lease has begun, voters are to be bound again.
	role, led, pace, hear, unbound chan struct{}

	order func(lost string) []string // that of Options
	// gaveUp: leadership was given away because this node could not own, and it has not
	// owned since. obstacle says why it leads and does not own, or is "".
	gaveUp   atomic.Bool
	obstacle atomic.Pointer[string]
}

type Options struct {
	Name, Self string
	Log        *slog.Logger
	Now        func() time.Duration
	Heartbeat  state.HeartbeatSetting
	Version    uint64 // of the state that heartbeat is from
	Sink       LeaseSink
	// Lateness is by how much the sink shortens a lease.
	Lateness  time.Duration
	Inner     networkTransport
	Logs      raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	Peers     PeerCaller
	Changed   *Broadcast
	RaftLog   *slog.Logger
	// Order returns the nodes that may own, best first, without a lost leader; nil
	// leaves elections to Raft's own timers.
	Order func(lost string) []string
	// DiskFault says why this node cannot write what Raft must remember, or ""; nil
	// for a disk that is not watched.
	DiskFault func() string
	// Reserve writes a vote ahead of an election that is about to be held, see
	// store.VoteStore; nil for a store that cannot.
	Reserve func(term uint64, candidate []byte) error
	// TermSaved tells whether the term is written; nil for a store that does not fail.
	TermSaved func() bool
	// Retimed is told of a changed heartbeat timeout; nil for nobody.
	Retimed func(heartbeat time.Duration)
	// Members returns the state that says who the members are and what they promise, where
	// that is not this group's own; nil where it is.
	Members func() *state.State
	// First is the state before the first entry of the log, nil for an empty one.
	First *state.State
	// Beats sends the group's heartbeats together with those of others; nil for nobody.
	Beats Beats
	// between is what Raft gets for a transport, nil for the decorated one itself: a
	// simulated machine is busy there.
	between func(*leaseTransport) raft.Transport
}

// raftConfig derives every Raft timing from the heartbeat timeout. A quiet group does less
// while nothing happens.
func raftConfig(self string, heartbeat time.Duration, quiet bool) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(self)
	c.HeartbeatTimeout = heartbeat
	c.ElectionTimeout = heartbeat
	c.LeaderLeaseTimeout = heartbeat - wakeEarly // see expire
	// The log is nearly idle; this is how often followers learn the commit index
	// when nothing is written, and each time costs a request to every one.
	c.CommitTimeout = 500 * time.Millisecond
	if quiet { // there may be many, each with its own
		c.CommitTimeout = 5 * time.Second
	}
	c.SnapshotInterval = 2 * time.Minute
	c.SnapshotThreshold = 1024
	c.TrailingLogs = 1024
	c.MaxAppendEntries = maxAppend / maxCommand * 7 / 8 // what a peer takes in one message
	c.NoLegacyTelemetry = true
	// A leader that is removed steps down; the group is closed by run alone.
	c.ShutdownOnRemove = false
	return c
}

// Open opens the group's Raft. It does not run before run is called, but may
// answer its peers already.
func Open(p Options) (*Group, error) {
	term, _ := p.Stable.GetUint64([]byte("CurrentTerm")) // an error is a store without one
	if p.First == nil {
		p.First = state.New()
	}
	f := newFence(p.Self, p.Now, p.Heartbeat.Promise(), lease.Length(p.Heartbeat.Counted()), term, p.Sink)
	f.version = p.Version
	g := &Group{
		name: p.Name, self: p.Self, lateness: p.Lateness, logs: p.Logs, log: p.Log.With("group", p.Name), now: p.Now, fence: f,
		machine: newStateMachine(p.First, p.Changed, p.Log.With("group", p.Name)), leaders: make(chan bool, 16), ended: make(chan struct{}), changed: p.Changed, peers: p.Peers,
		reserve: p.Reserve, retimed: p.Retimed, order: p.Order, reload: make(chan struct{}, 1),
		role: make(chan struct{}, 1), led: make(chan struct{}, 1), pace: make(chan struct{}, 1), hear: make(chan struct{}, 1), unbound: make(chan struct{}, 1),
	}
	g.members = g.State
	if p.Members != nil {
		g.members = p.Members
		f.member = func(id string) bool { _, ok := p.Members().Nodes[id]; return ok }
	}
	g.trans = newLeaseTransport(p.Inner, f, func() time.Duration { promise, _ := f.timing(); return promise })
	g.trans.diskFault, g.trans.termSaved = g.unable(p.DiskFault), p.TermSaved
	if p.Beats != nil {
		g.trans.exchange = func(node, address string, term uint64) (beat.Result, error) {
			return p.Beats.Exchange(p.Name, node, address, term)
		}
	}
	config := raftConfig(p.Self, p.Heartbeat.Promise(), p.Members != nil)
	config.NotifyCh = g.leaders
	config.Logger = raftlog.New(p.RaftLog)
	var trans raft.Transport = g.trans
	if p.between != nil {
		trans = p.between(g.trans)
	}
	snapshots := groupSnapshots{p.Snapshots, f, &g.trans.installing}
	r, err := openRaft(config, g.machine, &voterLog{p.Logs, f}, p.Stable, snapshots, trans)
	if why := g.machine.stopped(); why != nil {
		if err == nil {
			err = r.Shutdown().Error()
		}
		return nil, errors.Join(fmt.Errorf("open group %s: %w", p.Name, why), err)
	}
	if err != nil {
		return nil, fmt.Errorf("open group %s: %w", p.Name, err)
	}
	g.machine.opening.Store(false)
	g.raft = r
	if _, err := configOf(r); err != nil {
		return nil, errors.Join(fmt.Errorf("open group %s: %w", p.Name, err), r.Shutdown().Error())
	}
	f.mu.Lock()
	f.readVoters = g.Voters
	f.mu.Unlock()
	if p.Order != nil {
		g.trans.steer, g.detect = g.steeringOf(p.Order), true
	}
	following := func() bool { return r.State() == raft.Follower }
	g.trans.following.Store(&following)
	replicating := func(id string) bool {
		return r.State() == raft.Leader && slices.ContainsFunc(r.GetConfiguration().Configuration().Servers, func(s raft.Server) bool { return string(s.ID) == id })
	}
	g.trans.replicating.Store(&replicating)
	view := func() logView {
		return logView{term: r.CurrentTerm(), commit: max(r.CommitIndex(), r.AppliedIndex()), termAt: g.termAt}
	}
	g.trans.view.Store(&view)
	g.leaveBeats = func() {}
	if p.Beats != nil {
		p.Beats.Follow(p.Name, source{g})
		g.leaveBeats = func() { p.Beats.Leave(p.Name) }
	}
	g.trans.start()
	return g, nil
}

// unable says why this node is not to lead, or "".
func (g *Group) unable(diskFault func() string) func() string {
	return func() string {
		if err := g.machine.stopped(); err != nil {
			return err.Error()
		}
		if diskFault == nil {
			return ""
		}
		return diskFault()
	}
}

// openRaft turns the panics by which Raft and bbolt report damaged pages into errors.
func openRaft(c *raft.Config, m raft.FSM, logs raft.LogStore, stable raft.StableStore, snaps raft.SnapshotStore, t raft.Transport) (r *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", store.ErrLogLost, p)
		}
	}()
	return raft.NewRaft(c, m, logs, stable, snaps, t)
}

// Voters reads the voters of the latest configuration from Raft.
func (g *Group) Voters() []string {
	return votersOf(g.raft.GetConfiguration().Configuration())
}

// lookAgain is how often what is told by observations, which Raft may drop, is
// looked at without one.
const lookAgain = time.Second

// due is when to look again after a time. What looks now and then looks at the ticks of
// the whole process.
func due(after time.Duration) time.Duration {
	if after == lookAgain {
		return tick.Until(lookAgain)
	}
	return after
}

// Run follows leadership until ctx ends, then shuts Raft down.
func (g *Group) Run(ctx context.Context) error {
	observed := make(chan raft.Observation, 64)
	observer := raft.NewObserver(observed, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.PeerObservation, raft.RaftState:
			return true
		}
		return false
	})
	g.raft.RegisterObserver(observer)
	defer g.raft.DeregisterObserver(observer)

	look := time.NewTimer(0)
	defer look.Stop()
	var tasks errgroup.Group
	defer tasks.Wait()
	binding, stopBinding := context.WithCancel(ctx)
	defer stopBinding()
	var binder errgroup.Group
	binder.Go(func() error { g.keepBinding(binding); return nil })
	binder.Go(func() error { g.keepPace(binding); return nil })
	binder.Go(func() error { g.keepHearing(binding); return nil })
	if g.detect {
		binder.Go(func() error { g.keepDetecting(binding); return nil })
	}
	cancel := func() {}
	defer func() { cancel() }()
	for {
		select {
		case <-ctx.Done():
			g.fence.revoke(g.raft.CurrentTerm())
			cancel()
			tasks.Wait()
			// Raft does not answer a hand-over that it was asked for before it shut down.
			g.mu.Lock()
			g.closing = true
			g.mu.Unlock()
			g.transfers.Wait()
			// Raft waits at its shutdown for the heartbeats that are under way.
			g.leaveBeats()
			// Raft closes the transport; it must do so while requests can still be
			// answered, or its own goroutines wait for them.
			err := g.raft.Shutdown().Error()
			binder.Wait()
			close(g.ended)
			g.calls.Wait()
			return errors.Join(err, g.trans.Close())
		case leading := <-g.leaders:
			if !leading {
				g.stepDown()
			}
			cancel()
			tasks.Wait()
			if !leading {
				g.stepDown() // assume may have finished in between
				g.changed.Notify()
				continue
			}
			var assuming context.Context
			assuming, cancel = context.WithCancel(ctx)
			tasks.Go(func() error { g.assume(assuming); return nil })
		case <-observed:
			g.changed.Notify()
			Signal(g.role)
		case <-g.led:
		case <-look.C:
		}
		g.fence.tick()
		next := lookAgain
		if g.fence.alone() {
			next = max(g.length()/5, time.Millisecond)
		}
		look.Reset(due(next))
	}
}

// Close closes a group that was opened and does not run.
func (g *Group) Close() error {
	g.leaveBeats()
	err := g.raft.Shutdown().Error()
	close(g.ended)
	return errors.Join(err, g.trans.Close())
}

// Signal leaves a token; one that is there already says the same.
func Signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// stepDown ends the lease of the term that this node led. It is called some time
// after the fact: this node may have won a later term meanwhile, and that lease
// stays.
func (g *Group) stepDown() {
	term, _ := g.fence.until()
	if g.raft.State() == raft.Leader && g.raft.CurrentTerm() == term {
		return
	}
	g.setObstacle("")
	if term != 0 {
		g.fence.revoke(term)
		g.log.Info("no longer leader", "term", term)
	}
}

func (g *Group) length() time.Duration {
	g.fence.mu.Lock()
	defer g.fence.mu.Unlock()
	return g.fence.length
}

// Standing returns what this node knows of the group now.
func (g *Group) Standing() Standing {
	term, until := g.fence.until()
	_, leader := g.raft.LeaderWithID()
	s := Standing{Group: g.name, Leading: term != 0, Term: term, LeaderID: string(leader), LeaseUntil: until}
	if why := g.obstacle.Load(); why != nil {
		s.Obstacle = *why
	}
	if !s.Leading {
		s.Term = g.raft.CurrentTerm()
		s.Heard = g.fence.lastHeard()
	}
	return s
}

// Changed returns a channel that is closed when the group's state or standing changes. Take
// it before reading them.
func (g *Group) Changed() <-chan struct{} { return g.changed.Wait() }

// Name returns the group's name.
func (g *Group) Name() string { return g.name }

// State returns the newest replicated state that is applied here. It is not changed.
func (g *Group) State() *state.State { return g.machine.state.Load() }

// States are the hashes of the newest states, for a comparison among members.
func (g *Group) States() *state.Divergence { return g.machine.kept }

// Stopped says why this node does not follow the log any more, or is nil.
func (g *Group) Stopped() error { return g.machine.stopped() }

// Leader returns the leader that this node knows of, and where it is, or "".
func (g *Group) Leader() (nodeID, address string) {
	at, id := g.raft.LeaderWithID()
	return string(id), string(at)
}

// Position returns how far this node has come: its newest term, and its log's last index.
func (g *Group) Position() identity.Position {
	return identity.Position{Term: g.raft.CurrentTerm(), Index: g.raft.LastIndex()}
}

// Watch has it noted how far other nodes are known to have come.
func (g *Group) Watch(h *identity.Holders) { g.trans.acked.Store(&h) }

// Speaks tells whether this node follows a process in a term, by what it has heard.
func (g *Group) Speaks(term uint64, process string) bool { return g.fence.speaks(term, process) }

// Bound returns for how long this voter's promises keep it from voting for a node.
func (g *Group) Bound(nodeID string) time.Duration { return g.fence.bound(nodeID) }

// Barred says why this node takes part in nothing any more, or is "".
func (g *Group) Barred() string {
	g.fence.mu.Lock()
	defer g.fence.mu.Unlock()
	return g.fence.barred
}

// Streams returns how many connections there are on which a node may speak Raft.
func (g *Group) Streams(nodeID string) int {
	inner, ok := g.trans.networkTransport.(interface{ streamsFrom(string) int })
	if !ok {
		return 0
	}
	return inner.streamsFrom(nodeID)
}

// Unfit says why this node does not stand for election, or is "".
func (g *Group) Unfit() string { return g.trans.diskFault() }

// Raft returns the group's Raft, whose leadership grants nothing.
func (g *Group) Raft() *raft.Raft { return g.raft }

// Shortened tells whether no lease runs any more that is longer than the present
// timing grants.
func (g *Group) Shortened() bool { return g.fence.shortened() }

// RefreshLease tells the sink the present end of the lease: of use to an owner
// that has just opened its gate and would else wait for the next acknowledgement.
func (g *Group) RefreshLease() { g.fence.tick() }

// Contact returns the time since a voter last acknowledged this leader.
func (g *Group) Contact(nodeID string) (time.Duration, bool) { return g.fence.contact(nodeID) }

// LastRelease returns the last hand-over that this node was told of and how long ago.
func (g *Group) LastRelease() (Release, time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.release, g.now() - g.releaseAt
}

// A HeardLeader is another node that led, as this one has heard it.
type HeardLeader struct {
	NodeID string
	Term   uint64
	// At is when it was last heard.
	At time.Duration
}

// HeardLeaders returns the two leaders that this node has heard last, the newest
// first; the zero value for none.
func (g *Group) HeardLeaders() [2]HeardLeader {
	g.fence.mu.Lock()
	defer g.fence.mu.Unlock()
	return g.fence.leaders
}

// Bar ends this node's part in the group, as it may not speak for its identity.
func (g *Group) Bar(why string) {
	g.fence.bar(why)
	Signal(g.led)
	g.changed.Notify()
}

// Holder returns the leader that this node heard last, its term, and how long
// ago: what a new leader knows of the one before it.
func (g *Group) Holder() (nodeID string, term uint64, ago time.Duration) {
	g.fence.mu.Lock()
	defer g.fence.mu.Unlock()
	id, term := g.fence.promise.Holder()
	return nodeOf(id), term, g.fence.now() - g.fence.heardAt
}

// Apply commits a command. A refusal by the state machine is returned as it is.
func (g *Group) Apply(ctx context.Context, c state.Command) error {
	b, err := state.EncodeCommand(c, g.machine.state.Load().FeatureLevel())
	if err != nil {
		return err
	}
	if len(b) > maxCommand {
		return state.Refuse(state.CodeBadRequest, "", "the change takes %d bytes in the cluster's log, allowed are %d", len(b), maxCommand)
	}
	timeout := 5 * time.Second
	if d, ok := ctx.Deadline(); ok {
		timeout = time.Until(d)
	}
	future := g.raft.Apply(b, timeout)
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err = <-done:
	case <-ctx.Done():
		return state.Refuse(state.CodeNoLeader, "see \"raftvip status\" for the nodes that are not reachable",
			"the cluster did not confirm the change in time: no majority of the voters answers")
	}
	switch {
	case errors.Is(err, raft.ErrLeadershipLost):
		return state.Refuse(state.CodeUncertain, "look whether it took effect before you repeat it",
			"the leader changed while the change was being written: it may or may not have taken effect")
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return state.Refuse(state.CodeNotLeader, "try again", "the leader has just changed")
	case err != nil:
		return fmt.Errorf("commit to the cluster's log: %w", err)
	}
	g.spread()
	if refused, ok := future.Response().(error); ok {
		return refused
	}
	return nil
}

// spread tells the voters how far the log is committed, as Raft itself does half a
// second later: whoever leads next has then applied all of it, and need not commit
// something first.
func (g *Group) spread() {
	term, _ := g.fence.until()
	if term == 0 {
		return
	}
	for _, s := range g.raft.GetConfiguration().Configuration().Servers {
		if string(s.ID) != g.self {
			g.background(func() { g.tellCommitted(term, s) })
		}
	}
}

// tellCommitted sends what a leader sends when it has nothing to replicate. To a node
// that lacks a part of the log it is of no use, and does no harm.
func (g *Group) tellCommitted(term uint64, s raft.Server) {
	var last raft.Log
	committed := g.raft.CommitIndex()
	if err := g.logs.GetLog(committed, &last); err != nil {
		return // it is in a snapshot
	}
	req := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(g.self), Addr: g.trans.EncodePeer(raft.ServerID(g.self), g.trans.LocalAddr())},
		Term:      term, PrevLogEntry: last.Index, PrevLogTerm: last.Term, LeaderCommitIndex: committed,
	}
	// An error is a voter that does not answer; Raft will go on telling it.
	_ = g.trans.networkTransport.AppendEntries(s.ID, s.Address, req, &raft.AppendEntriesResponse{})
}

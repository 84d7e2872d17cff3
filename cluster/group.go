package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/raftvip/raftvip/cluster/lease"
)

// DefaultGroup is the group that holds the replicated state and, unless told
// otherwise, owns every instance.
const DefaultGroup = "default"

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
	// Heard is the time since a leader was last heard; for the leader itself, 0.
	Heard time.Duration
}

// A Release is what a leader says when it hands its group over.
type Release struct {
	Group string `json:"group"`
	Term  uint64 `json:"term"`
	// Seq counts the releases of one term by its leader: messages overtake one
	// another, and a release that has been taken back must not free a voter.
	Seq  uint64 `json:"seq"`
	From string `json:"from"` // node ID
	To   string `json:"to"`   // node ID
	// Reason is for the history.
	Reason string `json:"reason"`
	// Manual: an operator wants it so, and nobody is to preempt the new owner.
	Manual bool `json:"manual,omitempty"`
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
	changed *broadcast
	peers   peerCaller

	mu sync.Mutex
	// release is the last one heard of, and when.
	release   Release
	releaseAt time.Duration
	transfer  bool // a hand-over is under way
	closing   bool // no hand-over begins any more

	transfers sync.WaitGroup // hand-overs under way
	calls     sync.WaitGroup // lease messages under way

	reload sync.Mutex // one change of Raft's timeouts at a time
	detect bool       // notice a silent leader exactly one timeout after it was heard
}

// peerCaller sends the lease messages to another voter.
type peerCaller interface {
	callRelease(ctx context.Context, address string, r Release) error
	callRebind(ctx context.Context, address string, r Release) error
}

type groupParts struct {
	name, self string
	log        *slog.Logger
	now        func() time.Duration
	heartbeat  HeartbeatSetting
	sink       LeaseSink
	inner      networkTransport
	logs       raft.LogStore
	stable     raft.StableStore
	snapshots  raft.SnapshotStore
	peers      peerCaller
	changed    *broadcast
	raftLog    *slog.Logger
	// order returns the nodes that may own, best first, without a lost leader; nil
	// leaves elections to Raft's own timers.
	order func(lost string) []string
	// diskFault says why this node cannot write what Raft must remember, or ""; nil
	// for a disk that is not watched.
	diskFault func() string
}

// raftConfig derives every Raft timing from the heartbeat timeout.
func raftConfig(self string, heartbeat time.Duration) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(self)
	c.HeartbeatTimeout = heartbeat
	c.ElectionTimeout = heartbeat
	c.LeaderLeaseTimeout = heartbeat - wakeEarly // see expire
	// The log is nearly idle; this is how often followers learn the commit index
	// when nothing is written, and each time costs a request to every one.
	c.CommitTimeout = 500 * time.Millisecond
	c.SnapshotInterval = 2 * time.Minute
	c.SnapshotThreshold = 1024
	c.TrailingLogs = 1024
	c.NoLegacyTelemetry = true
	// A leader that is removed steps down; the group is closed by run alone.
	c.ShutdownOnRemove = false
	return c
}

// newGroup opens the group's Raft. It does not run before run is called, but may
// answer its peers already.
func newGroup(p groupParts) (*Group, error) {
	term, _ := p.stable.GetUint64([]byte("CurrentTerm")) // an error is a store without one
	f := newFence(p.self, p.now, p.heartbeat.Promise(), lease.Length(p.heartbeat.Counted()), term, p.sink)
	g := &Group{
		name: p.name, self: p.self, logs: p.logs, log: p.log.With("group", p.name), now: p.now, fence: f,
		machine: newStateMachine(p.changed), leaders: make(chan bool, 16), changed: p.changed, peers: p.peers,
	}
	g.trans = newLeaseTransport(p.inner, f, func() time.Duration {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.promise.Length()
	})
	g.trans.diskFault = p.diskFault
	config := raftConfig(p.self, p.heartbeat.Current)
	config.NotifyCh = g.leaders
	config.Logger = newRaftLogger(p.raftLog)
	r, err := openRaft(config, g.machine, p.logs, p.stable, p.snapshots, g.trans)
	if err != nil {
		return nil, fmt.Errorf("open group %s: %w", p.name, err)
	}
	g.raft = r
	f.mu.Lock()
	f.voters = g.voters
	f.mu.Unlock()
	if p.order != nil {
		g.trans.steer, g.detect = g.steeringOf(p.order), true
	}
	following := func() bool { return r.State() == raft.Follower }
	g.trans.following.Store(&following)
	g.trans.start()
	return g, nil
}

// openRaft turns the panics by which Raft and bbolt report damaged pages into errors.
func openRaft(c *raft.Config, m raft.FSM, logs raft.LogStore, stable raft.StableStore, snaps raft.SnapshotStore, t raft.Transport) (r *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrLogLost, p)
		}
	}()
	return raft.NewRaft(c, m, logs, stable, snaps, t)
}

// voters returns the voters of the latest configuration.
func (g *Group) voters() []string {
	var ids []string
	for _, s := range g.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

// run follows leadership until ctx ends, then shuts Raft down.
func (g *Group) run(ctx context.Context) error {
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

	tick := time.NewTicker(max(g.length()/5, time.Millisecond))
	defer tick.Stop()
	var tasks errgroup.Group
	defer tasks.Wait()
	binding, stopBinding := context.WithCancel(ctx)
	defer stopBinding()
	var binder errgroup.Group
	binder.Go(func() error { g.keepBinding(binding); return nil })
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
			// Raft closes the transport; it must do so while requests can still be
			// answered, or its own goroutines wait for them.
			err := g.raft.Shutdown().Error()
			binder.Wait()
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
				g.changed.notify()
				continue
			}
			var assuming context.Context
			assuming, cancel = context.WithCancel(ctx)
			tasks.Go(func() error { g.assume(assuming); return nil })
		case <-observed:
			g.changed.notify()
		case <-tick.C:
			g.fence.tick()
		}
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

// assume makes leadership usable: everything committed before must be applied
// here first, so that the owner acts on the newest address list. A log that is
// applied to its end has it all; else a barrier is waited for, which costs two
// writes to the disks of a majority.
func (g *Group) assume(ctx context.Context) {
	term := g.raft.CurrentTerm()
	if g.raft.State() != raft.Leader {
		return
	}
	g.confirm(term)
	for ctx.Err() == nil && g.raft.State() == raft.Leader && g.raft.CurrentTerm() == term {
		var err error
		if !g.appliedAll() {
			err = g.barrier(ctx)
		}
		if err == nil {
			if ctx.Err() != nil || g.raft.State() != raft.Leader || g.raft.CurrentTerm() != term {
				return
			}
			g.log.Info("leader", "term", term)
			if s := g.machine.state.Load(); s.Founded() {
				g.setTiming(s.Heartbeat) // before a lease is counted by it
			}
			g.fence.lead(term)
			g.changed.notify()
			return
		}
		g.log.Warn("leader, but cannot commit yet", "term", term, "error", err)
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// confirm asks the voters at once whether they follow: Raft's own first heartbeat
// comes up to a fifth of the timeout later, or behind a write to its disk. What is
// sent is just such a heartbeat, of a leader that has won its term.
func (g *Group) confirm(term uint64) {
	self := g.trans.EncodePeer(raft.ServerID(g.self), g.trans.LocalAddr())
	for _, s := range g.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage != raft.Voter || string(s.ID) == g.self {
			continue
		}
		g.calls.Go(func() {
			req := &raft.AppendEntriesRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(g.self), Addr: self},
				Term:      term,
			}
			// An error is a voter that does not answer; Raft will go on asking it.
			_ = g.trans.AppendEntries(s.ID, s.Address, req, &raft.AppendEntriesResponse{})
		})
	}
}

// maxScan bounds how many log entries appliedAll looks at.
const maxScan = 64

// appliedAll tells whether the log holds no command that is not applied here.
// What the leaders before have committed is in the log of whoever is elected
// (Raft thesis, 3.5 Leader Completeness), so nothing is missing then.
func (g *Group) appliedAll() bool {
	applied, last := g.machine.applied.Load(), g.raft.LastIndex()
	if last > applied+maxScan {
		return false
	}
	for i := applied + 1; i <= last; i++ {
		var entry raft.Log
		if err := g.logs.GetLog(i, &entry); err != nil || entry.Type == raft.LogCommand {
			return false
		}
	}
	return true
}

// barrier returns when everything committed before is applied here, or when ctx
// ends. Raft does not answer in every case: one was seen to wait for ever after
// leadership was lost.
func (g *Group) barrier(ctx context.Context) error {
	future := g.raft.Barrier(time.Second)
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Standing returns what this node knows of the group now.
func (g *Group) Standing() Standing {
	term, until := g.fence.until()
	_, leader := g.raft.LeaderWithID()
	s := Standing{Group: g.name, Leading: term != 0, Term: term, LeaderID: string(leader), LeaseUntil: until}
	if !s.Leading {
		s.Term = g.raft.CurrentTerm()
		s.Heard = g.fence.lastHeard()
	}
	return s
}

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

// Holder returns the leader that this node heard last, its term, and how long
// ago: what a new leader knows of the one before it.
func (g *Group) Holder() (nodeID string, term uint64, ago time.Duration) {
	g.fence.mu.Lock()
	defer g.fence.mu.Unlock()
	id, term := g.fence.promise.Holder()
	return id, term, g.fence.now() - g.fence.heardAt
}

// released is the voter's side of a hand-over.
func (g *Group) released(r Release) {
	g.mu.Lock()
	g.release, g.releaseAt = r, g.now()
	g.mu.Unlock()
	g.fence.freed(r.Term, r.Seq)
}

// apply commits a command. A refusal by the state machine is returned as it is.
func (g *Group) apply(ctx context.Context, c Command) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode command: %w", err)
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
		return refuse(CodeNoLeader, "see \"raftvip status\" for the nodes that are not reachable",
			"the cluster did not confirm the change in time: no majority of the voters answers")
	}
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return refuse(CodeNotLeader, "try again", "the leader has just changed")
	case err != nil:
		return fmt.Errorf("commit to the cluster's log: %w", err)
	}
	if refused, ok := future.Response().(error); ok {
		return refused
	}
	return nil
}

// Transfer hands the group over to a voter. The caller has stopped answering for
// the group's addresses already, or its guard will when the lease sink says so.
// The order is: lease revoked here, then the voters are freed, then Raft is asked.
// When the hand-over fails the promises are taken back, and the lease with them.
func (g *Group) Transfer(ctx context.Context, to, reason string, manual bool) error {
	g.mu.Lock()
	if g.transfer || g.closing {
		g.mu.Unlock()
		return refuse(CodeTransfer, "try again in a moment", "a hand-over is under way already")
	}
	g.transfer = true
	g.transfers.Add(1)
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		g.transfer = false
		g.mu.Unlock()
		g.transfers.Done()
	}()

	term, _ := g.fence.until()
	if term == 0 {
		return refuse(CodeNotLeader, "", "this node does not lead group %s", g.name)
	}
	var target raft.Server
	servers := g.raft.GetConfiguration().Configuration().Servers
	var others []string
	for _, s := range servers {
		if s.Suffrage != raft.Voter || string(s.ID) == g.self {
			continue
		}
		others = append(others, string(s.ID))
		if string(s.ID) == to {
			target = s
		}
	}
	if target.ID == "" {
		return refuse(CodeTransfer, `see "raftvip node list"`, "node %s is not another voter of group %s", to, g.name)
	}
	if ago, ok := g.fence.contact(to); !ok || ago > g.length() {
		return refuse(CodeTransfer, `see "raftvip status"`, "node %s does not answer", to)
	}
	if !g.caughtUp(ctx, term, to) {
		return refuse(CodeTransfer, `see "raftvip status"`, "node %s does not have the newest state yet", to)
	}
	release := Release{Group: g.name, Term: term, From: g.self, To: to, Reason: reason, Manual: manual}
	release.Seq = g.fence.release(term, others)
	stop, err := g.free(ctx, servers, release, (len(others)+1)/2) // with this node's own, a majority
	if err == nil {
		err = g.raft.LeadershipTransferToServer(target.ID, target.Address).Error()
	}
	if err == nil {
		return nil
	}
	stop()
	g.rebind(context.WithoutCancel(ctx), release)
	return refuse(CodeTransfer, `see "raftvip status"; the owner stays`, "hand over to %s: %s", to, err)
}

// caughtUp waits a moment until a voter has the whole log. A hand-over to one that
// has not is slow, and in Raft v1.8.0 the second one to a node that does not answer
// may never end: the node that asked for it could not commit again.
func (g *Group) caughtUp(ctx context.Context, term uint64, id string) bool {
	for end := g.now() + g.length()/2; g.trans.matches(term, id) < g.raft.LastIndex(); {
		if g.now() >= end {
			return false
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// free tells the voters that the lease is released and waits until the target
// and enough others to elect it know. The rest are not waited for: the calls end
// with their own timeout. Stop ends them all and waits for it.
func (g *Group) free(ctx context.Context, servers []raft.Server, r Release, needed int) (stop func(), err error) {
	calls, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	type answer struct {
		id  string
		err error
	}
	answers := make(chan answer, len(servers))
	var sent sync.WaitGroup
	asked := 0
	for _, s := range servers {
		if s.Suffrage != raft.Voter || string(s.ID) == g.self {
			continue
		}
		asked++
		sent.Go(func() { answers <- answer{string(s.ID), g.peers.callRelease(calls, string(s.Address), r)} })
	}
	g.calls.Go(func() { sent.Wait(); cancel() })
	// A call that has ended sends nothing on a new connection any more, so that a
	// voter that is restarted after it was bound again cannot hear of this release.
	stop = func() { cancel(); sent.Wait() }
	ctx, cancelWait := context.WithTimeout(ctx, max(g.length(), 100*time.Millisecond))
	defer cancelWait()
	target := false
	var failures []error
	for range asked {
		select {
		case a := <-answers:
			if a.err != nil {
				failures = append(failures, fmt.Errorf("%s: %w", a.id, a.err))
				continue
			}
			needed--
			target = target || a.id == r.To
			if target && needed <= 0 {
				return stop, nil
			}
		case <-ctx.Done():
			return stop, fmt.Errorf("voters were not told in time: %w", errors.Join(append(failures, ctx.Err())...))
		}
	}
	return stop, fmt.Errorf("voters could not be told: %w", errors.Join(failures...))
}

// rebindPause is the time between two attempts to bind voters that did not answer.
const rebindPause = 200 * time.Millisecond

// rebind asks the voters that were freed to be bound again: after a hand-over
// that has failed this leader has no lease before a majority is. It returns when
// it has one, or when all have been asked; who is slow may still answer.
func (g *Group) rebind(ctx context.Context, r Release) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	_, _, freed := g.fence.unbound()
	var calls sync.WaitGroup
	asked := make(chan struct{}, len(freed))
	n := 0
	for _, s := range g.raft.GetConfiguration().Configuration().Servers {
		if string(s.ID) == g.self || !slices.Contains(freed, string(s.ID)) {
			continue
		}
		n++
		calls.Go(func() {
			sent := g.now()
			if err := g.peers.callRebind(ctx, string(s.Address), r); err != nil {
				g.log.Debug("cannot take a hand-over back", "voter", s.ID, "error", err)
			} else {
				g.fence.bind(r.Term, r.Seq, string(s.ID), sent)
			}
			asked <- struct{}{}
		})
	}
	g.calls.Go(func() { calls.Wait(); cancel() })
	for range n {
		<-asked
		if _, until := g.fence.until(); until > g.now() {
			break
		}
	}
	g.changed.notify()
}

// keepBinding repeats rebind for voters that could not be reached, until the
// leader has them all or is none any more.
func (g *Group) keepBinding(ctx context.Context) {
	tick := time.NewTicker(rebindPause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		g.mu.Lock()
		term, seq, unbound := g.fence.unbound()
		under := g.transfer
		g.mu.Unlock()
		if under || len(unbound) == 0 {
			continue
		}
		g.rebind(ctx, Release{Group: g.name, Term: term, Seq: seq, From: g.self})
	}
}

// setTiming applies a changed heartbeat setting. Raft's own leader lease cannot
// grow shorter while it runs; it is only a second line behind this package's.
func (g *Group) setTiming(h HeartbeatSetting) {
	g.fence.setTiming(h.Promise(), lease.Length(h.Counted()))
	g.reload.Lock()
	defer g.reload.Unlock()
	rc := g.raft.ReloadableConfig()
	if rc.HeartbeatTimeout == h.Current {
		return
	}
	rc.HeartbeatTimeout, rc.ElectionTimeout = h.Current, h.Current
	if err := g.raft.ReloadConfig(rc); err != nil {
		g.log.Warn("heartbeat_timeout takes effect at the next start", "heartbeat_timeout", h.Current, "error", err)
	}
}

package group

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/raftvip/raftvip/cluster/state"
)

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

// PeerCaller sends the lease messages to another voter.
type PeerCaller interface {
	CallPrepare(ctx context.Context, address string, r Release) error
	CallRelease(ctx context.Context, address string, r Release) error
	// CallRebind is an error if another node answered than the one that was asked: what
	// it says is evidence.
	CallRebind(ctx context.Context, id, address string, r Release) error
}

// Prepared is the voter's side of Prepare.
func (g *Group) Prepared(r Release) error {
	if g.reserve == nil {
		return nil
	}
	servers := g.raft.GetConfiguration().Configuration().Servers
	i := slices.IndexFunc(servers, func(s raft.Server) bool { return string(s.ID) == r.To })
	if i < 0 {
		return state.Refuse(state.CodeNotFound, "", "node %s is not a member here yet", r.To)
	}
	written := make(chan error, 1)
	if !g.background(func() { written <- g.reserve(r.Term+1, g.trans.EncodePeer(servers[i].ID, servers[i].Address)) }) {
		return state.Refuse(state.CodeNotReady, "", "this node is stopping")
	}
	select {
	case err := <-written:
		return err
	case <-time.After(g.length() / 3):
		return nil // a slow disk makes the move slow, not impossible
	}
}

// background begins f, which ends before the group does; false if that is ending.
func (g *Group) background(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closing {
		g.calls.Go(f)
	}
	return !g.closing
}

// Released is the voter's side of a hand-over. The one that is to take over stands
// for election at once: the release is its TimeoutNow.
func (g *Group) Released(r Release) {
	g.mu.Lock()
	g.release, g.releaseAt = r, g.now()
	g.mu.Unlock()
	g.fence.freed(r.Term, r.Seq)
	// Who is not to stand lets the other one go ahead, and that one encourages nobody.
	if r.To == g.self {
		g.trans.ballot.advance(g.now(), g.trans.window())
	} else {
		g.trans.ballot.yield(g.now(), g.trans.window(), true)
	}
	if r.To == g.self && g.fence.bound(g.self) <= 0 && g.raft.CurrentTerm() == r.Term {
		g.trans.receive(raft.RPC{
			Command:  &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(g.self)}},
			RespChan: make(chan raft.RPCResponse, 1),
		})
	}
}

// Rebound is the voter's side of taking a release back; false refuses.
func (g *Group) Rebound(r Release, from string) bool {
	return g.trans.saved() && g.fence.rebind(r.Term, r.Seq, from)
}

// takeover finds what a hand-over to a voter needs, and refuses if it could not be
// quick.
func (g *Group) takeover(ctx context.Context, to string) (term uint64, target raft.Server, others []raft.Server, err error) {
	term, _ = g.fence.until()
	if term == 0 {
		return 0, target, nil, state.Refuse(state.CodeNotLeader, "", "this node does not lead group %s", g.name)
	}
	for _, s := range g.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage != raft.Voter || string(s.ID) == g.self {
			continue
		}
		others = append(others, s)
		if string(s.ID) == to {
			target = s
		}
	}
	if target.ID == "" {
		return 0, target, nil, state.Refuse(state.CodeTransfer, `see "raftvip node list"`, "node %s is not another voter of group %s", to, g.name)
	}
	if ago, ok := g.fence.contact(to); !ok || ago > g.length() {
		return 0, target, nil, state.Refuse(state.CodeTransfer, `see "raftvip status"`, "node %s does not answer", to)
	}
	if !g.caughtUp(ctx, term, to) {
		return 0, target, nil, state.Refuse(state.CodeTransfer, `see "raftvip status"`, "node %s does not have the newest state yet", to)
	}
	return term, target, others, nil
}

// Prepare does what a hand-over to a voter needs and what may take long, while this
// node still owns: it makes sure that the voter is there and has the whole state, and
// has all voters write the vote for it to their disks. It returns when the voter, and
// as many others as it needs, have done so or are about to. Nothing is decided by it.
// Transfer is to follow.
func (g *Group) Prepare(ctx context.Context, to string) error {
	g.mu.Lock()
	if g.closing {
		g.mu.Unlock()
		return state.Refuse(state.CodeNotLeader, "", "this node is stopping")
	}
	g.transfers.Add(1)
	g.mu.Unlock()
	defer g.transfers.Done()
	term, target, others, err := g.takeover(ctx, to)
	if err != nil {
		return err
	}
	release := Release{Group: g.name, Term: term, From: g.self, To: to}
	g.background(func() {
		if err := g.Prepared(release); err != nil {
			g.log.Debug("vote not written ahead", "error", err)
		}
	})
	tell := func(ctx context.Context, s raft.Server) error {
		if s.ID == target.ID {
			g.tellCommitted(term, s)
		}
		return g.peers.CallPrepare(ctx, string(s.Address), release)
	}
	if _, err := g.call(ctx, others, to, tell); err != nil {
		return state.Refuse(state.CodeTransfer, `see "raftvip status"; the owner stays`, "prepare the hand-over to %s: %s", to, err)
	}
	return nil
}

// Transfer hands the group over to a voter. The caller has stopped answering for
// the group's addresses already, or its guard will when the lease sink says so.
// The order is: lease revoked here, Raft is told that it hands over, then the voters
// are freed, and one of them with that told to stand for election.
// When the hand-over fails the promises are taken back, and the lease with them.
func (g *Group) Transfer(ctx context.Context, to, reason string, manual bool) error {
	end, ok := g.beginTransfer()
	if !ok {
		return state.Refuse(state.CodeTransfer, "try again in a moment", "a hand-over is under way already")
	}
	defer end()

	term, target, others, err := g.takeover(ctx, to)
	if err != nil {
		return err
	}
	release := Release{Group: g.name, Term: term, From: g.self, To: to, Reason: reason, Manual: manual}
	ids := make([]string, len(others))
	for i, s := range others {
		ids[i] = string(s.ID)
	}
	release.Seq = g.fence.release(term, ids)
	freeing, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &handing{to: target.ID, free: func() (stop func(), err error) {
		return g.call(freeing, others, to, func(ctx context.Context, s raft.Server) error {
			return g.peers.CallRelease(ctx, string(s.Address), release)
		})
	}}
	g.trans.handing.Store(h)
	err = g.raft.LeadershipTransferToServer(target.ID, target.Address).Error()
	g.trans.handing.Store(nil)
	cancel()
	stop := h.end()
	if err == nil {
		// Raft has left the leadership of this term, so that no voter is bound in it again.
		// Who still waits to hear of the release may be needed for the election.
		g.fence.revoke(term)
		return nil
	}
	stop()
	Signal(g.unbound) // for those that do not answer now
	g.rebind(context.WithoutCancel(ctx), release, func(string) bool { return true })
	return state.Refuse(state.CodeTransfer, `see "raftvip status"; the owner stays`, "hand over to %s: %s", to, err)
}

// beginTransfer notes that leadership is being given to somebody, which one at a time
// may do, and not when the group closes (false). end says that it is over.
func (g *Group) beginTransfer() (end func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.transfer || g.closing {
		return nil, false
	}
	g.transfer = true
	g.transfers.Add(1)
	return func() {
		g.mu.Lock()
		g.transfer = false
		g.mu.Unlock()
		g.transfers.Done()
	}, true
}

// A handing is the part of a hand-over that begins when Raft asks for it. Raft may
// ask late, after it has given the hand-over up.
type handing struct {
	to   raft.ServerID
	free func() (stop func(), err error)

	mu   sync.Mutex
	over bool
	stop func() // nil before free
}

// begin frees the voters, once.
func (h *handing) begin() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over || h.stop != nil {
		return errNotReleased
	}
	stop, err := h.free()
	h.stop = stop
	return err
}

// end lets nothing begin any more. What it returns ends the calls that tell of the
// release, and waits for it.
func (h *handing) end() (stop func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	if h.stop == nil {
		return func() {}
	}
	return h.stop
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

// call tells something to voters, all at once, and returns when the target and, with
// this node, a majority have answered. The rest are not waited for: the calls end
// with their own timeout. Stop ends them all and waits for it.
func (g *Group) call(ctx context.Context, voters []raft.Server, target string, tell func(context.Context, raft.Server) error) (stop func(), err error) {
	calls, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	g.calls.Go(func() {
		select {
		case <-g.ended:
			cancel()
		case <-calls.Done():
		}
	})
	type answer struct {
		id  string
		err error
	}
	answers := make(chan answer, len(voters))
	var sent sync.WaitGroup
	for _, s := range voters {
		sent.Go(func() { answers <- answer{string(s.ID), tell(calls, s)} })
	}
	g.calls.Go(func() { sent.Wait(); cancel() })
	// A call that has ended sends nothing on a new connection any more, so that a
	// voter that is restarted after it was bound again cannot hear of this release.
	stop = func() { cancel(); sent.Wait() }
	ctx, cancelWait := context.WithTimeout(ctx, max(g.length(), 100*time.Millisecond))
	defer cancelWait()
	needed := (len(voters) + 1) / 2 // with this node, a majority
	reached := false
	var failures []error
	for range voters {
		select {
		case a := <-answers:
			if a.err != nil {
				failures = append(failures, fmt.Errorf("%s: %w", a.id, a.err))
				continue
			}
			needed--
			reached = reached || a.id == target
			if reached && needed <= 0 {
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
func (g *Group) rebind(ctx context.Context, r Release, ask func(id string) bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	_, _, freed := g.fence.unbound()
	var calls sync.WaitGroup
	asked := make(chan struct{}, len(freed))
	n := 0
	for _, s := range g.raft.GetConfiguration().Configuration().Servers {
		if string(s.ID) == g.self || !slices.Contains(freed, string(s.ID)) || !ask(string(s.ID)) {
			continue
		}
		n++
		calls.Go(func() {
			sent := g.now()
			if err := g.peers.CallRebind(ctx, string(s.ID), string(s.Address), r); err != nil {
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
	g.changed.Notify()
}

// keepBinding repeats rebind for voters that could not be reached, until the
// leader has them all or is none any more. It asks those that have answered something
// lately: whoever hears this leader is bound by being asked, and another that it does
// not hear would be bound for nothing.
func (g *Group) keepBinding(ctx context.Context) {
	for {
		select {
		case <-g.unbound:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(rebindPause):
		case <-ctx.Done():
			return
		}
		g.mu.Lock()
		term, seq, unbound := g.fence.unbound()
		under := g.transfer
		g.mu.Unlock()
		if len(unbound) == 0 {
			continue
		}
		Signal(g.unbound) // to look again
		if !under {
			since := g.now() - g.length()
			g.rebind(ctx, Release{Group: g.name, Term: term, Seq: seq, From: g.self}, func(id string) bool { return g.trans.answeredSince(id, since) })
		}
	}
}

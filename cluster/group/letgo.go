package group

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// deafShare is the share of the promise for which a leader whose lease has ended
	// looks whether it comes back, and deafLate that of one that was late itself: the
	// machine stood still, and answers to what it asks now are to be waited for.
	deafShare, deafLate = 20, 5
	// deafMin is the shortest such time, and deafLooks how often it looks meanwhile.
	deafMin   = time.Millisecond
	deafLooks = 3
	// assumeWithin is how many promises a leader has for the time from its election to
	// its first lease, and assumeMin the least time. One that takes longer waits for
	// something that may never come.
	assumeWithin = 3
	assumeMin    = 2 * time.Second
	// giveUpAgain is how long one that leads after all has until it tries once more.
	giveUpAgain = 5 * time.Minute
)

// A hearing decides whether a leader is deaf: what it sends may be heard and binds its
// voters, and nobody's answer supports its lease any more.
type hearing struct {
	term  uint64
	at    time.Duration // when it looked last
	pause time.Duration // between two looks
	looks int           // without a lease; 0 while there is one
	gave  uint64        // the term that was given up
}

// look returns whether the voters are to be asked at once, whether the leader is deaf,
// which it is told once in a term, and when it looks again. until is the end of the
// lease of term, or 0 if it is none by right: before the first one, or during a move.
func (h *hearing) look(now time.Duration, term uint64, until, promise time.Duration) (ask, deaf bool, next time.Duration) {
	if term == 0 || until == 0 || until > now || term == h.gave {
		h.looks = 0
		switch left := until - now; {
		case term == 0:
			return false, false, lookAgain
		case left > 0:
			return false, false, left
		}
		return false, false, promise / 4
	}
	wait := func(share time.Duration) time.Duration { return max(promise/share, deafMin) / deafLooks }
	late := now - until
	if h.looks > 0 && h.term == term {
		late = now - h.at - h.pause
	}
	stalled := late > max(promise/deafShare, deafMin)
	if h.looks == 0 || h.term != term || stalled {
		h.pause = wait(deafShare)
		if stalled {
			h.pause = wait(deafLate)
		}
		h.term, h.looks, h.at = term, 1, now
		return stalled, false, h.pause
	}
	h.looks, h.at = h.looks+1, now
	if h.looks <= deafLooks {
		return false, false, h.pause
	}
	h.looks, h.gave = 0, term
	return false, true, lookAgain
}

// keepHearing gives leadership up when this node hears its voters no more. They would
// else be bound for a promise after the last that they hear of it.
func (g *Group) keepHearing(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var h hearing
	for {
		select {
		case <-timer.C:
		case <-g.hear:
		case <-ctx.Done():
			return
		}
		term, until := g.fence.until()
		promise, _ := g.fence.timing()
		ask, deaf, next := h.look(g.now(), term, until, promise)
		leads := g.leads(term)
		switch {
		case ask && leads:
			g.confirm(term)
		case deaf && leads:
			g.letGo(ctx, term, g.selfName()+" did not hear a majority of the voters any more")
		}
		timer.Reset(due(next))
	}
}

// leads tells whether Raft leads in term.
func (g *Group) leads(term uint64) bool {
	// The term is read after the state: it may be another leader's meanwhile.
	return g.raft.State() == raft.Leader && g.raft.CurrentTerm() == term
}

// letGo gives leadership in term away without waiting for anybody: the lease is given
// up, if there is one, then the voters are freed, and one of them with that told to
// stand for election. Unlike Transfer it needs no answer, and nothing of Raft, whose
// main loop may hang. It returns when the voters have been told, or could not be for as
// long as a lease. If nobody is elected, those that answer again are bound again.
func (g *Group) letGo(ctx context.Context, term uint64, reason string) {
	end, ok := g.beginTransfer()
	if !ok {
		return
	}
	defer func() {
		end()
		Signal(g.unbound)
		g.changed.Notify()
	}()
	var others []raft.Server
	var ids []string
	for _, s := range g.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter && string(s.ID) != g.self {
			others, ids = append(others, s), append(ids, string(s.ID))
		}
	}
	if len(others) == 0 {
		return
	}
	to := g.successor(term, others)
	g.log.Warn("leadership is given away", "term", term, "to", to.ID, "reason", reason)
	release := Release{Group: g.name, Term: term, From: g.self, To: string(to.ID), Reason: reason}
	release.Seq = g.fence.release(term, ids)
	ctx, cancel := context.WithTimeout(ctx, max(g.length(), 100*time.Millisecond))
	defer cancel()
	var calls sync.WaitGroup
	for _, s := range others {
		calls.Go(func() {
			if err := g.peers.CallRelease(ctx, string(s.Address), release); err != nil {
				g.log.Debug("cannot tell that leadership is given away", "voter", s.ID, "error", err)
			}
		})
	}
	calls.Wait() // none begins later, when a voter is bound again
}

// successor returns the voter that is told to stand: one with as much of the log as
// anybody, and of those the best.
func (g *Group) successor(term uint64, others []raft.Server) raft.Server {
	var order []string
	if g.order != nil {
		order = g.order(g.self)
	}
	rank := func(s raft.Server) int {
		if i := slices.Index(order, string(s.ID)); i >= 0 {
			return i
		}
		return len(order)
	}
	best := others[0]
	for _, s := range others[1:] {
		has, most := g.trans.matches(term, string(s.ID)), g.trans.matches(term, string(best.ID))
		if has > most || has == most && rank(s) < rank(best) {
			best = s
		}
	}
	return best
}

// await returns true when wait does, and false if the leadership ends first, or ctx. It
// gives leadership away when that takes longer than within, and then each giveUpAgain.
func (g *Group) await(ctx context.Context, term uint64, within time.Duration, obstacle string, wait func(ctx context.Context, term uint64) bool) bool {
	for again := false; ; again, within = true, giveUpAgain {
		bounded, cancel := context.WithTimeout(ctx, within)
		done := wait(bounded, term)
		cancel()
		if done {
			return true
		}
		if ctx.Err() != nil || !g.leads(term) {
			return false
		}
		g.giveUp(ctx, term, obstacle, again)
	}
}

// giveUp gives leadership away in a term in which this node cannot own. Nodes that all
// cannot do not pass it round: one that has not owned since it gave up keeps it for a
// long while (again), unless it is another matter now, as it has followed somebody for
// longer than one that cannot own would have led.
func (g *Group) giveUp(ctx context.Context, term uint64, obstacle string, again bool) {
	g.setObstacle(obstacle)
	if g.gaveUp.Swap(true) && !again && g.fence.followed() < 2*g.assumeBound() {
		g.log.Warn("leader, but cannot own; leadership was given away before and came back", "term", term, "reason", obstacle)
		return
	}
	g.letGo(ctx, term, fmt.Sprintf("%s led and could not own: %s", g.selfName(), obstacle))
}

// selfName is what the operator calls this node, for reasons in the history.
func (g *Group) selfName() string {
	if n, ok := g.members().Nodes[g.self]; ok {
		return n.Name
	}
	return g.self
}

func (g *Group) setObstacle(why string) {
	if old := g.obstacle.Swap(&why); old == nil || *old != why {
		g.changed.Notify()
	}
}

// assumeBound is how long a new leader has until it owns.
func (g *Group) assumeBound() time.Duration {
	promise, _ := g.fence.timing()
	return max(assumeWithin*promise, assumeMin)
}

// awaitLease returns true when this leader has had a lease in term, and false if its
// leadership ends, or ctx.
func (g *Group) awaitLease(ctx context.Context, term uint64) bool {
	for g.leads(term) {
		if led, until := g.fence.until(); led == term && until > g.now() {
			return true
		}
		select {
		case <-time.After(appliedPoll):
		case <-ctx.Done():
			return false
		}
	}
	return false
}

package group

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Steering decides who stands for election first and when. It changes nothing of
// who may win: Raft's rules and the voters' promises do. A node that ignored all
// of it would be slower, not wrong.
const (
	// rankStep is the time by which a node lets the next better one go first. It
	// has to cover a pre-vote, a vote and their writes to disk.
	rankStep      = 5 * time.Millisecond
	rankStepShort = 2 * time.Millisecond // for heartbeat timeouts under 100 ms
	// lastResort is how many heartbeat timeouts without a leader a node that cannot
	// own waits before it stands for election: it may be the only one with the
	// newest log.
	lastResort    = 3
	lastResortMin = 300 * time.Millisecond
	// windowMin and windowMax bound the time that an election is given: two round
	// trips and the writes to disk of two nodes.
	windowMin, windowMax = 15 * time.Millisecond, 50 * time.Millisecond
	// wakeEarly is how much sooner than Raft's own timeout it is told to look:
	// Raft's clock of the last contact starts a little after this package's.
	wakeEarly = time.Millisecond
)

func stepOf(heartbeat time.Duration) time.Duration {
	if heartbeat < 100*time.Millisecond {
		return rankStepShort
	}
	return rankStep
}

// standDelay returns how long a node waits before it asks for pre-votes, and
// whether it may ask at all now. order is the nodes that may own, best first, the
// lost leader left out; an empty order means that nothing is known.
func standDelay(order []string, self string, voters int, heartbeat, leaderless time.Duration) (delay time.Duration, stand bool) {
	if len(order) == 0 {
		return 0, true
	}
	rank := slices.Index(order, self)
	if rank < 0 {
		return 0, leaderless >= max(lastResort*heartbeat, lastResortMin)
	}
	if rank == 0 {
		return 0, true
	}
	delay = time.Duration(rank) * stepOf(heartbeat)
	if voters > 3 {
		// Followers hear the leader at different moments, up to a fifth of the
		// timeout apart. With more than three voters the others are a majority
		// without the best node, so they let it notice first.
		delay += heartbeat / 5
	}
	return delay, true
}

// holdDelay returns how long a voter that would do better than the candidate
// holds back its pre-vote, so that it can stand itself.
func holdDelay(order []string, self, candidate string, heartbeat time.Duration) time.Duration {
	mine, theirs := slices.Index(order, self), slices.Index(order, candidate)
	if mine < 0 || theirs < 0 || mine > theirs {
		return 0
	}
	return time.Duration(theirs-mine) * stepOf(heartbeat)
}

// keepDetecting makes Raft notice a silent leader one heartbeat timeout after it
// was last heard, rather than at the next of its own timers, which are drawn
// between one and two timeouts.
func (g *Group) keepDetecting(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-g.role:
		case <-ctx.Done():
			return
		}
		heartbeat := g.raft.ReloadableConfig().HeartbeatTimeout
		left := heartbeat - g.fence.lastHeard()
		switch {
		case g.raft.State() != raft.Follower:
			timer.Reset(due(lookAgain))
		case left > 0:
			timer.Reset(left)
		default:
			if since := time.Since(g.raft.LastContact()); since < heartbeat-wakeEarly {
				timer.Reset(heartbeat - wakeEarly - since)
				continue
			}
			g.expire()
			timer.Reset(heartbeat / 2)
		}
	}
}

// expire makes Raft look at once whether its leader is silent. Raft checks when
// its heartbeat timeout shrinks, so it is shrunk for a moment, by less than
// matters: Raft still decides by its own last contact.
func (g *Group) expire() {
	g.reload <- struct{}{}
	defer func() { <-g.reload }()
	rc := g.raft.ReloadableConfig()
	rc.HeartbeatTimeout -= wakeEarly
	if err := g.raft.ReloadConfig(rc); err != nil {
		g.log.Debug("cannot wake raft", "error", err)
		return
	}
	time.Sleep(wakeEarly)
	rc.HeartbeatTimeout += wakeEarly
	if err := g.raft.ReloadConfig(rc); err != nil {
		g.log.Debug("cannot restore raft's timeout", "error", err)
	}
}

// stand waits for this node's turn to ask for pre-votes. It returns an error if
// it is not to ask: a leader is back, others are to go first, or this node could
// not write down that it leads.
func (t *leaseTransport) stand() error {
	if t.diskFault != nil {
		if fault := t.diskFault(); fault != "" {
			return fmt.Errorf("%w: %s", errDisk, fault)
		}
	}
	s := t.steer
	if s == nil {
		if t.fence.bound(t.fence.self) > 0 {
			return errPromised
		}
		return nil
	}
	heartbeat := t.promise()
	delay, stand := standDelay(s.order(), t.fence.self, s.voters(), heartbeat, t.fence.lastHeard())
	if !stand {
		return errUnfit
	}
	if !t.waitFree(t.fence.self, delay) {
		return errPromised
	}
	return nil
}

// waitFree waits for delay, and until this voter's promise lets it help candidate.
// It returns false if that is not soon, or not any more.
func (t *leaseTransport) waitFree(candidate string, delay time.Duration) bool {
	for first := true; ; first = false {
		wait := t.fence.bound(candidate)
		switch {
		case wait > t.promise()/2:
			return false
		case first:
			wait = max(wait, delay)
		}
		if wait <= 0 {
			return true
		}
		if !t.sleep(wait) {
			return false
		}
	}
}

// A ballot keeps two nodes from standing against each other. Each would have the
// other's pre-vote, and then vote for itself: nobody wins, and Raft waits for one
// to two timeouts. So a node that has told a better one to go ahead does not go
// ahead itself for a while, and one that has gone ahead does not encourage others.
type ballot struct {
	mu sync.Mutex
	// advancedUntil and yieldedUntil end those whiles.
	advancedUntil, yieldedUntil time.Duration
}

// advance is called when another node's consent is about to reach this one's Raft.
// It returns how long a better candidate is still given; 0 goes ahead.
func (b *ballot) advance(now, window time.Duration) (left time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.yieldedUntil > now {
		return b.yieldedUntil - now
	}
	b.advancedUntil = now + window
	return 0
}

// yield is called when this node's consent is about to leave for a candidate. It
// returns how long it has to wait because this node has gone ahead itself.
func (b *ballot) yield(now, window time.Duration, better bool) (left time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.advancedUntil > now {
		return b.advancedUntil - now
	}
	if better {
		b.yieldedUntil = now + window
	}
	return 0
}

// window is the time that an election is given.
func (t *leaseTransport) window() time.Duration {
	return min(max(t.promise()/4, windowMin), windowMax)
}

// yieldsTo tells whether a candidate goes before this node. Nodes of which nothing
// is known go by their names, so that two never yield to each other.
func (t *leaseTransport) yieldsTo(candidate string) bool {
	order := t.steer.order()
	mine, theirs := slices.Index(order, t.fence.self), slices.Index(order, candidate)
	switch {
	case mine < 0 && theirs < 0:
		return candidate < t.fence.self
	case mine < 0 || theirs < 0:
		return mine < 0
	}
	return theirs < mine
}

// advance returns when this node may go on from a pre-vote that it was granted to
// the election. It returns an error if another has won meanwhile.
func (t *leaseTransport) advance() error {
	for {
		left := t.ballot.advance(t.fence.now(), t.window())
		if left == 0 {
			return nil
		}
		if !t.sleep(left) || t.fence.bound(t.fence.self) > 0 {
			return errPromised
		}
	}
}

// sleep waits; false means that the transport closes.
func (t *leaseTransport) sleep(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.done:
		return false
	}
}

// A steering is what the transport asks to steer an election.
type steering struct {
	// order returns the nodes that may own, best first, without the lost leader.
	order func() []string
	// voters returns the number of voters.
	voters func() int
	// leaderless makes Raft forget a leader that this voter is not bound to any
	// more, and waits a moment until it has.
	leaderless func()
}

// steeringOf makes a group's steering.
func (g *Group) steeringOf(order func(lost string) []string) *steering {
	return &steering{
		order: func() []string {
			g.fence.mu.Lock()
			lost, _ := g.fence.promise.Holder()
			g.fence.mu.Unlock()
			return order(nodeOf(lost))
		},
		voters:     func() int { return len(g.Voters()) },
		leaderless: g.leaderless,
	}
}

// leaderless makes Raft forget a leader that this voter is not bound to any more,
// and waits until it has. Raft notes its last contact when it has dealt with a
// message, this package when it comes in: on a busy machine that is some
// milliseconds later, and until then Raft refuses to be asked.
func (g *Group) leaderless() {
	heartbeat := g.raft.ReloadableConfig().HeartbeatTimeout
	for end := g.now() + max(heartbeat/4, windowMin); g.now() < end; {
		if _, id := g.raft.LeaderWithID(); id == "" || g.raft.State() == raft.Leader {
			return
		}
		if left := heartbeat - wakeEarly - time.Since(g.raft.LastContact()); left > 0 {
			if !g.trans.sleep(min(left, end-g.now())) {
				return
			}
			continue
		}
		g.expire()
	}
}

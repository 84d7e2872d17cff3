package operate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/lease"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/hint"
	"github.com/raftvip/raftvip/internal/owner"
)

// Who owns is known for certain on the leader alone. So another node asks it each time
// that an operator asks, and says that it does not know where nobody can tell.

const (
	// askOwnerWithin bounds one question to the leader.
	askOwnerWithin = 400 * time.Millisecond
	// settleWithin bounds how long an answer waits for a change that is under way to
	// end, and settleAfter is how long ago the last change of the leader must be for
	// none to be.
	settleWithin = 700 * time.Millisecond
	settleAfter  = time.Second
	settleLook   = 20 * time.Millisecond
)

// A sight is what a node can say of the ownership.
type sight struct {
	// owner is a node name. Without one nobody owns if known, and else somebody may.
	owner string
	known bool
	// moving: the leader has just ceased to own, and may be handing over.
	moving bool
	// why says why the owner owns, why nobody does, or why it is not known.
	why string
	// reachable voters, 0: not known.
	reachable int
	troubles  []api.Trouble
}

// sightInputs is what a node that does not lead knows by itself.
type sightInputs struct {
	phase    string // what a node waits for that is no member yet
	founded  bool
	leader   string        // name, "" for none
	heard    time.Duration // since the leader was heard
	lease    time.Duration
	owned    bool   // the leader is known to have owned in its term
	asked    error  // why the leader gave no answer
	quorum   string // what is known of a cluster without a leader, or ""
	noneCan  bool   // nobody can have a majority
	searched time.Duration
}

// seenFromHere is what can be said without the leader's word.
func seenFromHere(in sightInputs) sight {
	switch {
	case in.phase != "":
		return sight{why: "this node is not in the cluster yet: " + in.phase}
	case !in.founded:
		return sight{known: true, why: "the cluster has not been founded yet"}
	case in.leader == "" && in.quorum == "":
		return sight{why: fmt.Sprintf("no leader since %s: an election may be under way", owner.RoundTime(in.searched))}
	case in.leader == "" && in.noneCan:
		return sight{known: true, why: in.quorum + "; the addresses are silent"}
	case in.leader == "":
		return sight{why: in.quorum + "; this node owns nothing, and cannot tell whether the others do"}
	case in.owned && in.heard < in.lease:
		return sight{owner: in.leader, known: true}
	case in.asked != nil:
		return sight{why: fmt.Sprintf("%s leads, and does not say whether it owns: %s", in.leader, oneLine(in.asked))}
	}
	return sight{why: in.leader + " leads, and is not known to own"}
}

// A changeWatch tells how long ago the leader or its term has changed.
type changeWatch struct {
	mu     sync.Mutex
	leader string
	term   uint64
	at     time.Duration
}

// quiet tells whether it is longer ago than settleAfter.
func (c *changeWatch) quiet(now time.Duration, s group.Standing) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.LeaderID != c.leader || s.Term != c.term || c.at == 0 {
		c.leader, c.term, c.at = s.LeaderID, s.Term, now
	}
	return now-c.at > settleAfter
}

// changeWatches are those of the groups, by ID.
type changeWatches struct {
	mu  sync.Mutex
	all map[string]*changeWatch
}

func (c *changeWatches) of(group string) *changeWatch {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = make(map[string]*changeWatch)
	}
	if c.all[group] == nil {
		c.all[group] = &changeWatch{}
	}
	return c.all[group]
}

// sight looks who owns in a group. While something has just changed it waits a moment for that to
// end: a planned move has no instant at which an operator would want to hear "nobody".
func (srv *Server) sight(ctx context.Context, t Seat) sight {
	end := boottime.Now() + settleWithin
	for {
		changed := srv.Node.Changed()
		standing := t.Group.Standing()
		quiet := srv.changes.of(t.ID).quiet(boottime.Now(), standing)
		seen := srv.seeNow(ctx, t, standing)
		switch {
		case seen.owner != "", boottime.Now() >= end:
			return seen
		case quiet && !seen.moving && (seen.known || standing.LeaderID == ""):
			return seen
		}
		select {
		case <-changed:
		case <-time.After(settleLook):
		case <-ctx.Done():
			return seen
		}
	}
}

// seeNow is one look.
func (srv *Server) seeNow(ctx context.Context, t Seat, standing group.Standing) sight {
	self, s := srv.Node.Self(), t.State()
	if standing.Leading {
		own, err := srv.ownership(ctx, api.OwnerRequest{Group: t.named()})
		if err == nil {
			return sight{owner: own.Owner, known: true, moving: own.Moving, why: own.Why, reachable: own.Reachable, troubles: own.Troubles}
		}
	}
	hints := srv.Hints.Seen()
	in := sightInputs{
		phase: srv.Node.Phase(), founded: s.Founded(), heard: standing.Heard, lease: lease.Length(s.Heartbeat.Counted()),
		searched: srv.Quorum.leaderless(boottime.Now()),
	}
	in.quorum, in.noneCan = srv.Quorum.state()
	if standing.LeaderID == "" || standing.LeaderID == self.NodeID {
		seen := seenFromHere(in)
		seen.troubles = srv.ownTroubles()
		return seen
	}
	in.leader = owner.NameOf(s, standing.LeaderID)
	in.owned = owner.OwnedIn(s, t.Name, standing.LeaderID, standing.Term, hint.Owns(hint.In(t.ID, hints)))
	var answer api.Ownership
	if in.asked = srv.askOwner(ctx, t, standing.LeaderID, &answer); in.asked == nil {
		return sight{owner: answer.Owner, known: true, moving: answer.Moving, why: answer.Why, reachable: answer.Reachable, troubles: mergeTroubles(answer.Troubles, srv.ownTroubles(), self.Name)}
	}
	seen := seenFromHere(in)
	if seen.owner != "" {
		seen.why = whyOwner(s, seen.owner)
	}
	for id, h := range hints {
		if h.Age < aliveAge && id != self.NodeID {
			seen.troubles = append(seen.troubles, h.Troubles(owner.NameOf(s, id))...)
		}
	}
	seen.troubles = mergeTroubles(seen.troubles, srv.ownTroubles(), self.Name)
	return seen
}

func (srv *Server) askOwner(ctx context.Context, t Seat, leader string, answer *api.Ownership) error {
	address := srv.Node.State().Nodes[leader].Address
	if address == "" {
		return srv.noLeader()
	}
	ctx, cancel := context.WithTimeout(ctx, askOwnerWithin)
	defer cancel()
	err := srv.Node.Call(ctx, address, api.PathOwner, api.OwnerRequest{Group: t.named()}, answer)
	if ctx.Err() != nil {
		return fmt.Errorf("no answer within %s", askOwnerWithin)
	}
	return err
}

// ownership is the leader's word.
func (srv *Server) ownership(_ context.Context, in api.OwnerRequest) (api.Ownership, error) {
	t, err := srv.seat(in.Group)
	if err != nil {
		return api.Ownership{}, err
	}
	standing := t.Group.Standing()
	view := t.Owner.View()
	self, s := srv.Node.Self(), t.State()
	if !standing.Leading {
		return api.Ownership{}, state.Refuse(state.CodeNotLeader, "try again", "node %s does not lead", self.Name)
	}
	out := api.Ownership{Why: view.Why, Term: standing.Term, Troubles: srv.ownTroubles()}
	if view.Owning && standing.LeaseUntil > boottime.Now() {
		out.Owner, out.Why = self.Name, whyOwner(s, self.Name)
		if out.Why != "" && view.Why != "" {
			out.Why += "; now: "
		}
		out.Why += view.Why
	}
	out.Moving = out.Owner == "" && boottime.Now()-view.Since < settleAfter
	for _, answers := range srv.voters(s) {
		if answers {
			out.Reachable++
		}
	}
	for id, h := range srv.Hints.Seen() {
		if h.Age < aliveAge && id != self.NodeID {
			out.Troubles = append(out.Troubles, h.Troubles(owner.NameOf(s, id))...)
		}
	}
	slices.SortFunc(out.Troubles, compareTroubles)
	return out, nil
}

// whyOwner is what the history says of how the owner came to be.
func whyOwner(s *state.State, owner string) string {
	for _, m := range slices.Backward(s.Moves) {
		if m.To == owner && !m.Loss {
			return fmt.Sprintf("%s (%s)", m.Reason, m.At.Local().Format(time.DateTime))
		}
	}
	return ""
}

// ownTroubles are this node's, as of its last hint.
func (srv *Server) ownTroubles() []api.Trouble { return srv.Hints.Troubles() }

// mergeTroubles takes what a node knows of itself for what others say of it.
func mergeTroubles(all, own []api.Trouble, self string) []api.Trouble {
	all = slices.DeleteFunc(all, func(t api.Trouble) bool { return t.Node == self })
	all = append(all, own...)
	slices.SortFunc(all, compareTroubles)
	return all
}

func compareTroubles(a, b api.Trouble) int {
	return cmp.Or(cmp.Compare(a.Node, b.Node), a.Address.Compare(b.Address), cmp.Compare(a.Kind, b.Kind))
}

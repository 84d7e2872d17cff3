package owner

import (
	"time"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/internal/policy"
)

// ownership is what one node is to one group.
type ownership int

// Ownerships. The zero value is the safe one.
const (
	standby ownership = iota
	owning
)

// ownInputs are everything that ownership follows from.
type ownInputs struct {
	standing group.Standing
	now      time.Duration
	founded  bool
	// self is this node as the policy sees it, decision what the policy says.
	self     policy.Node
	decision policy.Decision
	// stray is an address of no list that would answer with the others, or "".
	stray string
	// was is the ownership before.
	was ownership
	// waits: a hand-over is to be tried when those of other groups are over.
	waits bool
	// handover: a hand-over to another node is to be tried now.
	handover bool
}

// decide says whether this node owns the group. Leading is not owning: the lease
// must be valid and the node must be fit. The reason is for people.
func decide(in ownInputs) (ownership, string) {
	switch {
	case !in.founded:
		return standby, "the cluster has not been founded yet"
	case in.standing.Obstacle != "":
		return standby, "this node was elected and cannot own: " + in.standing.Obstacle
	case !in.standing.Leading && in.standing.LeaderID == "":
		return standby, "this node does not lead any more, and knows no leader"
	case !in.standing.Leading:
		return standby, "another node leads"
	case in.standing.LeaseUntil == 0:
		return standby, "no majority has confirmed this leader yet"
	case in.standing.LeaseUntil <= in.now:
		return standby, "the lease has ended: no majority of the voters answers"
	case in.stray != "" && in.was != owning:
		return standby, in.stray + ", which is not this group's any more, is still on this node"
	case in.decision.Release:
		return standby, in.decision.Reason
	case in.handover:
		return standby, in.decision.Reason
	case in.waits && in.was == owning:
		return owning, in.decision.Reason
	}
	if ok, why := policy.Eligible(in.self); !ok && (in.was != owning || in.self.Ready) {
		return standby, in.self.Name + " " + why
	}
	return owning, in.decision.Reason
}

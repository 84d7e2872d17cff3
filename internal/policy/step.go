package policy

import (
	"fmt"
	"maps"
	"strings"
	"time"
)

// Times of the decision that are not configured by anybody.
const (
	// idleCheck is the time between two steps when nothing is pending.
	idleCheck = time.Second
	// freshCheck is the time to the next step while newer reports are awaited.
	freshCheck = 50 * time.Millisecond
	// ReadyGrace is how long a leader that owns nothing yet waits for its own
	// checks before it hands over to a node that is ready. When all nodes start
	// at once it prevents two moves in the first moments.
	ReadyGrace = 300 * time.Millisecond
)

// State is what [Step] remembers between two calls. The zero value is that of a
// node that has just become leader. It must be zeroed whenever leadership is
// gained; a change of the owner argument does the same.
type State struct {
	owner string
	// since is when this node's leadership was first seen.
	since time.Duration
	// better holds, for each node that is now better than the owner, since when
	// it has been so without a break.
	better map[string]time.Duration
}

// A Decision says what the leader shall do now.
type Decision struct {
	// Transfer: hand the group over to the node with the ID To.
	Transfer bool
	To       string
	// Release: nobody may own now. This node must give up its addresses, or not
	// take them, although there is no node to hand them to.
	Release bool
	// Reason explains the decision to an operator, also that to stay. It is
	// never empty.
	Reason string
	// NextCheck is the time after which Step must be called again, though no
	// input has changed. Always positive.
	NextCheck time.Duration
}

// Step decides for the leader with the ID owner. owning says whether it owns the
// addresses at this moment; now is any monotonic time. It is called after every
// change of an input and when NextCheck has passed. s is not changed.
//
// The rules, in order:
//
//  1. A leader that is barred (fault, drained, witness) hands over at once to the
//     best eligible node; if there is none, the addresses are released. Priorities,
//     nopreempt and preempt_delay do not matter.
//  2. A leader whose checks have not all given a first result stays if it owns
//     (they run anew after a reload; each ends within its timeout). If it does not
//     own, nobody may own yet, and after [ReadyGrace] it hands over to the best
//     eligible node.
//  3. A leader that has not all addresses up hands over at once to the best eligible
//     node that, by what is known, can put up more. If all fail alike it stays. No
//     node takes over that can put up fewer. Priorities, nopreempt and preempt_delay
//     decide among those that can put up as many ([Takes] is the damping).
//  4. A node with a strictly higher effective priority takes over, at once or
//     after it has been better for its preempt_delay. If the best one still
//     waits, the next best that need not wait takes over, as in keepalived.
//  5. A node with nopreempt does not take over from a healthy owner. An owner
//     with a failing weighted check is not healthy: then nopreempt and
//     preempt_delay of the better node do not hold it back. (keepalived holds it
//     back. nopreempt is an endless preempt_delay, so one must not protect a
//     failing owner longer than the other.) Neither does if nobody owns: they
//     are about taking from an owner. Where an operator moved the group to its owner
//     it is as if all others had nopreempt.
//  6. A node that clients may not reach yet (Settling) takes nothing from an owner
//     that may own, nor from a leader that clients reach, whatever checks and
//     priorities say, and is the last to be chosen when somebody has to. The caller
//     bounds that time.
//  7. Otherwise nothing moves. Equal is not better.
//
// A node can only be handed to if it is [Eligible], and if its report was made
// after this node became leader. The second condition prevents ping-pong: A's
// check fails and A hands over to B within milliseconds, before B has heard of
// the failure. B, now leader, still has A's old and better report and would hand
// back. It is the only damping; whatever flaps on good information is for the
// rise and fall of the check or for preempt_delay to damp.
func Step(s State, now time.Duration, owner string, owning bool, nodes []Node) (State, Decision) {
	if s.owner != owner || owner == "" {
		s = State{owner: owner, since: now}
	}
	s.better = maps.Clone(s.better)

	var self Node
	found, awaiting := false, false
	candidates := make([]Node, 0, len(nodes))
	for _, n := range nodes {
		if n.ID == owner {
			self, found = n, true
			continue
		}
		n.Self = false
		if n.ReportAge > now-s.since {
			if ok, _ := Eligible(n); ok {
				awaiting = true
			}
			continue
		}
		candidates = append(candidates, n)
	}
	if !found {
		s.better = nil
		return s, Decision{Reason: "the leader is not a member", NextCheck: idleCheck}
	}
	self.Self = true
	candidates = ranked(candidates, owner)

	var d Decision
	if why := self.barred(); why != "" {
		s.better = nil
		d = leave(ownWords(self, why), candidates)
		d.Release = !d.Transfer
	} else if !self.Ready {
		s.better = nil
		d = notReady(self, now-s.since, owning, candidates)
	} else if len(candidates) > 0 && candidates[0].Take.Missing < self.Take.Missing && (candidates[0].Settling == "" || !owning) {
		s.better = nil
		d = leave(self.name()+" "+self.Take.asOf(owning), candidates)
	} else {
		d = compare(&s, now, self, owning, candidates)
	}
	if awaiting && !d.Transfer {
		d.NextCheck = min(d.NextCheck, freshCheck)
	}
	return s, d
}

// ownWords turns the reason of barred into the beginning of a sentence about the
// leader. It is read on other nodes too, so that it names the leader.
func ownWords(self Node, why string) string {
	if strings.HasPrefix(why, "is ") {
		return self.name() + " " + why
	}
	return strings.Replace(why, "fault: ", "fault of "+self.name()+": ", 1)
}

// leave hands over to the best candidate, if there is one.
func leave(why string, candidates []Node) Decision {
	if len(candidates) == 0 {
		return Decision{Reason: why + "; no other node is eligible", NextCheck: idleCheck}
	}
	best := candidates[0]
	why = fmt.Sprintf("%s; best eligible %s with priority %d", why, best.name(), best.Priority)
	if best.Take.Missing > 0 {
		why += ", which " + best.Take.can()
	}
	return Decision{
		Transfer:  true,
		To:        best.ID,
		Reason:    why,
		NextCheck: idleCheck,
	}
}

// notReady decides for a leader that has led for the given time and whose own
// checks have not all given a result.
func notReady(self Node, led time.Duration, owning bool, candidates []Node) Decision {
	why := self.name() + " waits for the first result of its checks" // read on other nodes too
	if owning {
		return Decision{Reason: why, NextCheck: idleCheck}
	}
	if led < ReadyGrace {
		return Decision{Release: true, Reason: why, NextCheck: ReadyGrace - led}
	}
	d := leave(why, candidates)
	d.Release = !d.Transfer
	return d
}

// compare decides for a leader that is able to own. candidates are the nodes
// that can be handed to, the best first.
func compare(s *State, now time.Duration, self Node, owning bool, candidates []Node) Decision {
	better := make(map[string]time.Duration)
	d := Decision{NextCheck: idleCheck}
	waiting, unable := "", ""
	for _, n := range candidates { // those that clients reach, of these those that can put up most, come first
		if n.Priority <= self.Priority {
			continue
		}
		if n.Take.Missing > self.Take.Missing {
			if unable == "" {
				unable = "; " + n.name() + " " + n.Take.can()
			}
			continue
		}
		since, known := s.better[n.ID]
		if !known {
			since = now
		}
		better[n.ID] = since
		if d.Transfer {
			continue
		}
		held, left := "", n.PreemptDelay-(now-since)
		switch {
		case n.Settling != "" && (owning || self.Settling == ""):
			held = n.Settling
		case !owning || self.Degraded:
		case n.Held:
			held = fmt.Sprintf("an operator moved the addresses to %s: they stay until a check fails or the next move", self.name())
		case n.NoPreempt:
			held = "has nopreempt"
		case left > 0:
			held = fmt.Sprintf("must wait %s more (preempt_delay %s)", left.Round(time.Millisecond), n.PreemptDelay)
			d.NextCheck = min(d.NextCheck, left)
		}
		what := fmt.Sprintf("%s has priority %d, higher than %d of %s", n.name(), n.Priority, self.Priority, self.name())
		if self.Lowered != "" {
			what += " (" + self.Lowered + ")"
		}
		if held == "" {
			d.Transfer, d.To, d.Reason, d.NextCheck = true, n.ID, what, idleCheck
		} else if waiting == "" {
			waiting = what + ", but " + held
		}
	}
	s.better = better
	if d.Transfer {
		return d
	}
	d.Reason = waiting
	switch {
	case waiting != "":
	case self.Take.Missing > 0:
		d.Reason = fmt.Sprintf("%s %s; no eligible node can put up more", self.name(), self.Take.asOf(owning))
	default:
		d.Reason = fmt.Sprintf("no eligible node is better than %s with priority %d%s", self.name(), self.Priority, unable)
	}
	return d
}

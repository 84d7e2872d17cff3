package owner

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/raftvip/raftvip/cluster/group"
	"github.com/raftvip/raftvip/cluster/state"
)

// What the history says of a take is pieced together here: who owned before, since
// when clients had no answer, and why this node owns now. What is not known is left
// out: a wrong number is worse than none.

// A tenure is one node's ownership in one term, as this node knows it.
type tenure struct {
	id   string // node ID, "" for none known
	term uint64
	// last is the latest instant at which it is known to have owned.
	last time.Duration
}

// later returns the newer of the two.
func (t tenure) later(o tenure) tenure {
	if o.term > t.term || o.term == t.term && (t.id == "" || o.id == t.id && o.last > t.last) {
		return o
	}
	return t
}

// OwnedIn tells whether a node owned a group in a term: the history says so, or the
// node itself does, by says.
func OwnedIn(s *state.State, name, id string, term uint64, says func(nodeID string, term uint64) bool) bool {
	if id == "" || term == 0 {
		return false
	}
	for _, m := range slices.Backward(s.Moves) {
		if m.Group != name || m.Loss || m.Term > term {
			continue
		}
		if m.Term < term {
			break // the history says nothing of the term yet
		}
		return m.To != "" && m.To == s.Nodes[id].Name
	}
	return says(id, term)
}

// heardOwner is what the leaders that this node has heard add to what is known.
func heardOwner(known tenure, s *state.State, name string, heard [2]group.HeardLeader, says func(nodeID string, term uint64) bool) tenure {
	for _, l := range []group.HeardLeader{heard[1], heard[0]} {
		if OwnedIn(s, name, l.NodeID, l.Term, says) {
			known = known.later(tenure{id: l.NodeID, term: l.Term, last: l.At})
		}
	}
	return known
}

// A QuorumLoss is a time without a majority of the voters.
type QuorumLoss struct {
	At           time.Time     // wall clock, of Since
	Since, Until time.Duration // as boottime.Now
	Missing      []string      // names of the voters that did not answer
}

// A takeover is all that is known when this node has taken the addresses.
type takeover struct {
	state *state.State
	group string
	self  string // node ID
	term  uint64
	// took is when ownership began, arrived when the addresses were up.
	took, arrived time.Duration
	// before is who owned before; if that is this node, stopped says why it stopped.
	before  tenure
	stopped string
	// release is the last hand-over that this node was told of, and when.
	release    group.Release
	releasedAt time.Duration
	heard      [2]group.HeardLeader
	loss       QuorumLoss // the last one, or the zero value
	// lease is for how long the kernel of the owner before may have answered after
	// it was last heard; negative: without end.
	lease time.Duration
}

// An account is what the history says of a take.
type account struct {
	from, reason string
	// gap and least are the longest and the shortest time that clients can have been
	// without an answer; 0: not known.
	gap, least time.Duration
}

// account tells how this node came to own.
func (t takeover) account() account {
	last, recorded := t.state.LastMove(t.group)
	var a account
	// The history may know of a later owner than this node has heard of, and this node
	// of one that could not write it down any more.
	switch {
	case t.before.id != "" && (!recorded || t.before.term > last.Term):
		a.from = NameOf(t.state, t.before.id)
	case recorded:
		a.from = last.To
	}
	known := t.before.id != "" && (!recorded || t.before.term >= last.Term)
	if known {
		a.gap = t.arrived - t.before.last
		if a.least = a.gap; t.before.id != t.self {
			a.least = max(a.gap-t.lease, 0)
		}
		if t.lease < 0 {
			a.least = 0
		}
	}
	// A leader that has owned in this term before was handed nothing since.
	again := known && t.before.id == t.self && t.before.term == t.term
	planned := t.release.To == t.self && t.release.Term+1 == t.term && !again
	lost := t.loss.Missing != nil && known && t.loss.Until > t.before.last
	heard := t.heard[0]
	switch {
	case planned && known && t.release.From == t.before.id && t.release.Term == t.before.term:
		a.gap = t.arrived - t.releasedAt
		a.least = a.gap
		a.reason = t.release.Reason
		return a
	case planned:
		a.reason = fmt.Sprintf("handed over by %s, which led without owning: %s", NameOf(t.state, t.release.From), t.release.Reason)
	case lost:
		// Said below.
	case !recorded && t.before.id == "":
		a.reason = "first owner of the cluster"
		if t.group != state.DefaultGroup {
			a.reason = "first owner of the group"
		}
	case again && recorded && last.To == "":
		// It kept its lease: without one nobody writes down that it stopped.
		a.reason = "owns again: nobody owned since it stopped"
		if t.stopped != "" {
			a.reason += " (" + t.stopped + ")"
		}
	case t.before.id == t.self && known && heard.Term <= t.before.term:
		a.reason = "lease regained: nobody else took over since this node stopped owning"
		if t.stopped != "" {
			a.reason += " (" + t.stopped + ")"
		}
	case heard.NodeID != "" && heard.NodeID != t.self && heard.Term < t.term:
		who := NameOf(t.state, heard.NodeID)
		if heard.NodeID != t.before.id || heard.Term != t.before.term {
			who += ", which led without owning,"
		}
		a.reason = fmt.Sprintf("election: %s was not heard for %s", who, (t.took - heard.At).Round(time.Millisecond))
	default:
		a.reason = "election after a restart of " + NameOf(t.state, t.self)
	}
	if lost {
		back := fmt.Sprintf("quorum is back after %s: %s had not answered", RoundTime(t.loss.Until-t.loss.Since), ListOf(t.loss.Missing))
		a.reason = strings.TrimSuffix(back+"; "+a.reason, "; ")
	}
	return a
}

// NameOf is what people call a node, also one that is no member any more.
func NameOf(s *state.State, id string) string {
	if n, ok := s.Nodes[id]; ok && n.Name != "" {
		return n.Name
	}
	if n, ok := s.Removed[id]; ok && n.Name != "" {
		return n.Name
	}
	if id == "" {
		return "an unknown node"
	}
	return id
}

// ListOf names several as a sentence does.
func ListOf(names []string) string {
	switch n := len(names); n {
	case 0:
		return "nobody"
	case 1:
		return names[0]
	default:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
}

// RoundTime rounds a duration for people.
func RoundTime(d time.Duration) time.Duration {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}

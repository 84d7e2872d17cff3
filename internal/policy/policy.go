// Package policy decides, on the leader of an ownership group, whether the
// group should move to another node. It is pure: no clock, no goroutine, no
// log. Its words and rules are those of keepalived (priority, preempt,
// nopreempt, preempt_delay), except where [Step] says otherwise.
//
// What it decides is advice. It can start a hand-over and can forbid owning,
// but it never grants ownership: that is the lease's business.
package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// MaxReportAge is the age above which a node's report is not believed: three
// times the period in which reports are resent.
const MaxReportAge = 3 * time.Second

// A Node is what the leader knows of one member of the group.
type Node struct {
	// ID identifies the node; Name is what people call it (empty: the ID).
	ID   string
	Name string
	// Self marks the node that asks. What is known of oneself is always
	// current, so Voter, Connected, CaughtUp and ReportAge are not looked at.
	Self bool
	// Voter, Connected and CaughtUp say whether leadership could be handed to
	// the node: it has a vote, it answers heartbeats, and it has the whole log.
	Voter     bool
	Connected bool
	CaughtUp  bool
	// Witness: never owns an address. Drained: the operator said "do not own".
	Witness bool
	Drained bool
	// Ready: each of its checks has given a first result.
	Ready bool
	// Faults are the reasons why it cannot own, such as
	// "script chk_lb failed (exited with status 1)". Empty: no fault.
	Faults []string
	// Settling says why the node may not be reached by clients yet, such as a link that
	// has just come up; it reads well after the node's name. Empty: no reason.
	Settling string
	// Take is how many of the group's addresses it has up, or could put up.
	Take Take
	// Degraded: some weighted check of it fails and lowers its priority. It does
	// not prevent owning. For keepalived's nopreempt to the letter
	// (nopreempt_strict) the caller leaves this false for the owner.
	Degraded bool
	// Priority is the effective priority: larger is better. Lowered says what lowers
	// it, such as "chk_lb failing: 106 to 101", or is empty.
	Priority int
	Lowered  string
	// NoPreempt: the node does not take over from a healthy owner, however low
	// that one's priority is.
	NoPreempt bool
	// Held: an operator moved the group to its owner, from which the node does not
	// take it either.
	Held bool
	// PreemptDelay is the time for which the node must have been better than a
	// healthy owner before it takes over.
	PreemptDelay time.Duration
	// Tie orders nodes that are equally good where nobody owns: the smaller one is first,
	// before the IDs are looked at.
	Tie string
	// ReportAge is the time since the node made the report from which Ready to
	// PreemptDelay are taken. A report that came over another node is as old as
	// that node said, plus the time since it came.
	ReportAge time.Duration
}

// name returns what people call the node.
func (n Node) name() string {
	if n.Name != "" {
		return n.Name
	}
	return n.ID
}

// barred returns why the node must not own an address whatever the others do,
// or "". Such a node gives up its addresses even if nobody else can take them.
func (n Node) barred() string {
	switch {
	case n.Witness:
		return "is a witness"
	case n.Drained:
		return "is drained"
	case len(n.Faults) > 0:
		return "fault: " + strings.Join(n.Faults, ", ")
	}
	return ""
}

// Eligible says whether ownership may be given to the node, and if not, why.
// The reason reads well after the node's name and a colon.
func Eligible(n Node) (bool, string) {
	if why := n.barred(); why != "" {
		return false, why
	}
	if !n.Self {
		switch {
		case !n.Voter:
			return false, "is not a voter"
		case !n.Connected:
			return false, "is not connected"
		case n.ReportAge > MaxReportAge:
			return false, fmt.Sprintf("last report is %s old", n.ReportAge.Round(100*time.Millisecond))
		case !n.CaughtUp:
			return false, "has not caught up with the log"
		}
	}
	if !n.Ready {
		return false, "waits for the first result of its checks"
	}
	return true, ""
}

// Rank returns the IDs of the eligible nodes, the best first: those that clients are
// known to reach, of these those that can put up
// most addresses, and of these the one with the highest priority. Among equal
// priorities the owner (an ID, or "" if there is none) comes first, because
// nothing moves to a node that is not better; after it the order of the IDs
// decides, so that all nodes agree.
//
// A follower that ranks itself from the leader's last answer sets Connected and
// CaughtUp as it knows best, and Connected to false for the leader that it lost.
func Rank(nodes []Node, owner string) []string {
	var ids []string
	for _, n := range ranked(nodes, owner) {
		ids = append(ids, n.ID)
	}
	return ids
}

func ranked(nodes []Node, owner string) []Node {
	var out []Node
	for _, n := range nodes {
		if ok, _ := Eligible(n); ok {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b Node) int {
		if unsettled := a.Settling != ""; unsettled != (b.Settling != "") {
			if unsettled {
				return 1
			}
			return -1
		}
		if c := cmp.Or(cmp.Compare(a.Take.Missing, b.Take.Missing), cmp.Compare(b.Priority, a.Priority)); c != 0 {
			return c
		}
		if (a.ID == owner) != (b.ID == owner) {
			if a.ID == owner {
				return -1
			}
			return 1
		}
		return cmp.Or(strings.Compare(a.Tie, b.Tie), strings.Compare(a.ID, b.ID))
	})
	return out
}

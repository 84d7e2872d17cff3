package vip

import (
	"fmt"
	"net/netip"
)

// A State says where an address stands on this node.
type State int

// The states of an address. Zero is the safe one: not on the kernel.
const (
	// StateAbsent: not on the kernel, and need not be.
	StateAbsent State = iota
	// StatePresent: on the kernel by our hand.
	StatePresent
	// StateWaiting: owned, but the gate is not valid, so nothing is touched.
	StateWaiting
	// StateNoLink: owned, but the link does not exist or, for IPv6, is down.
	StateNoLink
	// StateForeign: configured on this link by someone else; left alone, not
	// announced.
	StateForeign
	// StateFailed: owned, but adding it fails; it is tried again.
	StateFailed
	// StateRemoving: still on the kernel where it must not be, since it is not owned
	// or has to be elsewhere; removing is tried again. The most serious state there is.
	StateRemoving
)

var stateNames = [...]string{"absent", "present", "waiting", "no-link", "foreign", "failed", "removing"}

func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("State(%d)", int(s))
	}
	return stateNames[s]
}

// A place is one address on one link of the kernel.
type place struct {
	link   int
	prefix netip.Prefix
}

// A view is all that matters for one wanted address at one instant.
type view struct {
	own  bool // the group is owned and the address is in its list
	gate bool // the gate is valid
	is6  bool
	// linkName, link: link is nil if it does not exist.
	linkName string
	link     *Link
	// ours are the places of this IP that are provably ours, foreign another's
	// address with this IP on the wanted link (invalid if there is none).
	ours    []place
	foreign netip.Prefix
	// target is where and with which length the address has to be; put says that it
	// was put there in this process's life, as now wanted.
	target place
	put    bool
	// changed: the address at target was put there, but is now wanted with another
	// label, scope or broadcast address, which the kernel cannot change in place.
	changed bool
}

// A step is what to do about one address.
type step struct {
	remove []place // first
	add    bool    // the address is not there
	adopt  bool    // the address is there and ours, but is to be written anew
	state  State   // as it is before the step is done
	why    string  // for the operator; empty if all is well
}

// decide is the whole policy of what to put on and take off the kernel.
func decide(v view) step {
	if !v.own {
		s := step{remove: v.ours}
		switch {
		case len(v.ours) > 0:
			s.state = StateRemoving
		case v.foreign.IsValid():
			s.state = StateForeign
			s.why = fmt.Sprintf("%s is configured on %s by someone else: this node answers for it without owning it", v.foreign, v.linkName)
		}
		return s
	}
	atTarget := false
	var stray []place
	for _, p := range v.ours {
		if v.link != nil && p == v.target && !v.changed {
			atTarget = true
		} else {
			stray = append(stray, p)
		}
	}
	switch {
	case !v.gate:
		// A lease that has lapsed is not a reason to take the address off, only to
		// leave everything alone; the owner of the gate decides about ownership.
		if atTarget && v.put {
			return step{state: StatePresent, why: "the lease is not valid"}
		}
		return step{state: StateWaiting, why: "the lease is not valid"}
	case v.link == nil:
		return step{remove: stray, state: StateNoLink, why: "interface " + v.linkName + " does not exist"}
	case !atTarget && v.foreign.IsValid():
		return step{remove: stray, state: StateForeign,
			why: fmt.Sprintf("%s is already configured on %s by someone else", v.foreign, v.linkName)}
	case !atTarget && v.is6 && !v.link.Up:
		// The kernel takes it, but with a lifetime it gets no local route when the link
		// comes up, and would not answer.
		return step{remove: stray, state: StateNoLink, why: "interface " + v.linkName + " is down"}
	case len(stray) > 0:
		// One thing at a time: the next look decides about the target.
		if atTarget && v.put {
			return step{remove: stray, state: StatePresent}
		}
		return step{remove: stray}
	case !atTarget:
		return step{add: true}
	case !v.put:
		return step{adopt: true}
	case v.foreign.IsValid():
		return step{state: StatePresent,
			why: fmt.Sprintf("%s was configured on %s by someone else as well: it will stay when this node gives the address up", v.foreign, v.linkName)}
	}
	return step{state: StatePresent}
}

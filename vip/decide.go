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
	// StateWaiting: owned, but the gate is not valid, or the guard is not attached to
	// the link, so nothing is touched.
	StateWaiting
	// StateNoLink: owned, but the link does not exist or, for IPv6, is down.
	StateNoLink
	// StateForeign: configured on this link by someone else, and left alone: while not
	// owned, and while owned where it cannot serve (see StateBorrowed).
	StateForeign
	// StateBorrowed: owned, and configured on this link by someone else. That copy is
	// the service: it is guarded and announced as our own would be, and stays when the
	// address is given up, silenced by the guard.
	StateBorrowed
	// StateFailed: owned, but adding it fails; it is tried again.
	StateFailed
	// StateRemoving: still on the kernel where it must not be, since it is not owned
	// or has to be elsewhere; removing is tried again. The most serious state there is.
	StateRemoving
)

var stateNames = [...]string{"absent", "present", "waiting", "no-link", "foreign", "borrowed", "failed", "removing"}

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
	// unguarded says why the foreign address cannot be put under the guard, mute why the
	// kernel does not answer for it; both are empty if there is nothing to say.
	unguarded, mute string
	// target is where and with which length the address has to be; put says that it
	// was put there in this process's life, as now wanted.
	target place
	put    bool
	// changed: the address at target was put there, but is now wanted with another
	// label, scope or broadcast address, which the kernel cannot change in place.
	changed bool
	// reform: it was put on the link in this process's life as now wanted, but in
	// another form than what covers it now asks for.
	reform bool
	// behind: someone else's address was put on the link after ours, and ours would be
	// the source of traffic that is the machine's own.
	behind bool
}

// deletion is the command that removes the foreign address.
func (v view) deletion() string {
	return fmt.Sprintf("ip address del %s dev %s", v.foreign, v.linkName)
}

// A step is what to do about one address.
type step struct {
	remove  []place // first
	add     bool    // the address is not there
	adopt   bool    // the address is there and ours, but is to be written anew
	requeue bool    // the address is there, and is to stand behind the others of the link
	guard   bool    // a foreign address is there and has to be in the guard
	borrow  bool    // it is to serve; guard is set too
	state   State   // as it is before the step is done
	why     string  // for the operator; empty if all is well
}

// decide is the whole policy of what to put on and take off the kernel.
func decide(v view) step {
	if !v.own {
		s := step{remove: v.ours}
		switch {
		case len(v.ours) > 0:
			s.state = StateRemoving
		case v.foreign.IsValid() && v.unguarded == "":
			s.state, s.guard = StateForeign, true
			s.why = fmt.Sprintf("%s is configured on %s by someone else; the guard keeps it silent while this node does not own it; to be rid of it: %s",
				v.foreign, v.linkName, v.deletion())
		case v.foreign.IsValid():
			s.state = StateForeign
			s.why = fmt.Sprintf("%s is configured on %s by someone else: THIS NODE ANSWERS FOR IT WITHOUT OWNING IT, and %s; remove it: %s",
				v.foreign, v.linkName, v.unguarded, v.deletion())
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
		if atTarget && v.put || v.reform {
			return step{state: StatePresent, why: "the lease is not valid"}
		}
		return step{state: StateWaiting, guard: !atTarget && v.foreign.IsValid() && v.unguarded == "", why: "the lease is not valid"}
	case v.link == nil:
		return step{remove: stray, state: StateNoLink, why: "interface " + v.linkName + " does not exist"}
	case !atTarget && v.reform && !v.is6:
		// The new form stands beside the old one, which goes at the next look, so that
		// the address is there all the time.
		return step{add: true, state: StatePresent}
	case !atTarget && v.foreign.IsValid() && v.unguarded != "":
		return step{remove: stray, state: StateForeign,
			why: fmt.Sprintf("%s is already configured on %s by someone else, and %s; remove it: %s", v.foreign, v.linkName, v.unguarded, v.deletion())}
	case !atTarget && v.foreign.IsValid() && v.mute != "":
		return step{remove: stray, guard: true, state: StateForeign,
			why: fmt.Sprintf("%s is already configured on %s by someone else, and %s; remove it: %s", v.foreign, v.linkName, v.mute, v.deletion())}
	case !atTarget && v.foreign.IsValid() && len(stray) == 0:
		return step{guard: true, borrow: true, state: StateBorrowed,
			why: fmt.Sprintf("%s is configured on %s by someone else; it serves, and will stay, silent, when this node gives the address up", v.foreign, v.linkName)}
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
	case v.behind && !v.foreign.IsValid():
		return step{requeue: true, state: StatePresent}
	case v.foreign.IsValid():
		return step{state: StatePresent,
			why: fmt.Sprintf("%s was configured on %s by someone else as well: it will stay when this node gives the address up", v.foreign, v.linkName)}
	}
	return step{state: StatePresent}
}

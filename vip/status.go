package vip

import (
	"net/netip"
	"slices"
	"time"
)

// Status is the state of a Holding at one instant.
type Status struct {
	// Group is the number of its gate in the guard.
	Group uint32
	// Own and Term are the latest wanted ones; Applied is false while the Keeper has
	// not yet looked at them.
	Own     bool
	Term    uint64
	Applied bool
	// Addresses are the wanted ones in their order, then those that are no longer
	// wanted but still on the kernel.
	Addresses []AddressStatus
	// NotRemoved counts the addresses that have to go from the kernel and cannot be
	// deleted: something to wake people up for. It is retried until it works, at
	// least once a second.
	NotRemoved int
	// Err is what is wrong with the Keeper as a whole, or all of the Holding: the kernel
	// cannot be watched, the guard refuses entries, the journal cannot be written.
	Err error
	Counters
}

// Counters only grow.
type Counters struct {
	// Announced4 and Announced6 are the announcements sent, AnnounceErrors those that
	// could not be.
	Announced4     uint64
	Announced6     uint64
	AnnounceErrors uint64
	// Added, Removed are addresses put on and taken off the kernel.
	Added   uint64
	Removed uint64
	// Readded are addresses that were removed by someone else, or lost with their
	// link, and put back.
	Readded uint64
	// AddFailures and DeleteFailures are failed attempts. A failed delete is the most
	// serious error of this package.
	AddFailures    uint64
	DeleteFailures uint64
}

// AddressStatus is the state of one address.
type AddressStatus struct {
	Address
	// Wanted is false for an address that was taken from the list and is still there.
	Wanted bool
	State  State
	// Present is true while the address is on the kernel by our hand, whatever State.
	Present bool
	// Foreign is a copy that someone else has configured on the link, invalid if there
	// is none. Silent: the guard has an entry for it, so that it answers no longer than
	// the lease of the group.
	Foreign netip.Prefix
	Silent  bool
	// Mute says why the kernel does not use the copy, empty if it does.
	Mute string
	// Unguarded: it waits for the guard of its link, not for the lease.
	Unguarded bool
	// Since is when State began.
	Since time.Duration
	// Announced counts announcements sent, LastAnnounced is the latest or 0.
	Announced     uint64
	LastAnnounced time.Duration
	// Readded counts as in Counters.
	Readded uint64
	// Defended counts the announcements that answered another machine's claims.
	Defended uint64
	// Contested: someone else removes the address again and again. Why says so, too.
	Contested bool
	// Why explains State where all is not well.
	Why string
	// DeleteFailures counts the failed attempts to delete it in a row, 0 if none is
	// outstanding.
	DeleteFailures int
	// Err is the last error of adding, refreshing or deleting; nil once it succeeds.
	Err error
	// AnnounceErr is the error of the last announcement; nil once one was sent.
	// AnnounceFailures counts the failed attempts in a row, frames of one burst once.
	AnnounceErr      error
	AnnounceFailures int
}

// Up reports whether the address answers on this node under its lease: it is there
// by our hand or, where someone else configured it, serves in place of ours.
func (a AddressStatus) Up() bool { return a.Present || a.State == StateBorrowed }

// Status returns the present state of all Holdings.
func (k *Keeper) Status() []Status {
	k.mu.Lock()
	holdings := slices.Clone(k.holdings)
	k.mu.Unlock()
	all := make([]Status, 0, len(holdings))
	for _, h := range holdings {
		all = append(all, h.Status())
	}
	return all
}

// Status returns the present state.
func (h *Holding) Status() Status {
	h.k.mu.Lock()
	n := len(h.entries)
	h.k.mu.Unlock()
	// The room for a thousand is found without the lock: a take needs that.
	addrs := make([]AddressStatus, 0, n)
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	s := Status{
		Group:     h.gate.group,
		Own:       h.wanted.Own,
		Term:      h.wanted.Term,
		Applied:   h.applied == h.seq,
		Err:       h.err(),
		Counters:  h.counters,
		Addresses: addrs,
	}
	for _, e := range h.entries {
		if e.deleteFailures > 0 {
			s.NotRemoved++
		}
		s.Addresses = append(s.Addresses, e.status())
	}
	return s
}

// status is called with mu held.
func (e *entry) status() AddressStatus {
	return AddressStatus{
		Address:        e.want,
		Wanted:         e.listed,
		State:          e.state,
		Present:        e.placed,
		Foreign:        e.foreign,
		Silent:         e.silent,
		Mute:           e.mute,
		Unguarded:      e.noGuard,
		Since:          e.since,
		Announced:      e.announced,
		LastAnnounced:  e.lastAnnounced,
		Readded:        e.readded,
		Contested:      e.tug.war,
		Defended:       e.defended,
		Why:            e.why,
		DeleteFailures: e.deleteFailures,
		Err:            e.lastErr,
		AnnounceErr:    e.announceErr,

		AnnounceFailures: e.announceFailures,
	}
}

// Changed returns a channel that is closed at the next change of an address's
// state or when the latest Wanted has been looked at. Take the channel first, then
// read Status. Counters alone do not close it.
func (h *Holding) Changed() <-chan struct{} {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	return h.changed
}

package lease

import (
	"maps"
	"slices"
	"time"
)

// Margin is the share of a voter's promise that a leader may count on: the lease
// is Margin times the promise. The rest pays for two things. Clock rates: NTP
// slews by at most 500 ppm in ntpd and about 8 percent in chrony's default, so
// two nodes may differ by as much. Scheduling: none is needed for correctness, as
// evidence is stamped before it is sent and the end is enforced per packet, but a
// timer that ends ownership in user space (no guard) may be late by this much.
const Margin = 0.9

// Length returns the lease that a promise of this length supports.
func Length(promise time.Duration) time.Duration {
	return time.Duration(float64(promise) * Margin)
}

// A Ledger is a leader's record of its voters' acknowledgements: the evidence
// from which the end of its lease follows. The zero Ledger is ready and grants
// nothing. It is not safe for concurrent use.
type Ledger struct {
	// term is the leader's term that the evidence belongs to.
	term uint64
	// newest is each voter's evidence.
	newest map[string]evidence
	// unbound are the voters that were told "released" in this term and have not
	// promised again since.
	unbound map[string]bool
	// revoked: no evidence of this or an older term ever counts again.
	revoked uint64
	// released: the lease of the current term is given up until Bind.
	released bool
	// releases counts the calls of Release.
	releases uint64
}

// evidence is what one voter has agreed to.
type evidence struct {
	// sent is the latest instant at which a request that it acknowledged was sent.
	sent time.Duration
	// lasts is how far beyond the instant of sending its promise supports a lease:
	// the longest of all that it acknowledged, counted from sent.
	lasts time.Duration
}

// Acknowledge records that voter, in term, agreed to a request sent at sent, and
// that its promise then supports a lease of this length. It tells whether the
// evidence counts. Evidence of a newer term starts an empty record; evidence of an
// older or revoked one is late and is dropped.
//
// The length belongs to the evidence: a voter that learns of a longer promise gives
// it with what it hears from then on, and one that learns of a shorter promise
// still keeps the one that runs.
func (l *Ledger) Acknowledge(term uint64, voter string, sent, length time.Duration) bool {
	if term <= l.revoked || term < l.term {
		return false
	}
	if term > l.term {
		l.term = term
		l.newest = make(map[string]evidence)
		l.unbound = nil
		l.released = false
	}
	if l.unbound[voter] {
		return false
	}
	old, ok := l.newest[voter]
	if ok && sent <= old.sent {
		return false
	}
	if ok {
		length = max(length, old.sent+old.lasts-sent)
	}
	l.newest[voter] = evidence{sent, length}
	return true
}

// Shorten lets no evidence so far support a lease of more than length: it was taken
// for that of longer promises than the voters gave.
func (l *Ledger) Shorten(length time.Duration) {
	for voter, e := range l.newest {
		l.newest[voter] = evidence{e.sent, min(e.lasts, length)}
	}
}

// Until returns the end of the lease in term: the latest instant up to which a
// majority of voters supports it. self counts, if it is a voter, as acknowledging
// now, for length. Zero means no lease.
func (l *Ledger) Until(term uint64, now time.Duration, self string, voters []string, length time.Duration) time.Duration {
	if term <= l.revoked || len(voters) == 0 {
		return 0
	}
	if term == l.term && l.released {
		return 0
	}
	if term != l.term && len(voters) > 1 {
		return 0
	}
	ends := make([]time.Duration, 0, 8)
	for _, v := range voters {
		if v == self {
			ends = append(ends, now+length)
		} else if e, ok := l.newest[v]; ok && term == l.term {
			ends = append(ends, min(e.sent, now)+e.lasts)
		}
	}
	majority := len(voters)/2 + 1
	if len(ends) < majority {
		return 0
	}
	slices.Sort(ends)
	return ends[len(ends)-majority]
}

// Revoke ends the lease of term and of all older terms for good: late replies
// cannot revive it.
func (l *Ledger) Revoke(term uint64) {
	if term > l.revoked {
		l.revoked = term
	}
}

// Release gives up the lease of term, and the promises of these voters with it:
// none of their acknowledgements counts until they have promised again (Bind). It
// is what precedes telling the voters "released, term T", and they must be told no
// others than these. It returns the number of this release.
func (l *Ledger) Release(term uint64, voters []string) (seq uint64) {
	if term < l.term {
		return 0
	}
	if term > l.term {
		l.term = term
		l.newest = make(map[string]evidence)
	}
	l.released = true
	l.releases++
	l.unbound = make(map[string]bool, len(voters))
	for _, v := range voters {
		l.unbound[v] = true
	}
	clear(l.newest)
	return l.releases
}

// Bind records that voter took back the release of term that has this number, at
// a request sent at sent: it has promised again, which is evidence like any
// other, for a lease of this length. It tells whether that counts; what a voter says of an earlier release
// does not.
func (l *Ledger) Bind(term, seq uint64, voter string, sent, length time.Duration) bool {
	if term != l.term || term <= l.revoked || seq != l.releases || !l.unbound[voter] {
		return false
	}
	delete(l.unbound, voter)
	l.released = false
	l.newest[voter] = evidence{sent, length}
	return true
}

// Unbound returns the voters that were told of a release in term and have not
// promised again, sorted, and the number of that release.
func (l *Ledger) Unbound(term uint64) (seq uint64, voters []string) {
	if term != l.term || term <= l.revoked {
		return 0, nil
	}
	return l.releases, slices.Sorted(maps.Keys(l.unbound))
}

// Released tells whether the lease of term is given up by Release and not taken back.
func (l *Ledger) Released(term uint64) bool { return term == l.term && l.released }

// Newest returns the latest instant in term that voter has acknowledged.
func (l *Ledger) Newest(term uint64, voter string) (time.Duration, bool) {
	if term != l.term {
		return 0, false
	}
	e, ok := l.newest[voter]
	return e.sent, ok
}

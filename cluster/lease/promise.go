package lease

import "time"

// A Promise is a voter's word to the leader that it follows: for the promise's
// length after it last heard that leader, it helps nobody else to become leader,
// and does not stand for election itself. It is not safe for concurrent use.
type Promise struct {
	length   time.Duration
	holder   string
	term     uint64
	until    time.Duration
	released uint64 // highest term whose leader said "released"
}

// NewPromise returns the promise of a voter whose process started at start. For
// one length it is bound to nobody in particular: a restarted voter has forgotten
// whom it last heard.
func NewPromise(start, length time.Duration) Promise {
	return Promise{length: length, until: start + length}
}

// SetLength changes the length of promises made from now on. A promise that runs
// is never shortened.
func (p *Promise) SetLength(length time.Duration) { p.length = length }

// Length returns the length of promises made from now on.
func (p *Promise) Length() time.Duration { return p.length }

// Heard notes at now that the leader of term was heard. It must be called before
// the leader can get an answer. A leader of an older term than the newest one
// heard, or one that has released its term, binds nobody.
func (p *Promise) Heard(now time.Duration, term uint64, leader string) {
	if term < p.term || term <= p.released {
		return
	}
	if term > p.term || p.holder != leader {
		p.term, p.holder = term, leader
	}
	p.until = max(p.until, now+p.length)
}

// Release notes that the leader of term has given its lease up and answers no
// more. It frees this voter unless it has since heard a leader of a newer term.
// A voter that is bound only because it has just started is freed too: a leader
// of term T was elected when no lease of an older term was left.
func (p *Promise) Release(term uint64) {
	p.released = max(p.released, term)
	if p.term <= term {
		p.until = 0
		p.holder = ""
	}
}

// Rebind takes back the release of term, at the request of its leader. It is
// refused (false) if this voter has helped a later term meanwhile; newest is the
// newest term it has voted in or heard of.
func (p *Promise) Rebind(now time.Duration, term, newest uint64, leader string) bool {
	if newest > term || p.term > term {
		return false
	}
	if p.released == term {
		p.released = term - 1
	}
	p.Heard(now, term, leader)
	return true
}

// Bound returns how long, from now, this voter must not help candidate; zero or
// less means it is free. A node that it follows already may always be helped.
func (p *Promise) Bound(now time.Duration, candidate string) time.Duration {
	if p.holder != "" && p.holder == candidate {
		return 0
	}
	return p.until - now
}

// Holder returns the node that the promise was given to, or "" for none.
func (p *Promise) Holder() (leader string, term uint64) { return p.holder, p.term }

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
	elected  bool    // the holder is not yet known to lead: it was voted for
	released release // the newest one heard of
	rebound  release // the newest one taken back
	freedBy  string  // who said released
}

// A release is one of those that the leader of a term has said, counted by it.
type release struct {
	term, seq uint64
}

func (r release) before(o release) bool {
	return r.term < o.term || r.term == o.term && r.seq < o.seq
}

// NewPromise returns the promise of a voter whose process started at start and
// has taken part in terms up to term. For one length it is bound to nobody in
// particular: a restarted voter has forgotten whom it last heard.
func NewPromise(start, length time.Duration, term uint64) Promise {
	return Promise{length: length, until: start + length, term: term}
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
	if term < p.term || term <= p.released.term {
		return
	}
	if term == p.term && p.holder != "" && p.holder != leader && !p.elected {
		return // a term has one leader: whoever else speaks in it binds nobody
	}
	p.term, p.holder, p.elected = term, leader, false
	p.until = max(p.until, now+p.length)
}

// Voted notes at now that this voter votes for candidate in term, before the vote can
// leave, and tells whether it is bound by that as if it had heard the candidate lead.
// The caller has made sure that it is free. A candidate that wins may then count on
// this voter from the moment at which it asked. Of one that loses the promise runs
// out, or goes to the leader of that term as soon as that one is heard.
func (p *Promise) Voted(now time.Duration, term uint64, candidate string) bool {
	if term <= p.term || term <= p.released.term || p.until > now {
		return false
	}
	p.term, p.holder, p.elected = term, candidate, true
	p.until = now + p.length
	return true
}

// Speaks tells whether leader may give up and take back the lease of term: this voter
// follows it in that term, or was freed by it. Whoever else says so is no leader, or
// one that this voter has yet to hear of.
func (p *Promise) Speaks(term uint64, leader string) bool {
	if leader == "" {
		return false
	}
	return p.term == term && p.holder == leader || p.released.term == term && p.freedBy == leader
}

// Release notes that the leader of term has given its lease up, for the seq-th
// time, and answers no more. It frees this voter unless it has since heard of a
// newer term, or taken that very release back: messages overtake one another. A
// voter that is bound only because it has just started is freed too: it knows
// that it has promised nothing in a newer term, and a leader of term was elected
// when no lease of an older one was left.
func (p *Promise) Release(term, seq uint64) {
	r := release{term, seq}
	if term < p.term || !p.rebound.before(r) {
		return
	}
	if p.released.before(r) {
		p.released = r
	}
	if p.holder != "" {
		p.freedBy = p.holder
	}
	p.until = 0
	p.holder, p.elected = "", false
}

// Rebind takes back the seq-th release of term, and all before it, at the request
// of its leader. It is refused (false) if this voter has helped a later term
// meanwhile, or heard of a later release; newest is the newest term it has voted
// in or heard of. If it is not refused this voter is bound.
func (p *Promise) Rebind(now time.Duration, term, seq, newest uint64, leader string) bool {
	r := release{term, seq}
	if newest > term || p.term > term || r.before(p.released) {
		return false
	}
	if p.rebound.before(r) {
		p.rebound = r
	}
	if p.released.term == term {
		p.released = release{}
	}
	p.Heard(now, term, leader)
	return p.holder == leader && p.term == term
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

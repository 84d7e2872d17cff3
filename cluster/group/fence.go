package group

import (
	"sync"
	"time"

	"github.com/raftvip/raftvip/cluster/lease"
)

// A LeaseSink is told of a group's lease synchronously, by the goroutine that
// learnt of it. Renew must not block. Revoke returns when nothing of that term
// answers any more; where the kernel is slow to obey, it waits, until the end of the
// lease at the latest.
type LeaseSink interface {
	// Renew says that the lease of term now runs until the given instant.
	Renew(term uint64, until time.Duration)
	// Revoke says that no lease of term or of an older term is valid any more.
	Revoke(term uint64)
}

// A fence is one node's side of the lease in one group, both as a voter (its
// promise) and as a leader (its ledger). Every rule that makes ownership
// exclusive is applied under its one lock, so that a renewal in flight can never
// overtake a revocation.
type fence struct {
	self string
	now  func() time.Duration
	sink LeaseSink

	mu      sync.Mutex
	promise lease.Promise
	ledger  lease.Ledger
	// length is the lease that the voters' promises support, by the state of version.
	length  time.Duration
	version uint64
	// grew is when length last grew, and shortest the shortest that it was before.
	grew, shortest time.Duration
	// longUntil is the latest end of a lease by a length that is not counted on any more.
	longUntil time.Duration
	// newest is the newest term that this node has heard of or helped.
	newest uint64
	// voters are those of the latest configuration in the log; nil if this is not
	// known, and has to be read.
	voters []string
	// readVoters reads them from Raft; nil until Raft runs.
	readVoters func() []string
	// leading is the term in which this node leads and has caught up, or 0.
	leading uint64
	// heardAt is when a leader was last heard, or a vote bound this voter.
	heardAt time.Duration
	// leaders are the two leaders that were heard last, the newest first. Nothing is
	// decided by them: they are for the history.
	leaders [2]HeardLeader
	// firstHeard is when the first of them was first heard in its term.
	firstHeard time.Duration
	// member tells whether a node is a member of the cluster, in a group whose log does not
	// say so itself; nil in one whose log does. See counts.
	member func(id string) bool
	// barred says why this node takes part in nothing any more, or is "".
	barred string
	// freedC is closed at the next release.
	freedC chan struct{}
}

// newFence begins at the start of the process. The term is the newest one that
// this node took part in before.
func newFence(self string, now func() time.Duration, promise, length time.Duration, term uint64, sink LeaseSink) *fence {
	return &fence{
		self: self, now: now, sink: sink, length: length, shortest: length,
		promise: lease.NewPromise(now(), promise, term),
		newest:  term,
		heardAt: now(),
		freedC:  make(chan struct{}),
	}
}

// SetTiming changes the promise made from now on and the lease counted on to those
// of the replicated state of a version. The newest state counts, whoever comes with
// it and when: an older one is ignored.
func (f *fence) setTiming(version uint64, promise, length time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if version < f.version {
		return
	}
	f.version = version
	f.promise.SetLength(promise)
	if length < f.length {
		f.longUntil = max(f.longUntil, f.now()+f.length)
	}
	switch {
	case length > f.length:
		f.grew, f.shortest = f.now(), min(f.shortest, f.length)
	case f.leading == 0:
		// Who has not applied the log yet may have counted on promises of long ago. Whom
		// a leader counts on while it changes them promises the longer one until that
		// leader has said that they are changed.
		f.ledger.Shorten(length)
	}
	f.length = length
}

// shortened tells whether every lease that this node counted by a longer promise has
// ended. Before that no voter may go over to the shorter one: it promises for that long
// again when it is started again, having forgotten the one that runs.
func (f *fence) shortened() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now() >= f.longUntil
}

// timing returns the promise that this node makes and the lease that it counts on.
func (f *fence) timing() (promise, length time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.promise.Length(), f.length
}

// lastsLocked is the lease that a request sent at sent, and agreed to by now,
// supports: the shortest of those counted on meanwhile. A voter that heard it before
// it knew of a longer promise has made the shorter one.
func (f *fence) lastsLocked(sent time.Duration) time.Duration {
	if sent <= f.grew {
		return min(f.length, f.shortest)
	}
	return f.length
}

// heard notes that a leader was heard, before Raft can answer it.
func (f *fence) heard(term uint64, leader string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if term < f.newest {
		return // Raft will refuse it, and it must not bind this voter
	}
	now := f.now()
	f.newest = term
	f.heardAt = now
	f.promise.Heard(now, term, leader)
	node := nodeOf(leader)
	if last := &f.leaders[0]; last.NodeID != node || last.Term != term {
		f.leaders[1] = *last
		f.firstHeard = now
	}
	f.leaders[0] = HeardLeader{NodeID: node, Term: term, At: now}
}

// followed is for how long the leader that was heard last has led, as far as this node
// has heard it.
func (f *fence) followed() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leaders[0].At - f.firstHeard
}

// lastHeard is the time since a leader was last heard.
func (f *fence) lastHeard() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now() - f.heardAt
}

// bound returns for how long this voter must not help candidate; zero or less
// means it is free.
func (f *fence) bound(candidate string) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.barred != "" {
		return max(f.promise.Length(), time.Second) // and it never ends
	}
	return f.promise.Bound(f.now(), candidate)
}

// grants decides whether a vote that Raft has granted may leave this node. Its
// own lease of any older term ends first; then the promise is looked at again,
// as a leader may have been heard while Raft was writing the vote to disk. With
// follow this voter promises to follow the candidate from now on, and bound tells
// whether it does.
func (f *fence) grants(term uint64, candidate string, follow bool) (leaves, bound bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.newest = max(f.newest, term)
	f.revokeLocked(term - 1)
	now := f.now()
	if f.barred != "" || f.promise.Bound(now, candidate) > 0 {
		return false, false
	}
	// A voter that has heard of a newer term has nothing to promise in this one.
	if follow && term == f.newest && f.promise.Voted(now, term, candidate) {
		f.heardAt = now
		return true, true
	}
	return true, false
}

// campaigns decides whether a request for votes in term may leave this node. From
// then on this node helps no older term: both under one lock, as it may be asked
// to be bound again in the same moment.
func (f *fence) campaigns(term uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.barred != "" || f.promise.Bound(f.now(), f.self) > 0 {
		return false
	}
	f.newest = max(f.newest, term)
	return true
}

// agrees decides whether Raft's consent to a request of the leader of term may
// leave this node. It may not if this node has helped a later term since the
// leader was heard: the leader would count on a promise that was not given.
func (f *fence) agrees(term uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return term >= f.newest && f.barred == ""
}

// bar ends this node's part in the group for good, as voter and as leader: it is not
// the only one that holds its identity, or has forgotten what it had promised.
func (f *fence) bar(why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.barred = why
	f.revokeLocked(max(f.newest, f.leading))
}

// revoke ends the lease of term and of older terms.
func (f *fence) revoke(term uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revokeLocked(term)
}

func (f *fence) revokeLocked(term uint64) {
	f.ledger.Revoke(term)
	if f.leading <= term {
		f.leading = 0
	}
	f.sink.Revoke(term)
}

// lead notes that this node leads in term and has applied everything that was
// committed before: only now may its lease be used.
func (f *fence) lead(term uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.barred != "" {
		return
	}
	f.leading = term
	f.newest = max(f.newest, term)
	// Raft notes a configuration after it is stored, and setVoters comes in between:
	// what is read here is the latest, or setVoters comes after it.
	f.voters = f.votersLocked()
	f.renewLocked()
}

// setVoters notes the voters of a configuration that is in the log or in an installed
// snapshot now: it counts from then on (Raft thesis, 4.1). Raft's main loop alone
// stores those, so that the last call is the one that counts.
func (f *fence) setVoters(voters []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.voters = voters
}

// forgetVoters is called when Raft goes back to an older configuration.
func (f *fence) forgetVoters() { f.setVoters(nil) }

func (f *fence) votersLocked() []string {
	if f.voters == nil && f.readVoters != nil {
		return f.readVoters()
	}
	return f.voters
}

// acknowledged notes that voter agreed, in term, to a request sent at sent.
func (f *fence) acknowledged(term uint64, voter string, sent time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts(voter) && f.ledger.Acknowledge(term, voter, sent, f.lastsLocked(sent)) {
		f.renewLocked()
	}
}

// counts tells whether a lease may rest on a node. How long voters promise is in the log
// of the default group, which waits for its members before it counts on a change. In
// another group a node may still vote that was removed there and knows of no change since:
// a leader that knows of one does not count on it, and a voter that knows of one does not
// follow it (leaseTransport.admits).
func (f *fence) counts(id string) bool { return f.member == nil || f.member(id) }

// alone tells whether this node leads and is a majority by itself, so that nobody's
// acknowledgement renews its lease.
func (f *fence) alone() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leading != 0 && len(f.votersLocked()) == 1
}

// tick renews the lease by what is known now.
func (f *fence) tick() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.renewLocked()
}

func (f *fence) renewLocked() {
	if f.leading == 0 {
		return
	}
	if until := f.untilLocked(); until > 0 {
		f.sink.Renew(f.leading, until)
	}
}

func (f *fence) untilLocked() time.Duration {
	if f.leading == 0 || !f.counts(f.self) {
		return 0
	}
	// A lone voter needs nobody's vote to lead, so that its promise did not keep
	// it from winning; it keeps it from owning.
	if f.promise.Bound(f.now(), f.self) > 0 {
		return 0
	}
	return f.ledger.Until(f.leading, f.now(), f.self, f.votersLocked(), f.length)
}

// until returns the term in which this node leads and the end of its lease.
func (f *fence) until() (term uint64, until time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leading, f.untilLocked()
}

// release gives the lease of term up, locally and at once, and returns the number
// of this release. These voters, and no others, may then be told; what they say in
// this term does not count before they are bound again.
func (f *fence) release(term uint64, voters []string) (seq uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	seq = f.ledger.Release(term, voters)
	f.sink.Revoke(term)
	return seq
}

// released tells whether the lease of term is given up, so that the leadership
// may be handed over.
func (f *fence) released(term uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ledger.Released(term)
}

// unbound returns the voters that still have to promise again after a hand-over
// that failed, the term, and the number of that release.
func (f *fence) unbound() (term, seq uint64, voters []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.leading == 0 {
		return 0, 0, nil
	}
	seq, voters = f.ledger.Unbound(f.leading)
	return f.leading, seq, voters
}

// bind notes that voter took this release back at a request sent at sent.
func (f *fence) bind(term, seq uint64, voter string, sent time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts(voter) && f.ledger.Bind(term, seq, voter, sent, f.lastsLocked(sent)) {
		f.renewLocked()
	}
}

// speaks tells whether a node may speak for the leader of term here.
func (f *fence) speaks(term uint64, leader string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.promise.Speaks(term, leader)
}

// freed is the voter's side of a release: the leader of term answers no more.
func (f *fence) freed(term, seq uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.newest = max(f.newest, term)
	f.promise.Release(term, seq)
	close(f.freedC)
	f.freedC = make(chan struct{})
}

// freeing is closed when the next release is heard of.
func (f *fence) freeing() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.freedC
}

// rebind is the voter's side of taking a release back; false refuses.
func (f *fence) rebind(term, seq uint64, leader string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.barred == "" && f.counts(nodeOf(leader)) && f.promise.Rebind(f.now(), term, seq, f.newest, leader)
}

// contact returns the time since the latest request, in the term that this node
// leads, that voter has acknowledged.
func (f *fence) contact(voter string) (time.Duration, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, ok := f.ledger.Newest(f.leading, voter)
	return f.now() - at, ok
}

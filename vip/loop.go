package vip

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

const (
	// minBackoff and maxBackoff bound the time between two attempts at one address.
	minBackoff = 10 * time.Millisecond
	maxBackoff = time.Second
	// minUnguarded and maxUnguarded bound the time between two looks whether the guard
	// is attached to a link by now, which takes it 4 to 520 ms.
	minUnguarded = 2 * time.Millisecond
	maxUnguarded = 100 * time.Millisecond
	// requeuePause is the least time between two times that one address is put behind
	// the others' addresses of its link.
	requeuePause = time.Second
)

// loopState belongs to the Run goroutine.
type loopState struct {
	queue     *burstQueue[*entry]
	armed     map[netip.Addr]arming
	armRetry  time.Duration
	moveRetry time.Duration
	lifeAt    time.Duration // next refresh of the lifetimes of a Holding whose gate is valid, or never
	reload    bool          // the mirror has to be read anew
	// announceAt is when an announcement that failed is to be tried again, or never.
	announceAt time.Duration
}

// An arming is the guard entry of an address, and so says who has the address. It is
// written with mu held.
type arming struct {
	h  *Holding
	ok bool // it is there; else that is not certain
}

// A job is a step that has something to do.
type job struct {
	e      *entry
	step   step
	target place // of a foreign address, where that is
	form   KernelAddress
}

// pass does everything that is due and returns the instant of the next look. It
// returns early, asking for another look at once, when Set was called meanwhile.
func (k *Keeper) pass() (next time.Duration) {
	now := k.now()
	if wait := k.ensureMirror(); wait > 0 {
		return now + wait
	}
	seq, jobs, moves, next := k.look(now)
	if len(moves) > 0 {
		k.moveAll(moves, now)
		return now
	}

	var removes, adds, guards, requeues []*job
	for i := range jobs {
		switch j := &jobs[i]; {
		case len(j.step.remove) > 0:
			removes = append(removes, j)
		case j.step.guard:
			guards = append(guards, j)
		case j.step.requeue:
			requeues = append(requeues, j)
		default:
			adds = append(adds, j)
		}
	}
	if len(guards) > 0 {
		k.guardForeign(guards, now)
		next = now
	}
	// Last to first: of the IPv4 addresses of one subnet the first is the kernel's
	// primary, and to delete it with secondaries left takes 8 ms of a thousand.
	slices.Reverse(removes)
	inOrder(removes)
	inOrder(adds)
	if len(removes) > 0 {
		if k.removeAll(removes, seq) {
			return now
		}
		now = k.now()
		next = now // what was in the way may have gone
	}
	if len(adds) > 0 {
		if k.addAll(adds, now, seq) {
			return now
		}
		next = now
	}
	if len(requeues) > 0 {
		if k.requeueAll(requeues, seq) {
			return now
		}
		next = now
	}
	next = min(next, k.disarm(now)) // no take waits for that
	if now >= k.loop.lifeAt && k.refreshLifetimes(seq) {
		return now
	}
	next = min(next, k.loop.lifeAt)
	k.loop.announceAt = never
	if k.sendDue(false, seq) {
		return now
	}
	next = min(next, k.loop.announceAt)
	if at, ok := k.loop.queue.wake(); ok {
		next = min(next, at)
	}
	return next
}

// inOrder puts the jobs of a Holding that has few before those of one that has many,
// which take longer, and of each IPv4 before IPv6, of which each address costs the
// kernel more than the last. The order is kept otherwise.
func inOrder(jobs []*job) {
	var count map[*Holding]int // nil: they are all of one
	for _, j := range jobs {
		if j.e.h != jobs[0].e.h {
			count = make(map[*Holding]int)
			for _, j := range jobs {
				count[j.e.h]++
			}
			break
		}
	}
	slices.SortStableFunc(jobs, func(a, b *job) int {
		if x, y := a.e.h, b.e.h; x != y {
			return cmp.Or(cmp.Compare(count[x], count[y]), cmp.Compare(x.order, y.order))
		}
		return cmp.Compare(a.e.ip().BitLen(), b.e.ip().BitLen())
	})
}

// holdings returns the Holdings of the jobs, each once.
func holdingsOf(jobs []*job) []*Holding {
	var all []*Holding
	for _, j := range jobs {
		if (len(all) == 0 || all[len(all)-1] != j.e.h) && !slices.Contains(all, j.e.h) {
			all = append(all, j.e.h)
		}
	}
	return all
}

// permitted returns the jobs whose gates are valid at now.
func permitted(jobs []*job, now time.Duration) []*job {
	var last *Holding
	valid, refused := false, false
	for _, j := range jobs {
		if j.e.h != last {
			last, valid = j.e.h, j.e.h.gate.Valid(now)
			refused = refused || !valid
		}
	}
	if !refused {
		return jobs
	}
	out := make([]*job, 0, len(jobs))
	last = nil
	for _, j := range jobs {
		if j.e.h != last {
			last, valid = j.e.h, j.e.h.gate.Valid(now)
		}
		if valid {
			out = append(out, j)
		}
	}
	return out
}

// ensureMirror reads the kernel's state if it is not known, or known to be behind,
// and returns how long to wait if nothing is known at all.
func (k *Keeper) ensureMirror() (wait time.Duration) {
	k.mu.Lock()
	if k.mirror != nil && !k.loop.reload && !k.behind {
		k.mu.Unlock()
		return 0
	}
	k.reloading, k.missed, k.behind = true, nil, false
	k.mu.Unlock()

	links, err := k.cfg.Host.Links()
	k.setErr("listing addresses", err)

	k.mu.Lock()
	defer k.mu.Unlock()
	missed, superseded := k.missed, !k.reloading
	k.reloading, k.missed = false, nil
	switch {
	case superseded: // by a Snapshot
		k.loop.reload = false
		if k.behind {
			return time.Millisecond
		}
	case err == nil:
		k.loop.reload = false
		k.mirror = newMirror(links)
		// What happened during the listing may be in it or not; repeating it leads to
		// the present either way.
		for _, ev := range missed {
			k.mirror.apply(ev)
		}
	case k.mirror == nil:
		for _, h := range k.holdings {
			if !h.wanted.Own && h.applied != h.seq { // nothing was ever added
				h.applied = h.seq
				h.notify()
			}
		}
		return 100 * time.Millisecond
	}
	return 0
}

// look takes over the inbox, decides about every address, and returns what to do.
// It changes nothing outside the Keeper. Moves come first: there are no jobs with them.
func (k *Keeper) look(now time.Duration) (seq uint64, jobs []job, moves []*move, next time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	seq, next = k.seq.Load(), never
	for _, h := range k.holdings {
		h.follow(now)
	}
	if len(k.rivals) > 0 {
		if moves, next = k.moves(now); len(moves) > 0 {
			return seq, nil, moves, now
		}
	}
	k.loop.lifeAt = never
	for _, h := range k.holdings {
		jobs, next = k.lookAt(h, now, jobs, next)
	}
	for _, h := range k.holdings {
		if n := len(h.given); n > 0 {
			h.given = slices.DeleteFunc(h.given, func(e *entry) bool { return !e.isUnowned() })
			if len(h.given) < n {
				h.notify()
			}
		}
	}
	clear(k.doubt)
	k.holdings = slices.DeleteFunc(k.holdings, func(h *Holding) bool {
		h.gone = h.ended && len(h.entries) == 0 && h.applied == h.seq
		if h.gone {
			h.notify()
		}
		return h.gone
	})
	return seq, jobs, nil, next
}

// follow takes over the latest Set. It is called with mu held.
func (h *Holding) follow(now time.Duration) {
	own := h.wanted.Own
	if h.followed != h.seq {
		h.followed = h.seq
		h.listEntries(now)
		if own != h.own {
			h.own = own
			for _, e := range h.entries {
				e.retryAt = 0 // a release does not wait for anything
			}
		}
		if !own {
			for _, e := range h.entries {
				e.borrowed = false
			}
		}
	}
	if !own {
		h.lifeAt = 0
	}
	h.valid, h.opened = h.gate.state(now)
	h.valid = h.valid && own
}

// lookAt is look for one Holding. It is called with mu held.
func (k *Keeper) lookAt(h *Holding, now time.Duration, jobs []job, next time.Duration) ([]job, time.Duration) {
	changed, valid := h.applied != h.seq, h.valid
	h.applied = h.seq
	everything := k.doubtAll(h)

	for _, e := range h.entries {
		if e.serves() && !k.mirror.has(e.at.link, e.at.prefix) {
			k.lose(e)
		}
		if e.rival && k.holder(e.ip()) != h {
			changed = e.leaveToRival(now) || changed
			continue
		}
		v, form := k.view(e, valid)
		s := decide(v)
		k.lookAtForeign(e, v, &s)
		if e.tug.total > 0 {
			k.lookAtTug(e, now, &s)
		}
		if e.tug.total > 0 {
			next = min(next, e.tug.last()+tugWindow)
		}
		if e.deleteFailures > 0 && len(s.remove) == 0 {
			k.deletable(e, "address that could not be removed is gone or wanted again")
		}
		stuck := e.deleteFailures > 0
		if s.requeue {
			if since := now - e.requeuedAt; e.requeuedAt > 0 && since < requeuePause {
				next, s.requeue = min(next, e.requeuedAt+requeuePause), false
			} else {
				jobs = append(jobs, job{e: e, step: s, target: v.target, form: form})
			}
		}
		if s.add || s.adopt || s.guard || len(s.remove) > 0 {
			// Failed adds do not hold up a removal.
			if e.retryAt > now && stuck == (len(s.remove) > 0) {
				next = min(next, e.retryAt)
				continue
			}
			if pause := e.tug.pause(); s.add && e.readdedAt > 0 && now-e.readdedAt < pause {
				next = min(next, e.readdedAt+pause)
				changed = e.setState(StateFailed, cmp.Or(e.tug.why(), "removed again and again"), now) || changed
				continue
			}
			if jobs == nil {
				jobs = make([]job, 0, len(h.entries))
			}
			target := v.target
			if s.borrow {
				target = place{link: v.link.Index, prefix: v.foreign}
			}
			jobs = append(jobs, job{e: e, step: s, target: target, form: form})
		}
		if !s.add && !s.adopt && !s.borrow && !stuck { // else it stays StateRemoving until that works
			changed = e.setState(s.state, s.why, now) || changed
			if s.state != StatePresent && len(s.remove) == 0 && !s.guard {
				e.succeeded() // there is nothing left to try
			}
		}
		if !e.serves() {
			e.defendAt, e.moved = 0, false
			k.loop.queue.drop(e)
			continue
		}
		if !valid {
			continue
		}
		if e.defendAt > 0 && now >= e.defendAt {
			k.announceTimes(e, 1)
			e.defended++
			e.defendAt, e.defendedAt = 0, now
		}
		switch {
		case everything || e.moved || k.doubt[e.at.link]:
			e.moved = false
			k.burst(e, now, true)
		case e.secondAt > 0 && now >= e.secondAt:
			k.burst(e, now, false)
		case e.refreshAt > 0 && now >= e.refreshAt:
			s := k.schedule(e)
			k.announceTimes(e, s.RefreshRepeat)
			e.refreshAt = now + s.Refresh
		case e.echoAt > 0 && now >= e.echoAt:
			k.announceTimes(e, 1)
			k.echoing(e, e.echo+1)
		}
		if e.echoAt > 0 {
			next = min(next, e.echoAt)
		}
		if e.secondAt > 0 {
			next = min(next, e.secondAt)
		}
		if e.refreshAt > 0 {
			next = min(next, e.refreshAt)
		}
		if e.defendAt > 0 {
			next = min(next, e.defendAt)
		}
	}
	h.entries = slices.DeleteFunc(h.entries, func(e *entry) bool {
		gone := !e.listed && !e.placed && (e.state == StateAbsent || e.state == StateForeign) && k.loop.armed[e.ip()].h != h
		if gone {
			delete(h.byKey, e.want.key())
			k.unindex(e)
			changed = true // who waits for the address to be free may have it now
		}
		return gone
	})
	if valid && h.lifeAt > 0 {
		k.loop.lifeAt = min(k.loop.lifeAt, h.lifeAt)
	}
	if changed {
		h.notify()
	}
	return jobs, next
}

// doubtAll reports whether every present address of h has to be announced again. It is
// called with mu held.
func (k *Keeper) doubtAll(h *Holding) bool {
	if !h.valid {
		// A later opening is a doubt of its own, and nothing is to be sent before it.
		k.loop.queue.dropAll(h.entries)
		h.again = ""
		return false
	}
	reason := h.again
	h.again = ""
	if h.openings != h.opened {
		reason = "the lease is valid again"
	}
	if h.term != h.wanted.Term {
		reason = "new term"
	}
	h.openings, h.term = h.opened, h.wanted.Term
	if reason != "" {
		h.log.Debug("announcing all addresses", "reason", reason)
	}
	return reason != ""
}

// listEntries makes the entries follow a new Wanted. It is called with mu held.
func (h *Holding) listEntries(now time.Duration) {
	old := h.entries
	was := make(map[*entry]bool, len(old))
	for _, e := range old {
		was[e] = e.listed
		e.listed = false
	}
	h.entries = make([]*entry, 0, len(h.wanted.Addresses))
	for _, a := range h.wanted.Addresses {
		e := h.byKey[a.key()]
		fresh := e == nil
		if fresh {
			e = &entry{h: h, since: now}
			h.byKey[a.key()] = e
		}
		if e.listed {
			continue
		}
		e.list(a)
		h.entries = append(h.entries, e)
		if fresh {
			h.k.index(e)
		}
	}
	for _, e := range old {
		if !e.listed {
			if was[e] {
				e.unlistedAt = now
			}
			h.entries = append(h.entries, e)
		}
	}
}

// list notes what is wanted of e. It is called with mu held.
func (e *entry) list(a Address) {
	if !e.want.samePlacing(a) {
		e.retryAt, e.backoff = 0, 0
	}
	e.listed, e.want = true, a
}

// view gathers what decide needs. It is called with mu held.
func (k *Keeper) view(e *entry, valid bool) (view, KernelAddress) {
	ip := e.ip()
	v := view{own: e.h.wanted.Own && e.listed, gate: valid, is6: ip.Is6(), linkName: e.want.Link}
	if e.placed {
		v.ours = append(v.ours, e.at)
	}
	l := k.mirror.link(e.want.Link)
	if l == nil {
		return v, KernelAddress{}
	}
	v.link = &l.Link
	for _, a := range l.addrs[ip] {
		p := place{link: l.Index, prefix: a.Prefix}
		switch {
		case e.placed && p == e.at:
		case a.Protocol == AddrProtocol || k.cfg.Journal.has(p):
			v.ours = append(v.ours, p)
		default:
			v.foreign, v.mute = a.Prefix, ""
			if a.DADFailed {
				v.mute = "another node answers for it (duplicate address detection has failed), so that the kernel does not use it"
			} else if a.Tentative {
				v.mute = "its duplicate address detection is not over"
			}
		}
	}
	if v.foreign.IsValid() && !e.borrowed {
		v.unguarded = k.unguarded(l, ip)
	}
	around := k.around(e, l)
	form := e.want.kernelForm(around.covered, k.cfg.Lifetime)
	if e.placed && e.at.link == l.Index {
		if v.is6 && form.NoPrefixRoute {
			// It cannot stand there twice with two lengths, but its route can go.
			form.Prefix, form.Subnet = e.form.Prefix, e.form.Subnet
		}
		same := e.spec.samePlacing(e.want)
		v.put = same && form == e.form
		v.reform = same && form != e.form
		v.changed = !same
		v.behind = v.put && form.Prefix.IsSingleIP() && around.last4 > l.order[form.Prefix]
	}
	v.target = place{link: l.Index, prefix: form.Prefix}
	return v, form
}

// surroundings are what others' addresses on its link mean for one of ours.
type surroundings struct {
	version uint64 // of mirrorLink.others
	want    Address
	covered bool
	// last4 is the order of the last IPv4 one that has another IP.
	last4 uint64
}

// around returns what others' addresses on the link mean for e. It is called with
// mu held.
func (k *Keeper) around(e *entry, l *mirrorLink) surroundings {
	if e.around.version == l.version && e.around.want == e.want {
		return e.around
	}
	s := surroundings{version: l.version, want: e.want}
	for _, a := range l.others {
		if k.cfg.Journal.has(place{link: l.Index, prefix: a.Prefix}) {
			continue // ours
		}
		s.covered = s.covered || e.want.coveredBy(a)
		if e.ip().Is4() && a.Prefix.Addr() != e.ip() {
			s.last4 = max(s.last4, l.order[a.Prefix])
		}
	}
	e.around = s
	return s
}

// unguarded says why someone else's copy of ip on the link is not to be put under the
// guard, or "". The guard judges by address, not by link: what an operator has on
// another link, such as a load balancer's real server on lo, would fall silent too.
// It is called with mu held.
func (k *Keeper) unguarded(l *mirrorLink, ip netip.Addr) string {
	if k.cfg.Unguarded == nil {
		return "no guard can silence it"
	}
	for _, other := range k.mirror.links {
		if other != l && len(other.addrs[ip]) > 0 {
			return "it cannot be silenced without silencing the same address on " + other.Name
		}
	}
	return k.cfg.Unguarded(l.Name, ip)
}

// lookAtForeign notes what is known of someone else's copy of e's address and leaves
// in s only what is still to be done about it. It is called with mu held.
func (k *Keeper) lookAtForeign(e *entry, v view, s *step) {
	armed := k.loop.armed[e.ip()].ok
	if e.borrowed && !s.borrow && s.state != StateWaiting {
		e.borrowed = false
	}
	if !e.listed {
		s.guard = false // it is the operator's again, see disarm
	}
	e.foreign, e.silent, e.mute = v.foreign, false, v.mute
	if !v.foreign.IsValid() {
		return
	}
	e.copyAt = place{v.link.Index, v.foreign}
	e.silent = armed && k.cfg.Unguarded != nil && k.cfg.Unguarded(v.linkName, e.ip()) == ""
	switch {
	case !s.guard:
	case s.borrow && !(armed && e.borrowed && e.at == place{v.link.Index, v.foreign}):
	case !s.borrow && !armed:
	default:
		s.guard, s.borrow = false, false
	}
}

// lookAtTug tells the operator what becomes of a tug of war. It is called with mu
// held.
func (k *Keeper) lookAtTug(e *entry, now time.Duration, s *step) {
	if e.tug.settle(now) {
		e.h.log.Info("address is not removed by others any more", "vip", e.ip(), "link", e.want.Link)
	}
	if e.tug.remind(now) {
		e.h.log.Warn("address is still being removed", "vip", e.ip(), "link", e.want.Link, "reason", e.tug.why())
	}
	if s.state == StatePresent && s.why == "" {
		s.why = e.tug.why()
	}
}

// setState reports whether it changed anything.
func (e *entry) setState(s State, why string, now time.Duration) bool {
	e.noGuard = false
	if e.state == s && e.why == why {
		return false
	}
	if e.state != s {
		e.since = now
	}
	e.state, e.why = s, why
	return true
}

// failed notes a failed attempt and when to try again. It reports whether the error
// is another one than before, and so worth a line in the log.
func (e *entry) failed(err error, now time.Duration) (first bool) {
	first = e.lastErr == nil || e.lastErr.Error() != err.Error()
	e.lastErr = err
	e.backoff = min(max(2*e.backoff, minBackoff), maxBackoff)
	e.retryAt = now + e.backoff
	return first
}

func (e *entry) succeeded() { e.lastErr, e.backoff, e.retryAt = nil, 0, 0 }

package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// removeAll does the removals of jobs, and reports whether it stopped because Set
// was called.
func (k *Keeper) removeAll(jobs []*job, seq uint64) (stale bool) {
	start := k.now()
	var gone []place
	var count tally
	defer func() {
		k.setErr("address journal", k.cfg.Journal.remove(gone))
		count.log("addresses removed", k.now()-start)
	}()
	changes := make([]Change, 0, len(jobs))
	owners := make([]*job, 0, len(jobs)) // of each change
	failed := map[*job]bool{}
	for _, j := range jobs {
		for _, p := range j.step.remove {
			changes = append(changes, Change{Kind: DeleteAddress, Link: p.link,
				Address: KernelAddress{Prefix: p.prefix, Subnet: p.prefix.Masked(), Protocol: AddrProtocol}})
			owners = append(owners, j)
		}
	}
	for size := newBatchSize(deleteBatch); len(changes) > 0; {
		if k.seq.Load() != seq {
			return true
		}
		n := size.of(len(changes))
		k.mu.Lock()
		for _, c := range changes[:n] {
			k.deletes[placeOf(c)]++
		}
		k.mu.Unlock()
		began := k.now()
		errs := k.cfg.Host.Change(changes[:n])
		now := k.now()
		size.took(n, now-began)
		k.mu.Lock()
		for i, c := range changes[:n] {
			j, p, err := owners[i], placeOf(c), errorOf(errs, i)
			if err != nil {
				k.undelete(p) // no event will follow
			}
			if err == nil || errors.Is(err, ErrGone) {
				gone = append(gone, p)
				count.add(j.e.h)
				k.removed(j.e, p, now)
			} else {
				failed[j] = true
				k.deleteFailed(j.e, p, err, now)
			}
			if last := i+1 == len(changes) || owners[i+1] != j; last && !failed[j] {
				k.deletable(j.e, "address removed after failures")
			}
		}
		k.mu.Unlock()
		changes, owners = changes[n:], owners[n:]
	}
	return false
}

// A tally counts what was done for each Holding.
type tally []struct {
	h *Holding
	n int
}

func (t *tally) add(h *Holding) {
	for i := range *t {
		if (*t)[i].h == h {
			(*t)[i].n++
			return
		}
	}
	*t = append(*t, struct {
		h *Holding
		n int
	}{h, 1})
}

func (t tally) log(what string, took time.Duration) {
	for _, of := range t {
		of.h.log.Info(what, "count", of.n, "took", took)
	}
}

// undelete takes back that a deletion's event is to come. It is called with mu held.
func (k *Keeper) undelete(p place) {
	if k.deletes[p]--; k.deletes[p] <= 0 {
		delete(k.deletes, p)
	}
}

func placeOf(c Change) place { return place{link: c.Link, prefix: c.Address.Prefix} }

// deleteFailed notes a failed attempt to delete. It is logged once, however often
// it is repeated and whatever the kernel says the next time; the status counts. It
// is called with mu held.
func (k *Keeper) deleteFailed(e *entry, p place, err error, now time.Duration) {
	if e.deleteFailures == 0 {
		e.backoff = 0 // that of an add
	}
	err = fmt.Errorf("delete %s: %w", p.prefix, err)
	e.failed(err, now)
	e.deleteFailures++
	e.h.counters.DeleteFailures++
	if e.deleteFailures == 1 {
		e.h.log.Error("ADDRESS NOT REMOVED", "vip", p.prefix, "link", e.want.Link, "reason", err)
	}
	if e.setState(StateRemoving, "cannot be deleted", now) {
		e.h.notify()
	}
}

// deletable notes that nothing of e fails to be deleted (any more). It is called
// with mu held.
func (k *Keeper) deletable(e *entry, how string) {
	if e.deleteFailures > 0 {
		e.h.log.Info(how, "vip", e.ip(), "link", e.want.Link, "failures", e.deleteFailures)
	}
	e.deleteFailures = 0
	e.succeeded()
}

// removed notes that the place is empty now. It is called with mu held.
func (k *Keeper) removed(e *entry, p place, now time.Duration) {
	k.mirror.remove(p.link, p.prefix)
	e.h.counters.Removed++
	if !e.placed || e.at == p {
		k.loop.queue.drop(e)
	}
	if e.placed && e.at == p {
		e.placed, e.lost = false, false
		e.secondAt, e.refreshAt, e.echoAt = 0, 0, 0
	}
	e.h.log.Debug("address removed", "vip", p.prefix, "link", e.want.Link)
	// The next look sets the state; it follows at once.
}

// addAll arms, records and adds the addresses of jobs, in batches, each announced
// once as soon as its batch is there. start is now. It reports whether it stopped because Set was
// called.
//
// None goes onto a link whose guard is not attached to it now: the link may have
// been made anew, or become the port of a bridge, before the guard knows of it. That
// is looked at before the first and after the last, as a link can also be made anew
// with its old number.
func (k *Keeper) addAll(jobs []*job, start time.Duration, seq uint64) (stale bool) {
	if jobs = k.arm(jobs, start); len(jobs) == 0 {
		return false
	}
	bad, release := k.cfg.Guard.Hold(linksOf(jobs))
	defer release()
	if jobs = k.guarded(jobs, bad, start); len(jobs) == 0 {
		return false
	}
	defer func() { k.confirm(jobs) }()
	return k.addGuarded(jobs, start, seq)
}

// addGuarded is addAll of jobs that are armed, on links that are guarded.
func (k *Keeper) addGuarded(jobs []*job, start time.Duration, seq uint64) (stale bool) {
	records := map[place]string{}
	if k.cfg.Journal != nil {
		for _, j := range jobs {
			records[j.target] = j.e.want.Link
		}
	}
	// A full disk must not keep the service from being taken over; the lifetime
	// still ends what a crash leaves behind.
	k.setErr("address journal", k.cfg.Journal.add(records))

	// What others do about the change, and the log, comes after the last address: they
	// would take the time, and the lock, of the next one.
	var count tally
	told := holdingsOf(jobs)
	defer func() {
		k.mu.Lock()
		for _, h := range told {
			h.notify()
		}
		k.mu.Unlock()
		count.log("addresses added", k.now()-start)
	}()
	changes := make([]Change, 0, len(jobs))
	for size := newBatchSize(addBatch); len(jobs) > 0; {
		n := size.of(len(jobs))
		if k.seq.Load() != seq {
			return true
		}
		began := k.now()
		batch := permitted(jobs[:n], began)
		jobs = jobs[n:]
		if n = len(batch); n == 0 {
			continue
		}
		changes = changes[:0]
		for _, j := range batch {
			c := Change{Kind: AddAddress, Link: j.target.link, Address: j.form}
			if j.step.adopt {
				c.Kind = RefreshAddress
			}
			changes = append(changes, c)
		}
		k.mu.Lock()
		k.adding, k.overtaken = true, false
		k.mu.Unlock()
		errs := k.cfg.Host.Change(changes)
		now := k.now()
		size.took(n, now-began)
		worked := 0
		k.mu.Lock()
		k.adding = false
		k.loop.reload = k.loop.reload || k.overtaken
		for i, j := range batch {
			if err := errorOf(errs, i); err != nil {
				k.addFailed(j, err, now)
				continue
			}
			if k.placed(j, now) {
				count.add(j.e.h)
			}
			worked++
		}
		k.mu.Unlock()
		if worked > 0 && k.sendDue(true, seq) {
			return true
		}
	}
	return false
}

// placed notes that the address of the job is on the kernel, and reports whether
// that is worth a line in the log. It is called with mu held.
func (k *Keeper) placed(j *job, now time.Duration) (told bool) {
	e := j.e
	burst, once := true, false
	reform := e.placed && e.at.link == j.target.link
	k.mirror.add(j.target.link, k.seen(j.form))
	e.placed, e.at, e.spec, e.form = true, j.target, e.want, j.form
	e.succeeded()
	if reform {
		e.h.log.Info("address put in another form, as the link's own addresses have changed", "vip", j.form.Prefix, "link", e.want.Link)
		e.setState(StatePresent, e.tug.why(), now)
		return true // it was there all the time, and the neighbours know
	}
	e.h.counters.Added++
	if e.lost {
		e.lost = false
		e.readded++
		e.readdedAt = now
		e.h.counters.Readded++
		burst, once = e.tug.announce(now)
		if burst {
			e.h.log.Warn("address put back", "vip", e.ip(), "link", e.want.Link, "reason", e.lostWhy)
		}
	} else {
		e.h.log.Debug("address added", "vip", j.form.Prefix, "link", e.want.Link)
	}
	if k.cfg.Lifetime > 0 && e.h.lifeAt == 0 {
		e.h.lifeAt = now + k.cfg.Lifetime/3
	}
	e.setState(StatePresent, e.tug.why(), now)
	switch {
	case burst:
		k.burst(e, now, true)
	case once:
		k.announceTimes(e, 1)
	}
	return burst
}

// seen is an address of ours as the kernel lists it.
func (k *Keeper) seen(form KernelAddress) KernelAddress {
	s := KernelAddress{Prefix: form.Prefix, Subnet: form.Subnet}
	if k.cfg.Host.Marks() {
		s.Protocol = AddrProtocol
	}
	return s
}

// requeueAll puts the addresses of jobs, which are single IPv4 ones, behind the
// others' addresses of their links. The kernel has no call for that, and appends
// what is new: so the address is put there once more with another length, taken off
// and put back as it was, and is there all the time. It reports whether it stopped
// because Set was called.
func (k *Keeper) requeueAll(jobs []*job, seq uint64) (stale bool) {
	bad, release := k.cfg.Guard.Hold(linksOf(jobs))
	defer release()
	jobs = slices.DeleteFunc(slices.Clone(jobs), func(j *job) bool {
		if bad[j.target.link] == nil {
			return false
		}
		k.mu.Lock()
		j.e.requeuedAt = k.now() // later
		k.mu.Unlock()
		return true
	})
	put := jobs
	defer func() { k.confirm(put) }()
	records := map[place]string{}
	changes := make([]Change, 0, requeueSteps*len(jobs))
	for _, j := range jobs {
		steps := requeueing(j)
		records[placeOf(steps[0])] = j.e.want.Link
		changes = append(changes, steps...)
	}
	k.setErr("address journal", k.cfg.Journal.add(records))
	var gone []place
	defer func() { k.setErr("address journal", k.cfg.Journal.remove(gone)) }()
	for len(jobs) > 0 {
		n := min(len(jobs), requeueBatch)
		if k.seq.Load() != seq {
			return true
		}
		part := permitted(jobs[:n], k.now())
		batch := changes[:requeueSteps*n]
		if len(part) < n {
			batch = nil
			for _, j := range part {
				batch = append(batch, requeueing(j)...)
			}
		}
		jobs, changes = jobs[n:], changes[requeueSteps*n:]
		if len(part) == 0 {
			continue
		}
		k.mu.Lock()
		for _, c := range batch {
			if c.Kind == DeleteAddress {
				k.deletes[placeOf(c)]++
			}
		}
		k.mu.Unlock()
		errs := k.cfg.Host.Change(batch)
		now := k.now()
		k.mu.Lock()
		for i, c := range batch {
			if c.Kind == DeleteAddress && errorOf(errs, i) != nil {
				k.undelete(placeOf(c)) // no event will follow
			}
		}
		for i, j := range part {
			j.e.requeuedAt = now
			first := requeueSteps * i
			if errorOf(errs, first+3) == nil {
				gone = append(gone, placeOf(batch[first+3]))
			}
			switch err := errorOf(errs, first+2); {
			case errorOf(errs, first) == nil && errorOf(errs, first+1) == nil && err == nil:
				k.mirror.remove(j.target.link, j.form.Prefix)
				k.mirror.add(j.target.link, k.seen(j.form))
				j.e.h.log.Debug("address put behind the link's own", "vip", j.form.Prefix, "link", j.e.want.Link)
			default:
				k.loop.reload = true // whatever is there now, it is judged
				j.e.h.log.Warn("address not put behind the link's own", "vip", j.form.Prefix, "link", j.e.want.Link, "reason", errors.Join(errs[first:first+requeueSteps]...))
			}
		}
		k.mu.Unlock()
	}
	return false
}

// requeueing returns the steps that put the address of a job behind the others.
func requeueing(j *job) []Change {
	beside := j.form
	beside.Prefix = netip.PrefixFrom(j.e.ip(), j.form.Prefix.Bits()-1)
	beside.Subnet = beside.Prefix.Masked()
	beside.NoPrefixRoute = true
	return []Change{
		{Kind: AddAddress, Link: j.target.link, Address: beside}, {Kind: DeleteAddress, Link: j.target.link, Address: j.form},
		{Kind: AddAddress, Link: j.target.link, Address: j.form}, {Kind: DeleteAddress, Link: j.target.link, Address: beside},
	}
}

const (
	// requeueSteps is the number of changes for each address in requeueAll, requeueBatch
	// that of addresses for each request to the kernel.
	requeueSteps = 4
	requeueBatch = 32
)

// addFailed notes a failed attempt to add. It is called with mu held.
func (k *Keeper) addFailed(j *job, err error, now time.Duration) {
	e := j.e
	if errors.Is(err, ErrExists) || errors.Is(err, ErrGone) {
		// The kernel has gone on without the mirror: look again before judging. The
		// first time that happens it is no failure.
		k.loop.reload = true
		if e.lastErr == nil {
			e.lastErr, e.retryAt = err, now
			return
		}
	}
	err = fmt.Errorf("add %s: %w", j.form.Prefix, err)
	e.h.counters.AddFailures++
	if e.failed(err, now) {
		e.h.log.Error("address not added", "vip", j.form.Prefix, "link", e.want.Link, "reason", err)
	}
	if e.placed { // in another form, for the time being
		e.setState(StatePresent, err.Error(), now)
		return
	}
	e.setState(StateFailed, err.Error(), now)
}

// refreshLifetimes starts the lifetimes of all addresses anew of which that is due, and
// with them those that would be soon. It reports whether it stopped because Set was
// called.
func (k *Keeper) refreshLifetimes(seq uint64) (stale bool) {
	now := k.now()
	k.loop.lifeAt = never
	var jobs []*job
	k.mu.Lock()
	for _, h := range k.holdings {
		if !h.valid || h.lifeAt == 0 {
			continue
		}
		if now < h.lifeAt-k.cfg.Lifetime/6 {
			k.loop.lifeAt = min(k.loop.lifeAt, h.lifeAt)
			continue
		}
		n := len(jobs)
		for _, e := range h.entries {
			if e.placed && e.listed {
				v, form := k.view(e, true)
				if v.put {
					jobs = append(jobs, &job{e: e, target: v.target, form: form})
				}
			}
		}
		if h.lifeAt = 0; len(jobs) > n {
			h.lifeAt = now + k.cfg.Lifetime/3
		}
	}
	k.mu.Unlock()
	if len(jobs) == 0 {
		return false
	}
	again := func(jobs []*job, at time.Duration) {
		for _, h := range holdingsOf(jobs) {
			h.lifeAt = min(h.lifeAt, at)
		}
	}
	all := holdingsOf(jobs)
	defer func() {
		for _, h := range all {
			k.loop.lifeAt = min(k.loop.lifeAt, h.lifeAt)
		}
	}()
	// A refresh puts an address where it is not, too.
	bad, release := k.cfg.Guard.Hold(linksOf(jobs))
	defer release()
	if len(bad) > 0 {
		jobs = slices.DeleteFunc(jobs, func(j *job) bool {
			if bad[j.target.link] == nil {
				return false
			}
			j.e.h.lifeAt = min(j.e.h.lifeAt, now+maxBackoff)
			return true
		})
	}
	put := jobs
	defer func() { k.confirm(put) }()
	changes := make([]Change, 0, len(jobs))
	for size := newBatchSize(addBatch); len(jobs) > 0; {
		n := size.of(len(jobs))
		if k.seq.Load() != seq {
			again(jobs, now) // the rest at the next pass
			return true
		}
		began := k.now()
		batch := permitted(jobs[:n], began)
		jobs = jobs[n:]
		if n = len(batch); n == 0 {
			continue
		}
		changes = changes[:0]
		for _, j := range batch {
			changes = append(changes, Change{Kind: RefreshAddress, Link: j.target.link, Address: j.form})
		}
		errs := k.cfg.Host.Change(changes)
		size.took(n, k.now()-began)
		k.mu.Lock()
		for i, j := range batch {
			k.refreshed(j, errorOf(errs, i), now)
		}
		k.mu.Unlock()
	}
	return false
}

// refreshed notes what became of the refresh of a lifetime. It is called with mu
// held.
func (k *Keeper) refreshed(j *job, err error, now time.Duration) {
	if err == nil {
		j.e.lastErr = nil
		return
	}
	j.e.h.lifeAt = min(j.e.h.lifeAt, now+maxBackoff)
	err = fmt.Errorf("refresh lifetime of %s: %w", j.form.Prefix, err)
	if j.e.lastErr == nil {
		j.e.h.log.Error("address lifetime not refreshed", "vip", j.form.Prefix, "reason", err)
	}
	j.e.lastErr = err
}

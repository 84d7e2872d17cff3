package vip

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/raftvip/raftvip/internal/shortage"
)

// linksOf returns the links that the jobs are for, each once.
func linksOf(jobs []*job) []int {
	var links []int
	for _, j := range jobs {
		if !slices.Contains(links, j.target.link) {
			links = append(links, j.target.link)
		}
	}
	return links
}

// guarded returns the jobs whose link the guard is attached to. The others wait.
func (k *Keeper) guarded(jobs []*job, bad map[int]error, now time.Duration) []*job {
	if len(bad) == 0 {
		return jobs
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var changed []*job
	out := slices.DeleteFunc(slices.Clone(jobs), func(j *job) bool {
		why := bad[j.target.link]
		if why != nil && j.e.unguarded(why, now) {
			changed = append(changed, j)
		}
		return why != nil
	})
	for _, h := range holdingsOf(changed) {
		h.notify()
	}
	return out
}

// unguarded puts an add off until the guard is attached to the link. It reports
// whether the state is another one.
func (e *entry) unguarded(why error, now time.Duration) (changed bool) {
	e.backoff = min(max(2*e.backoff, minUnguarded), maxUnguarded)
	e.retryAt = now + e.backoff
	changed = e.setState(StateWaiting, "interface "+e.want.Link+" is not guarded: "+why.Error(), now)
	e.noGuard = true
	return changed
}

// confirm looks again whether the guard is attached to the links where the jobs have
// put their addresses, and takes off what is not guarded.
func (k *Keeper) confirm(jobs []*job) {
	bad := k.cfg.Guard.Attached(linksOf(jobs))
	// Being short of something is no word about whether it is attached, as it was.
	maps.DeleteFunc(bad, func(_ int, why error) bool { return shortage.Is(why) })
	if len(bad) > 0 {
		k.withdraw(jobs, bad)
	}
}

// withdraw takes the addresses of jobs off links that the guard is not attached to.
func (k *Keeper) withdraw(jobs []*job, bad map[int]error) {
	var out []*job
	k.mu.Lock()
	for _, j := range jobs {
		if bad[j.target.link] != nil && j.e.placed && j.e.at == j.target {
			out = append(out, &job{e: j.e, step: step{remove: []place{j.target}}, target: j.target})
		}
	}
	k.mu.Unlock()
	if len(out) == 0 {
		return
	}
	for link, why := range bad {
		k.log.Error("guard lost while addresses were put; they are removed", "link", link, "reason", why)
	}
	slices.Reverse(out)
	for k.removeAll(out, k.seq.Load()) { // until Set is not called meanwhile
	}
	now := k.now()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, j := range out {
		if j.e.placed {
			j.e.spec = Address{} // As it is there it is wrong, and deleting is tried again.
		} else {
			j.e.unguarded(bad[j.target.link], now)
		}
	}
	for _, h := range holdingsOf(out) {
		h.notify()
	}
	k.wake()
}

// arm installs the guard entries of the jobs, with one call for each Holding, and
// returns those whose entry is there. What the guard refuses one Holding does not hold up
// another.
func (k *Keeper) arm(jobs []*job, now time.Duration) (armed []*job) {
	armed = jobs
	for _, h := range holdingsOf(jobs) {
		var addrs []netip.Addr
		for _, j := range jobs {
			if ip := j.e.ip(); j.e.h == h && !k.loop.armed[ip].ok {
				addrs = append(addrs, ip)
			}
		}
		if len(addrs) == 0 {
			continue
		}
		err := k.cfg.Guard.Arm(h.gate.group, addrs)
		h.setErr("guard", err)
		k.mu.Lock()
		// Also after an error: some may be there, and disarming is harmless.
		for _, ip := range addrs {
			k.loop.armed[ip] = arming{h, err == nil}
		}
		if err != nil {
			armed = slices.DeleteFunc(slices.Clone(armed), func(j *job) bool {
				if j.e.h != h {
					return false
				}
				h.counters.AddFailures++
				j.e.failed(fmt.Errorf("arm the guard: %w", err), now)
				j.e.setState(StateFailed, "the guard refuses it: "+err.Error(), now)
				return true
			})
			h.notify()
		}
		k.mu.Unlock()
	}
	return armed
}

// guardForeign puts what someone else has configured under the guard and, where that
// is to serve and the lease is valid, announces it.
func (k *Keeper) guardForeign(jobs []*job, now time.Duration) {
	k.arm(jobs, now)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, j := range jobs {
		e := j.e
		armed := k.loop.armed[e.ip()].ok
		switch {
		case !armed && !j.step.borrow:
			e.setState(StateForeign, fmt.Sprintf("%s is configured on %s by someone else: THIS NODE ANSWERS FOR IT WITHOUT OWNING IT, as the guard refuses it (%v); remove it: %s",
				e.foreign, e.want.Link, e.lastErr, view{foreign: e.foreign, linkName: e.want.Link}.deletion()), now)
		case !armed:
		case !j.step.borrow:
			e.succeeded()
			e.silent = true
			e.h.log.Warn("someone else's copy of an address is kept silent", "vip", e.foreign, "link", e.want.Link)
		case e.h.valid && e.h.gate.Valid(k.now()):
			e.succeeded()
			e.borrowed, e.silent, e.at, e.lost = true, true, j.target, false
			e.setState(StateBorrowed, "", now) // the next look says more
			e.h.log.Warn("someone else's copy of an address serves", "vip", e.foreign, "link", e.want.Link)
			k.burst(e, now, true)
		}
	}
	for _, h := range holdingsOf(jobs) {
		h.notify()
	}
}

// freeAfter is how long someone else's copy of an address stays in the guard after
// the address was taken from the list of a node that does not own it: the owner may
// not have heard of that yet.
const freeAfter = 5 * time.Second

// disarm removes the guard entries of addresses that are neither owned nor on
// their link any more, by whoever's hand: while something answers, the guard stays.
// What is someone else's alone and not in the list any more is the operator's own
// again. It returns when to try again, or never.
func (k *Keeper) disarm(now time.Duration) time.Duration {
	if len(k.loop.armed) == 0 {
		return never
	}
	if now < k.loop.armRetry {
		return k.loop.armRetry
	}
	keep, next := map[netip.Addr]bool{}, never
	k.mu.Lock()
	for _, h := range k.holdings {
		for _, e := range h.entries {
			if k.loop.armed[e.ip()].h != h {
				continue
			}
			on := 0
			if l := k.mirror.link(e.want.Link); l != nil {
				on = len(l.addrs[e.ip()])
			}
			copied := k.mirror.has(e.copyAt.link, e.copyAt.prefix)
			there := on > 0 || copied
			if there && !e.listed && copied && on <= 1 {
				free := e.unlistedAt + freeAfter
				if there = !h.wanted.Own && now < free; there {
					next = min(next, free)
				}
			}
			if h.wanted.Own && e.listed || e.placed || e.state == StateRemoving && e.lastErr != nil || there {
				keep[e.ip()] = true
			}
		}
	}
	k.mu.Unlock()
	free := map[*Holding][]netip.Addr{}
	for ip, a := range k.loop.armed {
		if !keep[ip] {
			free[a.h] = append(free[a.h], ip)
		}
	}
	for h, addrs := range free {
		slices.SortFunc(addrs, netip.Addr.Compare)
		err := k.cfg.Guard.Disarm(h.gate.group, addrs)
		h.setErr("guard", err)
		if err != nil {
			k.loop.armRetry = now + maxBackoff
			next = min(next, k.loop.armRetry)
			continue
		}
		k.mu.Lock()
		for _, ip := range addrs {
			delete(k.loop.armed, ip)
		}
		k.mu.Unlock()
		next = now // what was held by the guard alone is forgotten at the next look
	}
	return next
}

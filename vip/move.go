package vip

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// The guard judges by address, so one Holding has an address at a time, on whatever
// link: the one that its guard entry is for, if there is one.

// index notes that e is an entry of its address. It is called with mu held.
func (k *Keeper) index(e *entry) {
	ip := e.ip()
	e.next = k.byIP[ip]
	k.byIP[ip] = e
	if e.next != nil {
		k.reckon(ip)
	}
}

// unindex is the end of e. It is called with mu held.
func (k *Keeper) unindex(e *entry) {
	ip := e.ip()
	if first := k.byIP[ip]; first == e && e.next == nil {
		delete(k.byIP, ip)
	} else if first == e {
		k.byIP[ip] = e.next
	} else {
		for before := first; before != nil; before = before.next {
			if before.next == e {
				before.next = e.next
				break
			}
		}
	}
	if e.rival {
		k.reckon(ip)
	}
	e.next, e.rival = nil, false
}

// reckon notes whether several Holdings have entries of an address. It is called with mu
// held.
func (k *Keeper) reckon(ip netip.Addr) {
	first, rival := k.byIP[ip], false
	for e := first; e != nil; e = e.next {
		rival = rival || e.h != first.h
	}
	for e := first; e != nil; e = e.next {
		e.rival = rival
	}
	if rival {
		k.rivals[ip] = true
	} else {
		delete(k.rivals, ip)
	}
}

// claim says how much it is e's Holding that is to have the address.
func (e *entry) claim() int {
	switch {
	case !e.listed:
		return 0
	case e.h.valid:
		return 3
	case e.h.wanted.Own:
		return 2
	}
	return 1
}

// claimant returns the Holding, other than one, that is to have an address that no
// other has; nil if none lists it. It is called with mu held.
func (k *Keeper) claimant(ip netip.Addr, than *Holding) *Holding {
	var best *entry
	for e := k.byIP[ip]; e != nil; e = e.next {
		if e.h == than || e.claim() == 0 {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(e.claim(), best.claim()), cmp.Compare(best.h.order, e.h.order)) > 0 {
			best = e
		}
	}
	if best == nil {
		return nil
	}
	return best.h
}

// holder returns the Holding that acts on an address. It is called with mu held.
func (k *Keeper) holder(ip netip.Addr) *Holding {
	if a, ok := k.loop.armed[ip]; ok {
		return a.h
	}
	if h := k.claimant(ip, nil); h != nil {
		return h
	}
	return k.byIP[ip].h // what is left of it is looked at by one of them, too
}

// leaveToRival notes that another Holding has the address of e, and reports whether that
// changes its state. It is called with mu held.
func (e *entry) leaveToRival(now time.Duration) (changed bool) {
	e.foreign, e.silent, e.mute, e.defendAt = netip.Prefix{}, false, "", 0
	e.deleteFailures = 0
	e.succeeded()
	if e.h.wanted.Own && e.listed {
		return e.setState(StateWaiting, "another group of this node has it yet", now)
	}
	return e.setState(StateAbsent, "", now)
}

// A move is addresses that become another Holding's.
type move struct {
	from, to *Holding
	// entries: the one before does not list them any more, and they go with what is known
	// of them. Otherwise it does not own, and has nothing of them but the guard entry.
	entries bool
	addrs   []netip.Addr
}

// moves returns what is to become another Holding's, and when to look again. It is
// called with mu held.
func (k *Keeper) moves(now time.Duration) (moves []*move, next time.Duration) {
	if now < k.loop.moveRetry {
		return nil, k.loop.moveRetry
	}
	for ip := range k.rivals {
		// Without a guard entry that is certainly there nothing is on the kernel.
		a := k.loop.armed[ip]
		if !a.ok {
			continue
		}
		to := k.claimant(ip, a.h)
		if to == nil {
			continue
		}
		listed, present := false, false
		for e := k.byIP[ip]; e != nil; e = e.next {
			if e.h == a.h {
				listed, present = listed || e.listed, present || e.isPresent()
			}
		}
		if listed && (present || a.h.wanted.Own || !to.wanted.Own) {
			continue // it keeps it
		}
		i := slices.IndexFunc(moves, func(m *move) bool { return m.from == a.h && m.to == to && m.entries == !listed })
		if i < 0 {
			i = len(moves)
			moves = append(moves, &move{from: a.h, to: to, entries: !listed})
		}
		moves[i].addrs = append(moves[i].addrs, ip)
	}
	return moves, never
}

// moveAll makes the moves: first in the guard, from when on the kernel obeys the other
// gate, then here. What the guard refuses is let go by the one Holding and taken by the
// other.
func (k *Keeper) moveAll(moves []*move, now time.Duration) {
	for _, m := range moves {
		slices.SortFunc(m.addrs, netip.Addr.Compare)
		err := k.cfg.Guard.Move(m.from.gate.group, m.to.gate.group, m.addrs)
		m.to.setErr("guard", err)
		if err != nil {
			k.loop.moveRetry = now + maxBackoff
			continue
		}
		k.mu.Lock()
		for _, ip := range m.addrs {
			k.loop.armed[ip] = arming{m.to, true}
		}
		if m.entries {
			k.transfer(m)
		}
		m.from.notify()
		m.to.notify()
		k.mu.Unlock()
	}
}

// transfer gives the entries of a move, with all that is known of them, to the other
// Holding, in place of those that it has. It is called with mu held.
func (k *Keeper) transfer(m *move) {
	in := make(map[*entry]*entry) // place of
	count := 0
	for _, ip := range m.addrs {
		for e := k.byIP[ip]; e != nil; e = e.next {
			if e.h != m.from {
				continue
			}
			delete(m.from.byKey, e.want.key())
			e.h, e.moved = m.to, true
			if old := m.to.byKey[e.want.key()]; old != nil {
				in[old] = e
				e.list(old.want)
				e.listed = old.listed
			} else {
				m.to.entries = append(m.to.entries, e)
			}
			m.to.byKey[e.want.key()] = e
			if e.placed {
				m.from.given = append(m.from.given, e)
				count++
			}
		}
	}
	m.from.entries = slices.DeleteFunc(m.from.entries, func(e *entry) bool { return e.h != m.from })
	for i, e := range m.to.entries {
		if with := in[e]; with != nil {
			m.to.entries[i] = with
			k.unindex(e)
		}
	}
	for _, ip := range m.addrs {
		k.reckon(ip)
	}
	if m.to.own && m.to.lifeAt == 0 && k.cfg.Lifetime > 0 {
		m.to.lifeAt = max(m.from.lifeAt, 1) // at once, if it is not known
	}
	if count > 0 {
		m.to.log.Info("addresses taken over from another group of this node", "count", count, "from", m.from.gate.group)
	}
}

package vrrpcompat

import (
	"fmt"
	"net/netip"
	"time"
)

// Entitle tells a hybrid machine that Raft has made this node the owner. fellow
// says that the master that was heard last is a member of our own cluster, as far
// as the caller knows beyond SetFellows.
//
// The machine becomes master at once where that takes nothing from a router that
// should keep it: if nobody is master, or a fellow is (Raft has decided between
// us; the other routers go on seeing one master), or a router that we may preempt.
// Otherwise it stays Backup, ready to take over: beside a better router, and while
// it does not yet know, as any router after its start or after a router of
// another party has resigned (the others of higher priority come first). Calling
// it again looks again.
func (m *Machine) Entitle(now time.Duration, fellow bool) []Action {
	if !m.config.Hybrid {
		return nil
	}
	if !m.entitled {
		m.entitled = true
		m.duplicate = duplicate{}
	}
	if m.state != Backup {
		return nil
	}
	s := m.master
	switch {
	case m.config.Priority == PriorityOwner:
		return m.becomeMaster(now, "is the address owner (priority 255)")
	case m.vacant:
		return m.becomeMaster(now, "owns the group, and no other master was heard")
	case fellow || s.known && m.isFellow(s.addr):
		return m.becomeMaster(now, "owns the group, in succession to a member")
	case !s.known || s.resigned:
		return nil
	case m.beats(s.priority, s.addr) || m.config.NoPreempt:
		return nil
	case s.priority < m.config.Priority && m.delayed(now):
		return nil
	}
	return m.becomeMaster(now, fmt.Sprintf("owns the group, and preempts %s of priority %d with %d", s.addr, s.priority, m.config.Priority))
}

// Disentitle tells a hybrid machine that this node is no longer the owner. If a
// fellow takes over now (handedOver) it falls silent, and the others hear the
// fellow next. Otherwise a master says that it leaves, after its addresses are
// down, so that a router of another party takes over in its skew time.
func (m *Machine) Disentitle(now time.Duration, handedOver bool) []Action {
	if !m.config.Hybrid || !m.entitled {
		return nil
	}
	m.entitled = false
	m.delaying = false
	m.duplicate = duplicate{}
	if m.state != Master {
		return nil
	}
	m.becomeBackup(0)
	m.stopTimer()
	m.vacant = true // we were master, and have heard of no other
	if handedOver {
		return []Action{BecomeBackup{Reason: "handed over to a member"}}
	}
	return []Action{BecomeBackup{Reason: "no longer owns the group"}, SendAdvertisement{Priority: PriorityLeaving}}
}

// watch keeps track of who is master while we are not entitled: whoever speaks,
// except that a better router that still lives remains it. The last advertisement
// of a master that has just lost may come after the first of the one it lost to.
// Among members of our own cluster the priority decides nothing.
func (m *Machine) watch(now time.Duration, a Advertisement, src netip.Addr) {
	s := m.master
	switch {
	case a.Priority != PriorityLeaving:
		worse := a.Priority < s.priority || a.Priority == s.priority && src.Compare(s.addr) < 0
		if s.known && !s.resigned && s.addr != src && worse && !(m.isFellow(src) && m.isFellow(s.addr)) {
			return
		}
		m.follow(now, a, src)
	case !s.known || s.addr == src:
		m.vacant = false
		m.master = speaker{known: true, resigned: true, addr: src, heardAt: now}
		m.startTimer(now + m.skew())
	}
}

// receiveFellow: Raft decides among members of our cluster, so an entitled machine
// never yields to one.
func (m *Machine) receiveFellow(now time.Duration, a Advertisement, src netip.Addr) []Action {
	switch {
	case m.state == Master && a.Priority == PriorityLeaving:
		return m.assert(now) // the others wait for their skew time only
	case m.state == Master:
		m.duplicate.heard(now, src, m.DownInterval())
		return nil
	case m.master.known && !m.master.resigned && !m.isFellow(m.master.addr):
		if a.Priority != PriorityLeaving {
			m.duplicate.heard(now, src, m.DownInterval())
		}
		return nil // a router of another party is master, and we respect it
	}
	return m.becomeMaster(now, fmt.Sprintf("owns the group, in succession to member %s", src))
}

// A duplicate is a fellow that advertises while we are entitled.
type duplicate struct {
	addr          netip.Addr
	since, latest time.Duration
	count         uint64
}

// heard counts an advertisement; after a silence of gap it is a new story.
func (d *duplicate) heard(now time.Duration, src netip.Addr, gap time.Duration) {
	if d.count == 0 || now-d.latest > gap {
		*d = duplicate{since: now}
	}
	d.addr, d.latest = src, now
	d.count++
}

// Duplicate returns the member of our own cluster that goes on advertising while
// we are entitled (of several the last), since when, and how many advertisements
// were heard. Those under way when the group was handed over are not reported:
// only what lasts for an advertisement interval, until a silence of a down
// interval.
func (m *Machine) Duplicate(now time.Duration) (addr netip.Addr, since time.Duration, count uint64, ok bool) {
	d := m.duplicate
	if d.count == 0 || d.latest-d.since < m.config.Interval || now-d.latest > m.DownInterval() {
		return netip.Addr{}, 0, 0, false
	}
	return d.addr, d.since, d.count, true
}

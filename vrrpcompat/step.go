package vrrpcompat

import (
	"fmt"
	"net/netip"
	"time"
)

// Startup takes a machine out of Initialize (RFC 9568 section 6.4.1). It does
// nothing in other states.
func (m *Machine) Startup(now time.Duration) []Action {
	if m.state != Initialize {
		return nil
	}
	if m.entitled && m.config.Priority == PriorityOwner {
		return m.becomeMaster(now, "is the address owner (priority 255)")
	}
	m.interval = m.config.Interval
	m.becomeBackup(now + m.DownInterval())
	return []Action{BecomeBackup{Reason: "started"}}
}

// Shutdown takes a machine back to Initialize. A Master first takes its addresses
// down and only then says that it leaves: a router of high priority and short
// interval takes over in less than a millisecond.
func (m *Machine) Shutdown(now time.Duration) []Action {
	var actions []Action
	if m.state == Master {
		actions = []Action{BecomeBackup{Reason: "shut down"}, SendAdvertisement{Priority: PriorityLeaving}}
	}
	m.state = Initialize
	m.stopTimer()
	m.interval = m.config.Interval
	m.master = speaker{}
	m.vacant, m.delaying = false, false
	m.duplicate = duplicate{}
	return actions
}

// Expire is to be called when Deadline has come. It does nothing before.
func (m *Machine) Expire(now time.Duration) []Action {
	if !m.ticking || now < m.deadline {
		return nil
	}
	switch {
	case m.state == Master:
		// Keep the beat if we are a little late, and do not catch up after a pause.
		next := m.deadline + m.config.Interval
		if next <= now {
			next = now + m.config.Interval
		}
		m.startTimer(next)
		return []Action{SendAdvertisement{Priority: m.config.Priority}}
	case !m.entitled:
		m.stopTimer()
		m.master = speaker{}
		m.vacant = true
		return nil
	}
	return m.becomeMaster(now, m.whyExpired(now))
}

func (m *Machine) whyExpired(now time.Duration) string {
	switch s := m.master; {
	case !s.known:
		return "no other master was heard"
	case s.resigned:
		return fmt.Sprintf("%s resigned", s.addr)
	default:
		return fmt.Sprintf("no advertisement of %s with a priority to respect for %s", s.addr, (now - s.heardAt).Round(time.Millisecond))
	}
}

// Receive takes an advertisement that Expect.Check has accepted, from src.
func (m *Machine) Receive(now time.Duration, a Advertisement, src netip.Addr) []Action {
	src = bare(src)
	switch {
	case m.state == Initialize:
		return nil
	case src == m.config.Source:
		// Our own, or a duplicate of our address: there is no winner, and to answer
		// would be to answer ourselves.
		return nil
	case !m.entitled:
		m.watch(now, a, src)
		return nil
	case m.isFellow(src):
		return m.receiveFellow(now, a, src)
	case m.state == Master:
		return m.receiveMaster(now, a, src)
	}
	m.receiveBackup(now, a, src)
	return nil
}

// receiveBackup is RFC 9568 section 6.4.2 with keepalived's preempt_delay.
func (m *Machine) receiveBackup(now time.Duration, a Advertisement, src netip.Addr) {
	if a.Priority == PriorityLeaving {
		if src == m.master.addr || !m.master.known {
			m.master = speaker{known: true, resigned: true, addr: src, heardAt: now}
		}
		m.startTimer(now + m.skew())
		return
	}
	if a.Priority >= m.config.Priority {
		m.delaying = false
		m.follow(now, a, src)
		return
	}
	if m.config.NoPreempt || m.delayed(now) {
		m.follow(now, a, src)
	}
}

// delayed tells whether a living master of lower priority is to be left in place
// because of the preempt delay, which starts with its first advertisement.
func (m *Machine) delayed(now time.Duration) bool {
	if m.config.PreemptDelay <= 0 {
		return false
	}
	if !m.delaying {
		m.delaying, m.preemptAt = true, now+m.config.PreemptDelay
	}
	return now < m.preemptAt
}

// receiveMaster is RFC 9568 section 6.4.3 with what keepalived adds.
func (m *Machine) receiveMaster(now time.Duration, a Advertisement, src netip.Addr) []Action {
	if a.Priority == PriorityLeaving {
		return m.assert(now)
	}
	if m.beats(a.Priority, src) {
		var actions []Action
		if m.config.HigherPrioSendAdvert {
			actions = append(actions, SendAdvertisement{Priority: m.config.Priority})
		}
		m.becomeBackup(0)
		m.follow(now, a, src)
		reason := fmt.Sprintf("%s has priority %d, ours is %d", src, a.Priority, m.config.Priority)
		return append(actions, BecomeBackup{Reason: reason})
	}
	var actions []Action
	if !m.config.LowerPrioNoAdvert {
		actions = append(actions, SendAdvertisement{Priority: m.config.Priority})
	}
	return append(actions, Announce{})
}

// assert sends an advertisement now and the next one an interval later.
func (m *Machine) assert(now time.Duration) []Action {
	m.startTimer(now + m.config.Interval)
	return []Action{SendAdvertisement{Priority: m.config.Priority}}
}

// beats tells whether another router is better than we are: higher priority, or
// the same and the higher address in network byte order.
func (m *Machine) beats(priority uint8, addr netip.Addr) bool {
	return priority > m.config.Priority || priority == m.config.Priority && addr.Compare(m.config.Source) > 0
}

// follow takes the sender of an advertisement as the master.
func (m *Machine) follow(now time.Duration, a Advertisement, src netip.Addr) {
	m.vacant = false
	m.master = speaker{known: true, addr: src, priority: a.Priority, heardAt: now}
	m.interval = m.config.Interval
	if m.config.Version == V3 {
		m.interval = a.Interval
	}
	m.startTimer(now + m.DownInterval())
}

// becomeMaster comes from Initialize (address owner) or Backup.
func (m *Machine) becomeMaster(now time.Duration, reason string) []Action {
	if m.state == Master || !m.entitled {
		panic(fmt.Sprintf("vrrpcompat: %s becomes master, entitled %v", m.state, m.entitled))
	}
	m.state = Master
	m.interval = m.config.Interval
	m.master = speaker{}
	m.vacant, m.delaying = false, false
	return append(m.assert(now), BecomeMaster{Reason: reason})
}

// becomeBackup comes from Initialize or Master, with the end of the first timer.
func (m *Machine) becomeBackup(down time.Duration) {
	if m.state == Backup {
		panic("vrrpcompat: backup becomes backup")
	}
	m.state = Backup
	m.startTimer(down)
	m.master = speaker{}
	m.vacant, m.delaying = false, false
}

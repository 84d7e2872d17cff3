package vrrpcompat

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// A State is a state of RFC 9568 section 6.3. The zero State is Initialize.
type State uint8

// The states.
const (
	Initialize State = iota
	Backup
	Master // "Active" in RFC 9568
)

// String returns the name of the state in lower case.
func (s State) String() string {
	switch s {
	case Initialize:
		return "initialize"
	case Backup:
		return "backup"
	case Master:
		return "master"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// DefaultDownTimerAdverts is the number of missed advertisements after which a
// master is dead: RFC 9568 section 6.1.
const DefaultDownTimerAdverts = 3

// A MachineConfig is what a [Machine] is configured for. The words are those of
// RFC 9568 section 6.1 and of keepalived.
type MachineConfig struct {
	Version  Version
	Priority uint8         // 1 to 255
	Interval time.Duration // between advertisements, see Advertisement
	Source   netip.Addr    // the address that we send from; breaks ties
	// NoPreempt leaves a living master of lower priority in place.
	NoPreempt bool
	// PreemptDelay leaves it in place for this long, counted from its first
	// advertisement.
	PreemptDelay time.Duration
	// Accept: a master that is not the address owner accepts packets that are
	// addressed to the virtual addresses.
	Accept bool
	// DownTimerAdverts is the number of missed advertisements after which the
	// master is dead; 0 means DefaultDownTimerAdverts.
	DownTimerAdverts int
	// LowerPrioNoAdvert: a master does not answer an advertisement of lower
	// priority with its own at once.
	LowerPrioNoAdvert bool
	// HigherPrioSendAdvert: a master that yields sends one more advertisement.
	HigherPrioSendAdvert bool
	// Hybrid: the machine takes part only while it is entitled.
	Hybrid bool
}

// A Machine is one virtual router on one interface. It is not safe for concurrent
// use. The times that it is given must not go backwards. After each call that
// takes a time, Deadline may have changed.
type Machine struct {
	config   MachineConfig
	state    State
	entitled bool
	fellows  []netip.Addr

	// deadline is the end of the running timer: Adver_Timer of a Master,
	// Active_Down_Timer of a Backup. ticking tells whether one is running.
	deadline time.Duration
	ticking  bool
	// interval is Active_Adver_Interval: our own, or learnt from the master.
	interval time.Duration
	// master is the master that was accepted last, while we are Backup.
	master speaker
	// vacant: it is known that nobody but us has been master since we were, or for
	// a whole down interval. A machine that has just started does not know.
	vacant bool
	// preemptAt is the end of the preempt delay while delaying.
	preemptAt time.Duration
	delaying  bool
	duplicate duplicate
}

// A speaker is another router that was heard as master.
type speaker struct {
	known    bool
	resigned bool // its last advertisement had priority 0
	addr     netip.Addr
	priority uint8
	heardAt  time.Duration
}

// NewMachine returns a machine in state Initialize. It panics if the configuration
// is not valid: that is for the caller to have checked.
func NewMachine(c MachineConfig) *Machine {
	if c.Version != V2 && c.Version != V3 {
		panic(fmt.Sprintf("vrrpcompat: version %d: must be 2 or 3", c.Version))
	}
	if c.Priority == PriorityLeaving {
		panic("vrrpcompat: priority 0: must be between 1 and 255")
	}
	if err := ValidInterval(c.Version, c.Interval); err != nil {
		panic("vrrpcompat: " + err.Error())
	}
	if c.DownTimerAdverts <= 0 {
		c.DownTimerAdverts = DefaultDownTimerAdverts
	}
	c.Source = bare(c.Source)
	return &Machine{config: c, entitled: !c.Hybrid, interval: c.Interval}
}

// State returns the state of the machine.
func (m *Machine) State() State { return m.state }

// Entitled tells whether the machine may become master: always without Hybrid.
func (m *Machine) Entitled() bool { return m.entitled }

// Priority returns the priority with which a master advertises.
func (m *Machine) Priority() uint8 { return m.config.Priority }

// Accepts tells whether packets to the virtual addresses are accepted now: by a
// master that is the address owner or has Accept (RFC 9568 section 6.4.3).
func (m *Machine) Accepts() bool {
	return m.state == Master && (m.config.Priority == PriorityOwner || m.config.Accept)
}

// Deadline returns the time at which Expire has to be called, if any.
func (m *Machine) Deadline() (at time.Duration, ok bool) { return m.deadline, m.ticking }

// Master returns the other router that is master as far as is known, with the
// interval of its advertisements and the time of the last one. A router that has
// resigned or was not heard for the down interval is not returned, nor is any
// while we are master.
func (m *Machine) Master() (addr netip.Addr, priority uint8, interval, heardAt time.Duration, ok bool) {
	if s := m.master; m.state == Backup && s.known && !s.resigned {
		return s.addr, s.priority, m.interval, s.heardAt, true
	}
	return netip.Addr{}, 0, 0, 0, false
}

// SkewTime returns Skew_Time: how much a router of this priority waits beyond the
// missed advertisements, so that the best one is first. Version 2 counts it in
// parts of a second (RFC 3768 section 6.1), version 3 in parts of the master's
// interval (RFC 9568 section 6.1). Like keepalived it is not rounded to
// centiseconds: at short intervals several priorities would be one.
func SkewTime(version Version, priority uint8, interval time.Duration) time.Duration {
	if version == V2 {
		interval = time.Second
	}
	return time.Duration(256-int(priority)) * interval / 256
}

// skew returns Skew_Time for the interval of the current master.
func (m *Machine) skew() time.Duration {
	return SkewTime(m.config.Version, m.config.Priority, m.interval)
}

// DownInterval returns Active_Down_Interval: how long a Backup waits for the
// master's next advertisement.
func (m *Machine) DownInterval() time.Duration {
	return time.Duration(m.config.DownTimerAdverts)*m.interval + m.skew()
}

func (m *Machine) startTimer(at time.Duration) { m.deadline, m.ticking = at, true }

func (m *Machine) stopTimer() { m.deadline, m.ticking = 0, false }

// SetFellows tells the addresses from which members of our own cluster advertise.
// Only a hybrid machine looks at them.
func (m *Machine) SetFellows(addrs []netip.Addr) {
	m.fellows = m.fellows[:0]
	for _, a := range addrs {
		m.fellows = append(m.fellows, bare(a))
	}
}

func (m *Machine) isFellow(addr netip.Addr) bool {
	return m.config.Hybrid && slices.Contains(m.fellows, addr)
}

// SetSource changes the address that we send from.
func (m *Machine) SetSource(addr netip.Addr) { m.config.Source = bare(addr) }

// SetPriority changes the priority, 1 to 255; 0 counts as 1. A Master says it with
// its next advertisement; a Backup uses it from the next one that it hears. An
// entitled Backup that becomes the address owner (255) is master at once.
func (m *Machine) SetPriority(now time.Duration, p uint8) []Action {
	m.config.Priority = max(p, 1)
	if p == PriorityOwner && m.state == Backup && m.entitled {
		return m.becomeMaster(now, "is the address owner now (priority 255)")
	}
	return nil
}

package vrrpcompat

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const (
	ms  = time.Millisecond
	sec = time.Second
)

// brief renders actions in words: "send 100, master".
func brief(actions []Action) string {
	var words []string
	for _, a := range actions {
		switch a := a.(type) {
		case SendAdvertisement:
			words = append(words, fmt.Sprint("send ", a.Priority))
		case BecomeMaster:
			words = append(words, "master")
		case BecomeBackup:
			words = append(words, "backup")
		case Announce:
			words = append(words, "announce")
		}
	}
	return strings.Join(words, ", ")
}

// Addresses around that of the machine under test.
var (
	lower   = addr("10.0.0.1")
	ours    = addr("10.0.0.5")
	higher  = addr("10.0.0.9")
	another = addr("10.0.0.8")
)

func config() MachineConfig {
	return MachineConfig{Version: V3, Priority: 100, Interval: sec, Source: ours}
}

// heard is an advertisement as it comes out of Expect.Check.
func heard(priority uint8, interval time.Duration) Advertisement {
	return Advertisement{Version: V3, VRID: 7, Priority: priority, Interval: interval}
}

// in returns a machine in a state, entered at time 0 unless that takes waiting.
func in(t *testing.T, state State, c MachineConfig) (m *Machine, now time.Duration) {
	t.Helper()
	m = NewMachine(c)
	if c.Hybrid {
		m.Entitle(0, false)
	}
	if state == Initialize {
		return m, 0
	}
	m.Startup(0)
	if state == Master && m.State() == Backup {
		now, _ = m.Deadline()
		m.Expire(now)
	}
	if m.State() != state {
		t.Fatalf("machine is %v, want %v", m.State(), state)
	}
	return m, now
}

// timer returns the time that is left on the running timer, -1 if none is.
func timer(m *Machine, now time.Duration) time.Duration {
	at, ok := m.Deadline()
	if !ok {
		return -1
	}
	return at - now
}

// skew100 is Skew_Time of priority 100 at one second.
const skew100 = 156 * sec / 256

// A rule is a sentence of a standard as a test: in a state, after an event, what
// is done, what state follows and what is left on the timer.
type rule struct {
	from   string
	config func(*MachineConfig)
	state  State
	event  func(m *Machine, now time.Duration) []Action
	want   string
	then   State
	timer  time.Duration
	also   func(m *Machine) string // what else is wrong
}

func (r rule) test(t *testing.T) {
	c := config()
	if r.config != nil {
		r.config(&c)
	}
	m, now := in(t, r.state, c)
	if got := brief(r.event(m, now)); got != r.want {
		t.Errorf("did %q, want %q", got, r.want)
	}
	if m.State() != r.then {
		t.Errorf("is %v, want %v", m.State(), r.then)
	}
	if got := timer(m, now); got != r.timer {
		t.Errorf("timer %v, want %v", got, r.timer)
	}
	if r.also != nil {
		if wrong := r.also(m); wrong != "" {
			t.Error(wrong)
		}
	}
}

func receive(priority uint8, interval time.Duration, src netip.Addr) func(*Machine, time.Duration) []Action {
	return func(m *Machine, now time.Duration) []Action { return m.Receive(now, heard(priority, interval), src) }
}

func expire(m *Machine, _ time.Duration) []Action {
	at, _ := m.Deadline()
	return m.Expire(at)
}

func master(want netip.Addr, interval time.Duration) func(*Machine) string {
	return func(m *Machine) string {
		got, _, every, _, ok := m.Master()
		if ok != want.IsValid() || got != want || every != interval {
			return fmt.Sprintf("master %v every %v, want %v every %v", got, every, want, interval)
		}
		return ""
	}
}

func priority(p uint8) func(*MachineConfig) { return func(c *MachineConfig) { c.Priority = p } }

// TestStandard has a row for each sentence of RFC 9568 sections 6.1 and 6.4 that
// is about the election. What they say of ARP, neighbour discovery, MAC addresses
// and forwarding is for who acts on BecomeMaster and BecomeBackup.
func TestStandard(t *testing.T) {
	two := func(c *MachineConfig) { c.Version = V2 }
	startup := func(m *Machine, now time.Duration) []Action { return m.Startup(now) }
	shutdown := func(m *Machine, now time.Duration) []Action { return m.Shutdown(now) }
	accepts := func(want bool) func(*Machine) string {
		return func(m *Machine) string {
			if m.Accepts() != want {
				return fmt.Sprintf("accepts: %v", !want)
			}
			return ""
		}
	}
	for _, r := range []rule{
		{from: "6.4.1: waits for Startup: timer", state: Initialize, event: func(m *Machine, now time.Duration) []Action { return m.Expire(now + 100*sec) }, then: Initialize, timer: -1},
		{from: "6.4.1: waits for Startup: advertisement", state: Initialize, event: receive(200, sec, higher), then: Initialize, timer: -1},
		{from: "6.4.1: waits for Startup: Shutdown", state: Initialize, event: shutdown, then: Initialize, timer: -1},
		{from: "6.4.1: priority 255: advertise, announce, Adver_Timer, Active", config: priority(255), state: Initialize, event: startup, want: "send 255, master", then: Master, timer: sec},
		{from: "6.4.1: else Active_Down_Timer from our own interval, Backup", state: Initialize, event: startup, want: "backup", then: Backup, timer: 3*sec + skew100},
		{from: "6.4.1: the same with priority 254", config: priority(254), state: Initialize, event: startup, want: "backup", then: Backup, timer: 3*sec + 2*sec/256},

		{from: "6.4.2: does not accept packets to the addresses", state: Backup, event: startup, then: Backup, timer: 3*sec + skew100, also: accepts(false)},
		{from: "6.4.2: Shutdown: cancel the timer, Initialize", state: Backup, event: shutdown, then: Initialize, timer: -1},
		{from: "6.4.2: Active_Down_Timer fires: advertise, announce, Adver_Timer, Active", state: Backup, event: func(m *Machine, _ time.Duration) []Action {
			at, _ := m.Deadline()
			return m.Expire(at)
		}, want: "send 100, master", then: Master, timer: 3*sec + skew100 + sec},
		{from: "6.4.2: it does not fire early", state: Backup, event: func(m *Machine, _ time.Duration) []Action {
			at, _ := m.Deadline()
			return m.Expire(at - 1)
		}, then: Backup, timer: 3*sec + skew100},
		{from: "6.4.2: priority 0: Active_Down_Timer is Skew_Time", state: Backup, event: receive(0, sec, lower), then: Backup, timer: skew100, also: master(netip.Addr{}, 0)},
		{from: "6.4.2: no preemption: learn the interval, recompute, restart", config: func(c *MachineConfig) { c.NoPreempt = true }, state: Backup, event: receive(1, 2*sec, lower), then: Backup, timer: 6*sec + 2*skew100, also: master(lower, 2*sec)},
		{from: "6.4.2: higher priority: the same", state: Backup, event: receive(200, 500*ms, lower), then: Backup, timer: 1500*ms + skew100/2, also: master(lower, 500*ms)},
		{from: "6.4.2: equal priority: the same, even from a lower address", state: Backup, event: receive(100, sec, lower), then: Backup, timer: 3*sec + skew100, also: master(lower, sec)},
		{from: "6.4.2: else (preemption, lower priority) discard: the timer runs on", state: Backup, event: func(m *Machine, now time.Duration) []Action {
			return m.Receive(now+sec, heard(99, 2*sec), higher)
		}, then: Backup, timer: 3*sec + skew100, also: master(netip.Addr{}, 0)},

		{from: "6.4.3: accepts packets to the addresses: address owner", config: priority(255), state: Master, event: startup, then: Master, timer: sec, also: accepts(true)},
		{from: "6.4.3: accepts packets to the addresses: Accept_Mode", config: func(c *MachineConfig) { c.Accept = true }, state: Master, event: startup, then: Master, timer: sec, also: accepts(true)},
		{from: "6.4.3: otherwise does not accept", state: Master, event: startup, then: Master, timer: sec, also: accepts(false)},
		{from: "6.4.3: Shutdown: cancel the timer, advertise priority 0, Initialize", state: Master, event: shutdown, want: "backup, send 0", then: Initialize, timer: -1},
		{from: "6.4.3: Adver_Timer fires: advertise, restart it", state: Master, event: expire, want: "send 100", then: Master, timer: 2 * sec},
		{from: "6.4.3: priority 0: advertise, restart Adver_Timer", state: Master, event: func(m *Machine, now time.Duration) []Action {
			return m.Receive(now+300*ms, heard(0, sec), higher)
		}, want: "send 100", then: Master, timer: 1300 * ms},
		{from: "6.4.3: higher priority: learn the interval, Active_Down_Timer, Backup", state: Master, event: receive(101, 2*sec, lower), want: "backup", then: Backup, timer: 6*sec + 2*skew100, also: master(lower, 2*sec)},
		{from: "6.4.3: equal priority, greater address: the same", state: Master, event: receive(100, sec, higher), want: "backup", then: Backup, timer: 3*sec + skew100, also: master(higher, sec)},
		{from: "6.4.3: else (equal priority, lower address): discard, advertise at once", state: Master, event: func(m *Machine, now time.Duration) []Action {
			return m.Receive(now+300*ms, heard(100, 2*sec), lower)
		}, want: "send 100, announce", then: Master, timer: sec},
		{from: "6.4.3: else (lower priority, greater address): the same", state: Master, event: receive(99, 2*sec, higher), want: "send 100, announce", then: Master, timer: sec},
		{from: "6.4.3: two address owners: the address decides", config: priority(255), state: Master, event: receive(255, sec, higher), want: "backup", then: Backup, timer: 3*sec + sec/256},
		{from: "6.4.3: the comparison is of unsigned integers", config: func(c *MachineConfig) { c.Source = addr("100.0.0.1") }, state: Master, event: receive(100, sec, addr("200.0.0.1")), want: "backup", then: Backup, timer: 3*sec + skew100},
		{from: "6.4.3: the same for IPv6", config: func(c *MachineConfig) { c.Source = addr("fe80::9%eth0") }, state: Master, event: receive(100, sec, addr("fe80::8000:0%eth1")), want: "backup", then: Backup, timer: 3*sec + skew100},

		{from: "RFC 3768 6.1: Skew_Time is of a second", config: func(c *MachineConfig) { c.Version, c.Interval = V2, 10*sec }, state: Backup, event: receive(0, 10*sec, higher), then: Backup, timer: skew100},
		{from: "RFC 3768 6.4.2: the interval is our own", config: two, state: Backup, event: receive(200, 9*sec, higher), then: Backup, timer: 3*sec + skew100},
		{from: "RFC 3768 6.4.3: higher priority", config: two, state: Master, event: receive(200, 9*sec, higher), want: "backup", then: Backup, timer: 3*sec + skew100},
	} {
		t.Run(r.from, r.test)
	}
}

// TestTimesSeen compares with times that were measured of keepalived; its own
// formula is within the error of measurement.
func TestTimesSeen(t *testing.T) {
	if got := SkewTime(V2, 102, sec).Round(100 * time.Microsecond); got != 601600*time.Microsecond {
		t.Errorf("version 2, priority 102, 1 s: %v, want 601.6ms", got)
	}
	if got := SkewTime(V3, 100, 500*ms).Round(ms); got != 305*ms {
		t.Errorf("version 3, priority 100, 0.5 s: %v, want 305ms", got)
	}
}

// At the shortest interval, each priority still has its own time, and a better
// one the shorter.
func TestSkewTellsPrioritiesApart(t *testing.T) {
	for _, v := range []Version{V2, V3} {
		for p := 2; p <= 255; p++ {
			better, worse := SkewTime(v, uint8(p), 10*ms), SkewTime(v, uint8(p-1), 10*ms)
			if better <= 0 || better >= worse {
				t.Fatalf("version %d: priority %d: %v, %d: %v", v, p, better, p-1, worse)
			}
		}
	}
	if got := SkewTime(V3, 1, 40950*ms); got != 255*40950*ms/256 {
		t.Errorf("longest: %v", got)
	}
}

// TestKeepalived has what keepalived does beyond the standards.
func TestKeepalived(t *testing.T) {
	delay := func(c *MachineConfig) { c.PreemptDelay = 5 * sec }
	at := func(after time.Duration, p uint8) func(*Machine, time.Duration) {
		return func(m *Machine, now time.Duration) { m.Receive(now+after, heard(p, sec), lower) }
	}
	sequence := func(steps ...func(*Machine, time.Duration)) func(*Machine, time.Duration) []Action {
		return func(m *Machine, now time.Duration) []Action {
			for _, step := range steps {
				step(m, now)
			}
			return nil
		}
	}
	for _, r := range []rule{
		{from: "lower_prio_no_advert", config: func(c *MachineConfig) { c.LowerPrioNoAdvert = true }, state: Master, event: receive(99, sec, higher), want: "announce", then: Master, timer: sec},
		{from: "higher_prio_send_advert", config: func(c *MachineConfig) { c.HigherPrioSendAdvert = true }, state: Master, event: receive(101, sec, lower), want: "send 100, backup", then: Backup, timer: 3*sec + skew100},
		{from: "down_timer_adverts", config: func(c *MachineConfig) { c.DownTimerAdverts = 5 }, state: Backup, event: receive(200, sec, lower), then: Backup, timer: 5*sec + skew100},
		{from: "equal priority and our own address is no rival", state: Master, event: receive(100, sec, ours), then: Master, timer: sec},
		{from: "our own address with any priority neither", state: Master, event: receive(200, sec, ours), then: Master, timer: sec},
		{from: "our own address, with a zone", config: func(c *MachineConfig) { c.Source = addr("fe80::9%eth0") }, state: Master, event: receive(200, sec, addr("fe80::9%eth1")), then: Master, timer: sec},
		{from: "our own address is not a master", state: Backup, event: receive(200, sec, ours), then: Backup, timer: 3*sec + skew100, also: master(netip.Addr{}, 0)},
		{from: "preempt_delay: a lower master is accepted", config: delay, state: Backup, event: sequence(at(1*sec, 50), at(2*sec, 50)), then: Backup, timer: 5*sec + skew100, also: master(lower, sec)},
		{from: "preempt_delay: until it has run out, from the first", config: delay, state: Backup, event: sequence(at(1*sec, 50), at(3*sec, 50), at(5999*ms, 50), at(6*sec, 50), at(7*sec, 50)), then: Backup, timer: 5999*ms + 3*sec + skew100},
		{from: "preempt_delay: a higher one stops it", config: delay, state: Backup, event: sequence(at(1*sec, 50), at(3*sec, 150), at(5*sec, 50), at(7*sec, 50)), then: Backup, timer: 10*sec + skew100},
		{from: "preempt_delay: an equal one stops it", config: delay, state: Backup, event: sequence(at(1*sec, 50), at(3*sec, 100), at(5*sec, 50), at(7*sec, 50)), then: Backup, timer: 10*sec + skew100},
		{from: "preempt_delay: no delay if nobody speaks", config: delay, state: Backup, event: expire, want: "send 100, master", then: Master, timer: 3*sec + skew100 + sec},
		{from: "preempt_delay: no delay after priority 0", config: delay, state: Backup, event: sequence(at(1*sec, 50), at(2*sec, 0)), then: Backup, timer: 2*sec + skew100},
		{from: "the master's learnt interval is gone when we are master", state: Backup, event: func(m *Machine, now time.Duration) []Action {
			m.Receive(now, heard(200, 40*sec), higher)
			return expire(m, now)
		}, want: "send 100, master", then: Master, timer: 120*sec + 40*skew100 + sec, also: func(m *Machine) string {
			if got := m.DownInterval(); got != 3*sec+skew100 {
				return fmt.Sprintf("down interval %v", got)
			}
			return ""
		}},
		{from: "a pause is not caught up", state: Master, event: func(m *Machine, now time.Duration) []Action {
			return m.Expire(now + 10*sec)
		}, want: "send 100", then: Master, timer: 11 * sec},
		{from: "a little lateness does not shift the beat", state: Master, event: func(m *Machine, now time.Duration) []Action {
			return m.Expire(now + sec + 50*ms)
		}, want: "send 100", then: Master, timer: 2 * sec},
		{from: "a new priority is said with the next advertisement", state: Master, event: func(m *Machine, now time.Duration) []Action {
			return append(m.SetPriority(now, 60), expire(m, now)...)
		}, want: "send 60", then: Master, timer: 2 * sec},
		{from: "a new priority counts in the election", state: Master, event: func(m *Machine, now time.Duration) []Action {
			m.SetPriority(now, 60)
			return m.Receive(now, heard(80, sec), lower)
		}, want: "backup", then: Backup, timer: 3*sec + 196*sec/256},
		{from: "the lowest priority is 1", state: Master, event: func(m *Machine, now time.Duration) []Action {
			return append(m.SetPriority(now, 0), expire(m, now)...)
		}, want: "send 1", then: Master, timer: 2 * sec},
		{from: "priority 255 does not wait", state: Backup, event: func(m *Machine, now time.Duration) []Action {
			return m.SetPriority(now, 255)
		}, want: "send 255, master", then: Master, timer: sec},
		{from: "a second Startup does nothing", state: Master, event: func(m *Machine, now time.Duration) []Action { return m.Startup(now) }, then: Master, timer: sec},
		{from: "it starts again after Shutdown", state: Master, event: func(m *Machine, now time.Duration) []Action {
			return append(m.Shutdown(now), m.Startup(now)...)
		}, want: "backup, send 0, backup", then: Backup, timer: 3*sec + skew100},
		{from: "a new source address decides ties", state: Master, event: func(m *Machine, now time.Duration) []Action {
			m.SetSource(addr("10.0.0.20"))
			return m.Receive(now, heard(100, sec), higher)
		}, want: "send 100, announce", then: Master, timer: sec},
	} {
		t.Run(r.from, r.test)
	}
}

func TestMasterIsKnown(t *testing.T) {
	m, _ := in(t, Backup, config())
	m.Receive(sec, heard(120, 2*sec), higher)
	a, p, every, at, ok := m.Master()
	if !ok || a != higher || p != 120 || every != 2*sec || at != sec {
		t.Errorf("master %v priority %d every %v at %v, %v", a, p, every, at, ok)
	}
	m.Receive(2*sec, heard(0, 2*sec), another)
	if a, _, _, _, _ := m.Master(); a != higher {
		t.Errorf("master %v after another one has resigned, want %v", a, higher)
	}
	m.Receive(2*sec, heard(0, 2*sec), higher)
	if a, _, _, _, ok := m.Master(); ok {
		t.Errorf("%v has resigned and is still master", a)
	}
	m.Receive(2*sec, heard(130, 2*sec), another)
	if a, _, _, _, _ := m.Master(); a != another {
		t.Errorf("master %v, want %v", a, another)
	}
	expire(m, 0)
	if a, _, _, _, ok := m.Master(); ok {
		t.Errorf("we are master beside %v", a)
	}
}

// Reasons are read by operators.
func TestReasons(t *testing.T) {
	m, _ := in(t, Backup, config())
	m.Receive(sec, heard(120, sec), higher)
	reason := func(actions []Action) string {
		switch a := actions[len(actions)-1].(type) {
		case BecomeMaster:
			return a.Reason
		case BecomeBackup:
			return a.Reason
		}
		return fmt.Sprint(actions)
	}
	if got, want := reason(expire(m, 0)), "no advertisement of 10.0.0.9 with a priority to respect for 3.609s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := reason(m.Receive(10*sec, heard(120, sec), higher)), "10.0.0.9 has priority 120, ours is 100"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	m.Receive(11*sec, heard(0, sec), higher)
	if got, want := reason(expire(m, 0)), "10.0.0.9 resigned"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	m, _ = in(t, Backup, config())
	if got, want := reason(expire(m, 0)), "no other master was heard"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestNewMachinePanics(t *testing.T) {
	for name, change := range map[string]func(*MachineConfig){
		"version 0":  func(c *MachineConfig) { c.Version = 0 },
		"priority 0": func(c *MachineConfig) { c.Priority = 0 },
		"interval 0": func(c *MachineConfig) { c.Interval = 0 },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			c := config()
			change(&c)
			NewMachine(c)
		}()
	}
}

func TestStateNames(t *testing.T) {
	if got := fmt.Sprint(Initialize, Backup, Master, State(9)); got != "initialize backup master state 9" {
		t.Error(got)
	}
}

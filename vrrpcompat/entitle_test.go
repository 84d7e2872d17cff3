package vrrpcompat

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// fellow is the address of a member of our own cluster.
var fellow = addr("10.0.0.7")

// do is one call of a script.
type do struct {
	at   time.Duration
	call func(m *Machine, now time.Duration) []Action
	want string
	then State
}

func hear(p uint8, src netip.Addr) func(*Machine, time.Duration) []Action {
	return receive(p, sec, src)
}

var (
	entitle = func(m *Machine, now time.Duration) []Action { return m.Entitle(now, false) }
	succeed = func(m *Machine, now time.Duration) []Action { return m.Entitle(now, true) }
	handOn  = func(m *Machine, now time.Duration) []Action { return m.Disentitle(now, true) }
	lose    = func(m *Machine, now time.Duration) []Action { return m.Disentitle(now, false) }
	tick    = func(m *Machine, now time.Duration) []Action { return m.Expire(now) }
	stop    = func(m *Machine, now time.Duration) []Action { return m.Shutdown(now) }
	noTimer = func(m *Machine, now time.Duration) []Action {
		if at, ok := m.Deadline(); ok {
			panic(at)
		}
		return nil
	}
	start = func(m *Machine, now time.Duration) []Action { return m.Startup(now) }
)

// TestHybrid tells what a node of a cluster does beside routers of another party.
// Each script begins with a machine that has started at 0 and is not entitled;
// its priority is 100, its down interval 3.609 s, its skew time 0.609 s.
func TestHybrid(t *testing.T) {
	tests := []struct {
		name   string
		config func(*MachineConfig)
		script []do
	}{
		{"not entitled: never master, whatever happens", priority(254), []do{
			{10 * sec, tick, "", Backup},
			{10 * sec, hear(1, higher), "", Backup},
			{11 * sec, hear(0, higher), "", Backup},
			{12 * sec, tick, "", Backup},
			{13 * sec, hear(1, fellow), "", Backup},
			{99 * sec, tick, "", Backup},
			{99 * sec, stop, "", Initialize},
		}},
		{"not entitled, address owner: not master either", priority(255), []do{
			{1 * sec, stop, "", Initialize},
			{1 * sec, start, "backup", Backup},
			{2 * sec, func(m *Machine, now time.Duration) []Action { return m.SetPriority(now, 255) }, "", Backup},
			{3 * sec, entitle, "send 255, master", Master},
		}},
		{"entitled before Startup, address owner", priority(255), []do{
			{1 * sec, stop, "", Initialize},
			{1 * sec, entitle, "", Initialize},
			{2 * sec, start, "send 255, master", Master},
		}},
		{"nobody is master: at once", nil, []do{
			{4 * sec, tick, "", Backup},
			{5 * sec, entitle, "send 100, master", Master},
			{6 * sec, tick, "send 100", Master},
		}},
		{"a member's last word comes after the first of the better router that it lost to", nil, []do{
			{1 * sec, hear(150, fellow), "", Backup},
			{1500 * ms, hear(200, higher), "", Backup},
			{1501 * ms, hear(150, fellow), "", Backup},
			{1600 * ms, entitle, "", Backup},
		}},
		{"the better router is silent, and then a member is master", nil, []do{
			{1 * sec, hear(200, higher), "", Backup},
			{5 * sec, tick, "", Backup},
			{5 * sec, hear(50, fellow), "", Backup},
			{6 * sec, entitle, "send 100, master", Master},
		}},
		{"the better router has resigned, and then a member is master", nil, []do{
			{1 * sec, hear(200, higher), "", Backup},
			{1500 * ms, hear(0, higher), "", Backup},
			{1600 * ms, hear(50, fellow), "", Backup},
			{1700 * ms, entitle, "send 100, master", Master},
		}},
		{"nobody is known to be master: listen first", nil, []do{
			{1 * sec, entitle, "", Backup},
			{3609 * ms, tick, "", Backup},
			{3610 * ms, tick, "send 100, master", Master},
		}},
		{"while listening, a better router is heard", nil, []do{
			{1 * sec, entitle, "", Backup},
			{2 * sec, hear(150, higher), "", Backup},
			{5 * sec, tick, "", Backup},
		}},
		{"while listening, a fellow is heard", nil, []do{
			{1 * sec, entitle, "", Backup},
			{2 * sec, hear(90, fellow), "send 100, master", Master},
		}},
		{"while listening, a fellow resigns", nil, []do{
			{1 * sec, entitle, "", Backup},
			{2 * sec, hear(0, fellow), "send 100, master", Master},
		}},
		{"a fellow is master: at once, even if it is better", nil, []do{
			{1 * sec, hear(200, fellow), "", Backup},
			{1100 * ms, entitle, "send 100, master", Master},
		}},
		{"a fellow that only the caller knows is master", nil, []do{
			{1 * sec, hear(200, another), "", Backup},
			{1100 * ms, succeed, "send 100, master", Master},
		}},
		{"a fellow has just resigned: at once, before the others' skew time", nil, []do{
			{1 * sec, hear(90, fellow), "", Backup},
			{2 * sec, hear(0, fellow), "", Backup},
			{2001 * ms, entitle, "send 100, master", Master},
		}},
		{"a router of lower priority is master: preempt at once", nil, []do{
			{1 * sec, hear(99, higher), "", Backup},
			{1100 * ms, entitle, "send 100, master", Master},
		}},
		{"a router of equal priority and lower address: the same", nil, []do{
			{1 * sec, hear(100, lower), "", Backup},
			{1100 * ms, entitle, "send 100, master", Master},
		}},
		{"nopreempt: not", func(c *MachineConfig) { c.NoPreempt = true }, []do{
			{1 * sec, hear(99, higher), "", Backup},
			{1100 * ms, entitle, "", Backup},
			{2 * sec, hear(99, higher), "", Backup},
			{5 * sec, tick, "", Backup},
			{5610 * ms, tick, "send 100, master", Master},
		}},
		{"preempt_delay: later", func(c *MachineConfig) { c.PreemptDelay = 2 * sec }, []do{
			{1 * sec, hear(99, higher), "", Backup},
			{1100 * ms, entitle, "", Backup},
			{2 * sec, hear(99, higher), "", Backup},
			{3 * sec, hear(99, higher), "", Backup},
			{3100 * ms, entitle, "send 100, master", Master},
		}},
		{"preempt_delay begins with each ownership", func(c *MachineConfig) { c.PreemptDelay = 2 * sec }, []do{
			{1 * sec, hear(99, higher), "", Backup},
			{1100 * ms, entitle, "", Backup},
			{1200 * ms, handOn, "", Backup},
			{3 * sec, hear(99, higher), "", Backup},
			{3200 * ms, entitle, "", Backup},
			{5199 * ms, entitle, "", Backup},
			{5200 * ms, entitle, "send 100, master", Master},
		}},
		{"preempt_delay is not for fellows", func(c *MachineConfig) { c.PreemptDelay, c.NoPreempt = 2*sec, true }, []do{
			{1 * sec, hear(99, fellow), "", Backup},
			{1100 * ms, entitle, "send 100, master", Master},
		}},
		{"a better router is master: stay ready, take over when it is lost", nil, []do{
			{1 * sec, hear(150, higher), "", Backup},
			{1100 * ms, entitle, "", Backup},
			{4609 * ms, tick, "", Backup},
			{4610 * ms, tick, "send 100, master", Master},
		}},
		{"a better router resigns: after the skew time, as others may be better", nil, []do{
			{1 * sec, hear(150, higher), "", Backup},
			{2 * sec, hear(0, higher), "", Backup},
			{2100 * ms, entitle, "", Backup},
			{2609 * ms, tick, "", Backup},
			{2610 * ms, tick, "send 100, master", Master},
		}},
		{"equal priority and higher address is better", nil, []do{
			{1 * sec, hear(100, higher), "", Backup},
			{1100 * ms, entitle, "", Backup},
		}},
		{"a better router comes: yield, stay entitled", nil, []do{
			{4 * sec, tick, "", Backup},
			{4 * sec, entitle, "send 100, master", Master},
			{5 * sec, hear(150, higher), "backup", Backup},
			{9 * sec, tick, "send 100, master", Master},
		}},
		{"a better router is master; late words of a fellow change nothing", nil, []do{
			{1 * sec, entitle, "", Backup},
			{2 * sec, hear(150, higher), "", Backup},
			{2100 * ms, hear(90, fellow), "", Backup},
			{2200 * ms, hear(0, fellow), "", Backup},
			{5609 * ms, tick, "", Backup},
		}},
		{"the master turns out to be a fellow", nil, []do{
			{1 * sec, hear(150, another), "", Backup},
			{1100 * ms, entitle, "", Backup},
			{1200 * ms, func(m *Machine, _ time.Duration) []Action { m.SetFellows([]netip.Addr{another}); return nil }, "", Backup},
			{2 * sec, hear(150, another), "send 100, master", Master},
		}},
		{"a fellow never demotes, and its leaving is answered", nil, []do{
			{4 * sec, tick, "", Backup},
			{4 * sec, entitle, "send 100, master", Master},
			{4100 * ms, hear(200, fellow), "", Master},
			{4200 * ms, hear(0, fellow), "send 100", Master},
		}},
		{"handed over: silent; then the fellow is master", nil, []do{
			{4 * sec, tick, "", Backup},
			{4 * sec, entitle, "send 100, master", Master},
			{5 * sec, handOn, "backup", Backup},
			{5 * sec, noTimer, "", Backup},
			{9 * sec, hear(50, fellow), "", Backup},
			{10 * sec, entitle, "send 100, master", Master},
		}},
		{"handed over, and back before the fellow spoke", nil, []do{
			{4 * sec, tick, "", Backup},
			{4 * sec, entitle, "send 100, master", Master},
			{5 * sec, handOn, "backup", Backup},
			{5 * sec, entitle, "send 100, master", Master},
		}},
		{"handed over, and back after a better router spoke", nil, []do{
			{4 * sec, tick, "", Backup},
			{4 * sec, entitle, "send 100, master", Master},
			{5 * sec, handOn, "backup", Backup},
			{5100 * ms, hear(150, higher), "", Backup},
			{5200 * ms, entitle, "", Backup},
		}},
		{"quorum lost: addresses down, then priority 0", nil, []do{
			{4 * sec, tick, "", Backup},
			{4 * sec, entitle, "send 100, master", Master},
			{5 * sec, lose, "backup, send 0", Backup},
			{6 * sec, tick, "", Backup},
			{6 * sec, lose, "", Backup},
		}},
		{"quorum lost while another is master: nothing to say", nil, []do{
			{1 * sec, entitle, "", Backup},
			{2 * sec, hear(150, higher), "", Backup},
			{3 * sec, lose, "", Backup},
			{9 * sec, tick, "", Backup},
		}},
		{"shut down while master, and started again still entitled: listen first", nil, []do{
			{4 * sec, tick, "", Backup},
			{4 * sec, entitle, "send 100, master", Master},
			{5 * sec, stop, "backup, send 0", Initialize},
			{6 * sec, start, "backup", Backup},
			{7 * sec, entitle, "", Backup},
			{9610 * ms, tick, "send 100, master", Master},
		}},
		{"disentitled while shut down", nil, []do{
			{1 * sec, entitle, "", Backup},
			{2 * sec, stop, "", Initialize},
			{2 * sec, lose, "", Initialize},
			{3 * sec, start, "backup", Backup},
			{9 * sec, tick, "", Backup},
		}},
		{"the resignation of one who is not master does not matter", nil, []do{
			{1 * sec, hear(150, higher), "", Backup},
			{2 * sec, hear(0, another), "", Backup},
			{3 * sec, tick, "", Backup},
			{3 * sec, entitle, "", Backup},
			{4 * sec, tick, "", Backup},
		}},
		{"entitled twice", nil, []do{
			{4 * sec, tick, "", Backup},
			{4 * sec, entitle, "send 100, master", Master},
			{4 * sec, entitle, "", Master},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := config()
			c.Hybrid = true
			if test.config != nil {
				test.config(&c)
			}
			m := NewMachine(c)
			m.SetFellows([]netip.Addr{fellow})
			m.Startup(0)
			for i, d := range test.script {
				if got := brief(d.call(m, d.at)); got != d.want || m.State() != d.then {
					t.Fatalf("step %d at %v: did %q and is %v, want %q and %v", i, d.at, got, m.State(), d.want, d.then)
				}
			}
		})
	}
}

// A machine without Raft is always entitled, and no rival is a fellow.
func TestPlainIgnoresEntitlement(t *testing.T) {
	m, now := in(t, Master, config())
	m.SetFellows([]netip.Addr{fellow})
	if got := brief(m.Disentitle(now, false)) + brief(m.Entitle(now, true)); got != "" || !m.Entitled() || m.State() != Master {
		t.Errorf("did %q, entitled %v, %v", got, m.Entitled(), m.State())
	}
	if got := brief(m.Receive(now, heard(200, sec), fellow)); got != "backup" {
		t.Errorf("did %q", got)
	}
}

func TestDuplicateSpeaker(t *testing.T) {
	c := config()
	c.Hybrid = true
	m := NewMachine(c)
	m.SetFellows([]netip.Addr{fellow})
	m.Startup(0)
	m.Expire(4 * sec)
	m.Entitle(4*sec, false)
	report := func(now time.Duration) uint64 {
		_, _, n, ok := m.Duplicate(now)
		if ok != (n > 0) {
			t.Errorf("at %v: %d, %v", now, n, ok)
		}
		return n
	}
	steps := []struct {
		at    time.Duration
		hears bool
		want  uint64
	}{
		{4 * sec, true, 0},           // under way
		{4500 * ms, true, 0},         // still
		{9 * sec, false, 0},          // no more
		{9100 * ms, true, 0},         // a new story
		{10100 * ms, true, 2},        // it goes on
		{11100 * ms, true, 3},        //
		{14 * sec, false, 3},         // not silent for long enough
		{14800 * ms, false, 0},       // it has ended
		{14900 * ms, true, 0},        // begins again
		{14950*ms + sec, true, 2},    //
		{15950*ms + sec/10, true, 3}, //
	}
	for _, s := range steps {
		if s.hears {
			m.Receive(s.at, heard(100, sec), fellow)
		}
		if got := report(s.at); got != s.want {
			t.Errorf("at %v: %d reported, want %d", s.at, got, s.want)
		}
	}
	if a, since, _, _ := m.Duplicate(16 * sec); a != fellow || since != 14900*ms {
		t.Errorf("speaker %v since %v", a, since)
	}
	m.Disentitle(17*sec, true)
	if got := report(17 * sec); got != 0 {
		t.Errorf("%d reported of a machine that is not entitled", got)
	}
}

func TestHybridKnowsMaster(t *testing.T) {
	c := config()
	c.Hybrid = true
	m := NewMachine(c)
	m.Startup(0)
	m.Receive(sec, heard(7, 2*sec), higher)
	if a, p, every, at, ok := m.Master(); !ok || a != higher || p != 7 || every != 2*sec || at != sec {
		t.Errorf("master %v priority %d every %v at %v, %v", a, p, every, at, ok)
	}
	at, ok := m.Deadline()
	if want := sec + 6*sec + 2*skew100; !ok || at != want {
		t.Errorf("deadline %v, %v, want %v", at, ok, want)
	}
	m.Expire(at)
	if a, _, _, _, ok := m.Master(); ok {
		t.Errorf("%v is still master after its down interval", a)
	}
	if at, ok := m.Deadline(); ok {
		t.Errorf("there is a deadline (%v) and nothing to wait for", at)
	}
	got := m.Entitle(at, false)
	if b, ok := got[1].(BecomeMaster); !ok || !strings.Contains(b.Reason, "owns the group") {
		t.Errorf("%+v", got)
	}
}

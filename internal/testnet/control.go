package testnet

import (
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"golang.org/x/sys/unix"
)

// Stall is a time in which a processor did not run even a real-time thread that
// was due.
type Stall struct {
	From, To time.Duration
	CPU      int
}

// ControlProbe tells a stall of the machine from a fault of what runs on it. On
// every processor a real-time thread sleeps 2 ms at a time and notes when it
// overslept. Virtual machines stall for tens of milliseconds; a timing taken over
// such a moment says nothing about the program timed.
type ControlProbe struct {
	over time.Duration
	ms   []*metronome
	once sync.Once

	mu     sync.Mutex
	stalls []Stall
}

// StartControl starts a control probe that records oversleeps longer than over;
// by default 5 ms.
func StartControl(over time.Duration) *ControlProbe {
	if over <= 0 {
		over = 5 * time.Millisecond
	}
	c := &ControlProbe{over: over}
	var set unix.CPUSet
	_ = unix.SchedGetaffinity(0, &set)
	for cpu := range 1024 {
		if set.IsSet(cpu) {
			c.ms = append(c.ms, startMetronome(2*time.Millisecond, cpu, func(now, late time.Duration) { c.beat(cpu, now, late) }))
		}
	}
	return c
}

func (c *ControlProbe) beat(cpu int, now, late time.Duration) {
	if late <= c.over {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalls = append(c.stalls, Stall{From: now - late, To: now, CPU: cpu})
}

// Stop ends the probe; what was recorded stays.
func (c *ControlProbe) Stop() {
	c.once.Do(func() {
		for _, m := range c.ms {
			m.stop()
		}
	})
}

// Stalls returns the stalls so far by time.
func (c *ControlProbe) Stalls() []Stall {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := slices.Clone(c.stalls)
	slices.SortStableFunc(out, func(a, b Stall) int { return int(a.From - b.From) })
	return out
}

// Within returns the longest stall of any processor that touches the given time.
// A stall is known when it is over: for a time just past, ask a moment later.
func (c *ControlProbe) Within(from, to time.Duration) time.Duration {
	var longest time.Duration
	for _, s := range c.Stalls() {
		if s.To >= from && s.From <= to {
			longest = max(longest, s.To-s.From)
		}
	}
	return longest
}

// Total returns how much of the given time some processor was stalled. A program
// that sleeps and wakes several times may meet several stalls, so a timing is
// excused by this rather than by the longest one.
func (c *ControlProbe) Total(from, to time.Duration) time.Duration {
	var sum time.Duration
	end := from
	for _, s := range c.Stalls() {
		a, b := max(s.From, end), min(s.To, to)
		if a < b {
			sum += b - a
			end = b
		}
	}
	return sum
}

// Max returns the longest stall so far.
func (c *ControlProbe) Max() time.Duration { return c.Within(0, boottime.Now()) }

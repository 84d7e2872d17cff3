package testnet

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"golang.org/x/sys/unix"
)

// realToBoot returns what to add to a wall-clock time to get boot time.
func realToBoot() time.Duration {
	return boottime.Now() - time.Duration(time.Now().UnixNano())
}

// metronome calls a function at a steady interval on a thread of its own. Package
// time is not used because its timers are rounded to whole milliseconds. The
// thread has real-time priority if the system allows, so that load which slows
// the programs under test does not blind the observer. Beats that could not be in
// time are skipped, never made up for: two beats are an interval apart or more.
type metronome struct {
	interval time.Duration
	stopping atomic.Bool
	done     chan struct{}

	cpu     atomic.Int64 // CPU time used so far, ns
	maxLate atomic.Int64 // ns
	skipped atomic.Int64
}

func startMetronome(interval time.Duration, cpu int, beat func(now, late time.Duration)) *metronome {
	m := &metronome{interval: interval, done: make(chan struct{})}
	go m.run(cpu, beat)
	return m
}

func (m *metronome) run(cpu int, beat func(now, late time.Duration)) {
	defer close(m.done)
	// Not unlocked: the thread with its priority ends with this goroutine.
	runtime.LockOSThread()
	realtime()
	if cpu >= 0 {
		var set unix.CPUSet
		set.Set(cpu)
		_ = unix.SchedSetaffinity(0, &set)
	}
	next := boottime.Now() + m.interval
	for n := 0; !m.stopping.Load(); n++ {
		ts := unix.NsecToTimespec(int64(next))
		if err := unix.ClockNanosleep(unix.CLOCK_BOOTTIME, unix.TIMER_ABSTIME, &ts, nil); err == unix.EINTR {
			continue
		}
		now := boottime.Now()
		late := now - next
		if int64(late) > m.maxLate.Load() {
			m.maxLate.Store(int64(late))
		}
		beat(now, late)
		next += m.interval
		// A fifth of an interval of jitter is let pass, so that the beats keep
		// their place; after more the rhythm starts anew.
		if late > m.interval/5 {
			m.skipped.Add(int64(late / m.interval))
			next = now + m.interval
		}
		if n%64 == 0 {
			m.cpu.Store(threadCPU())
		}
	}
	m.cpu.Store(threadCPU())
}

// stop returns when the last beat is over.
func (m *metronome) stop() {
	m.stopping.Store(true)
	<-m.done
}

func realtime() {
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
	_ = unix.SchedSetAttr(0, attr, 0)
	// The default slack of 50 us would be added to every sleep.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
}

func threadCPU() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return ts.Nano()
}

// Cadence is how well an observer kept its rhythm. What happened while it did not
// was not observed.
type Cadence struct {
	Skipped int           // beats left out
	MaxLate time.Duration // the latest beat
	CPU     time.Duration // processor time of the observer's thread
}

func (m *metronome) cadence() Cadence {
	return Cadence{Skipped: int(m.skipped.Load()), MaxLate: time.Duration(m.maxLate.Load()), CPU: time.Duration(m.cpu.Load())}
}

// String gives the cadence on one line.
func (c Cadence) String() string {
	return fmt.Sprintf("%d beats skipped, latest by %v, %v of CPU", c.Skipped, c.MaxLate.Round(time.Microsecond), c.CPU.Round(time.Millisecond))
}

// chunked is a list that grows without moving what it holds, so that an append
// is always short.
type chunked[T any] struct {
	chunks [][]T
	n      int
}

const chunkLen = 8192

func (c *chunked[T]) add(v T) {
	if c.n%chunkLen == 0 {
		c.chunks = append(c.chunks, make([]T, 0, chunkLen))
	}
	last := &c.chunks[len(c.chunks)-1]
	*last = append(*last, v)
	c.n++
}

func (c *chunked[T]) at(i int) *T { return &c.chunks[i/chunkLen][i%chunkLen] }

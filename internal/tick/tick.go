// Package tick has what one process does now and then done at the same instants. What an
// idle process costs is to be woken up: a dozen loops that each look once a second are one
// wake-up then.
package tick

import (
	"sync"
	"time"
)

// Until returns the time to the next multiple of d, more than 0 and at most d.
func Until(d time.Duration) time.Duration {
	return d - time.Duration(time.Now().UnixNano())%d
}

// A Ticker ticks at the multiples of its interval. One that is not looked at in time loses
// ticks, as a time.Ticker does.
type Ticker struct {
	C <-chan time.Time

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

// New returns a ticker with an interval of more than 0. Stop ends it.
func New(d time.Duration) *Ticker {
	c := make(chan time.Time, 1)
	t := &Ticker{C: c}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(Until(d), func() {
		select {
		case c <- time.Now():
		default: // the last one has not been taken yet
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.stopped {
			t.timer.Reset(Until(d))
		}
	})
	return t
}

// Stop ends the ticks, but for one that is being given.
func (t *Ticker) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	t.timer.Stop()
}

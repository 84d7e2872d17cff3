package daemon

import (
	"sync"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// sdNotify tells systemd, if it listens. An error means only that it does not.
func sdNotify(state string) { _, _ = sd.SdNotify(false, state) }

// A watchdog feeds systemd's (WatchdogSec in the unit) when each of the ownership loops
// has turned since it was fed last, so that a daemon one of whose loops hangs is
// restarted even if the rest of it is well.
type watchdog struct {
	every time.Duration // 0: nobody watches
	feed  func()

	mu     sync.Mutex
	last   time.Time
	turned map[string]bool // by group: since last
}

func newWatchdog() *watchdog {
	w := &watchdog{feed: func() { sdNotify(sd.SdNotifyWatchdog) }, turned: make(map[string]bool)}
	if interval, err := sd.SdWatchdogEnabled(false); err == nil && interval > 0 {
		w.every = interval / 3
	}
	return w
}

// beat is called by a group's loop at each turn.
func (w *watchdog) beat(group string) {
	if w.every == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turned[group] = true
	w.lookLocked()
}

// forget is called when a group has ended.
func (w *watchdog) forget(group string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.turned, group)
}

func (w *watchdog) lookLocked() {
	now := time.Now()
	if now.Sub(w.last) < w.every {
		return
	}
	for _, turned := range w.turned {
		if !turned {
			return
		}
	}
	w.last = now
	for group := range w.turned {
		w.turned[group] = false
	}
	w.feed()
}

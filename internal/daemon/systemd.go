package daemon

import (
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// sdNotify tells systemd, if it listens. An error means only that it does not.
func sdNotify(state string) { _, _ = sd.SdNotify(false, state) }

// A watchdog feeds systemd's (WatchdogSec in the unit). The ownership loop itself
// feeds it at its turns, so that a daemon whose loop hangs is restarted even if
// the rest of it is well.
type watchdog struct {
	every time.Duration // 0: nobody watches
	last  *time.Time
}

func newWatchdog() watchdog {
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return watchdog{last: new(time.Time)}
	}
	return watchdog{every: interval / 3, last: new(time.Time)}
}

// beat is called by the loop only.
func (w watchdog) beat() {
	if w.every == 0 {
		return
	}
	if now := time.Now(); now.Sub(*w.last) >= w.every {
		*w.last = now
		sdNotify(sd.SdNotifyWatchdog)
	}
}

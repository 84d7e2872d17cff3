package owner

import (
	"slices"
	"time"
)

// frozenFor is the time between two turns of the owner loop from which on this
// process must have been stopped: it turns at least once a second.
const frozenFor = 2 * time.Second

// doubts tell when the neighbours may believe something else than that this node
// owns, so that it must be announced again. Losing gates, links and addresses are
// the keeper's to see.
type doubts struct {
	turned time.Duration
	silent []string
	low    bool
}

// look is called at each turn while owning. left is what is left of the lease. It
// returns why to announce again, or "".
func (d *doubts) look(now time.Duration, silent []string, left time.Duration) string {
	before := *d
	slices.Sort(silent)
	*d = doubts{turned: now, silent: silent, low: left < lowLease}
	switch {
	case before.turned != 0 && now-before.turned > frozenFor:
		return "this process was stopped"
	case before.low && !d.low:
		return "the lease had nearly ended"
	}
	for _, name := range before.silent {
		if !slices.Contains(silent, name) {
			return name + " answers again"
		}
	}
	return ""
}

// lowLease is the rest of a lease from which on it is in doubt.
const lowLease = 20 * time.Millisecond

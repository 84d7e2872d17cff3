package policy

import (
	"fmt"
	"time"
)

// A Take is how many of the group's addresses a node has up as the owner or, if it
// is not that, could put up by what is known. The zero value is a node of which
// nothing bad is known.
type Take struct {
	// Wanted is the number of addresses, Missing how many of them are not up, or are
	// known not to come up.
	Wanted  int `json:"wanted,omitempty"`
	Missing int `json:"missing,omitempty"`
	// Reason names the addresses and what is in the way, such as "2001:db8::10:
	// permission denied". Empty if none is missing.
	Reason string `json:"reason,omitempty"`
}

// has says in words what the node has up now; can says what it could put up.
func (t Take) has() string {
	return fmt.Sprintf("has %d of %d addresses up (%s)", t.Wanted-t.Missing, t.Wanted, t.Reason)
}

func (t Take) can() string {
	return fmt.Sprintf("can put up %d of %d addresses (%s)", t.Wanted-t.Missing, t.Wanted, t.Reason)
}

// asOf is has for an owner and can for others.
func (t Take) asOf(owning bool) string {
	if owning {
		return t.has()
	}
	return t.can()
}

// String says in words what the node could put up, "" if nothing is missing.
func (t Take) String() string {
	if t.Missing == 0 {
		return ""
	}
	return t.can()
}

// The pause after a failed take, before the node is taken to be as good as others
// again though nothing about it has changed. It doubles with each failure and
// begins anew after a take that was complete for as long as the last pause.
const (
	MinTakePause = 2 * time.Minute
	MaxTakePause = time.Hour
)

// Takes remembers how this node's takes of one group ended, so that the group does
// not come back to a node that could not put all of its addresses up, as long as
// there is a better one. The zero value remembers nothing.
type Takes struct {
	owning bool
	failed Take   // of the present period of ownership, or of the last; Missing 0 for none
	cause  string // what failed is taken to depend on
	until  time.Duration
	pause  time.Duration // the last one
	whole  time.Duration // since when the addresses are all up, while owning; 0: they are not
}

// Look takes over what is to be seen at now and returns what to think of this node.
// seen is, while owning, which addresses are not up and have not come up for a while;
// otherwise those that would not come up by what can be seen without trying. cause is
// any text that changes when what failed is worth another try.
func (t Takes) Look(now time.Duration, owning bool, cause string, seen Take) (Takes, Take) {
	if owning {
		if !t.owning {
			t.owning, t.failed, t.whole = true, Take{}, 0
		}
		switch {
		case seen.Missing > 0:
			t.failed, t.cause, t.whole = seen, cause, 0
		case t.whole == 0:
			t.whole = now
			t.failed = Take{}
		case now-t.whole >= t.pause:
			t.pause = 0
		}
		return t, seen
	}
	if t.owning {
		t.owning = false
		if t.failed.Missing > 0 {
			t.pause = min(max(2*t.pause, MinTakePause), MaxTakePause)
			t.until = now + t.pause
		}
	}
	switch {
	case t.failed.Missing == 0:
	case cause != t.cause:
		t.failed, t.pause = Take{}, 0
	case now >= t.until:
		t.failed = Take{}
	}
	if t.failed.Missing > seen.Missing {
		return t, t.failed
	}
	return t, seen
}

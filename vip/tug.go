package vip

import (
	"fmt"
	"time"
)

// Two programs that disagree about an address must not take the whole machine, nor
// fill the log, nor flood the network.
const (
	// readdPause is the least time between two re-adds of one address, tugPause that
	// while someone takes it away again and again.
	readdPause = 50 * time.Millisecond
	tugPause   = 200 * time.Millisecond
	// tugAfter removals within tugWindow are a tug of war. It is over when nobody has
	// removed the address for tugWindow.
	tugAfter  = 10
	tugWindow = time.Minute
	// tugQuiet is the number of removals within tugWindow that are told one by one, with
	// a burst of announcements for each.
	tugQuiet = 3
	// tugAnnounce is the least time between two announcements of an address that was
	// removed more often.
	tugAnnounce = time.Second
)

// A tug is what is known of the removals of one address by someone else. The zero
// value is one that nobody has removed. It is pure.
type tug struct {
	at    [tugAfter]time.Duration // the last removals, a ring
	total int                     // in this row, each within tugWindow of the one before
	since time.Duration           // of the first
	war   bool
	told  time.Duration // when the last line about the war was due
	sent  time.Duration // the last announcement after a re-add
}

// removed notes a removal. told reports whether it is worth a line of its own, began
// whether it makes a tug of war of it.
func (t *tug) removed(now time.Duration) (told, began bool) {
	t.settle(now)
	if t.total == 0 {
		t.since = now
	}
	t.at[t.total%tugAfter] = now
	t.total++
	if oldest := t.at[t.total%tugAfter]; !t.war && t.total >= tugAfter && now-oldest <= tugWindow {
		began = true
		t.war, t.told = true, now
	}
	return t.total <= tugQuiet, began
}

// last is the instant of the last removal; only if there is one.
func (t *tug) last() time.Duration { return t.at[(t.total-1)%tugAfter] }

// settle forgets a row that is over, and reports whether a tug of war ended with it.
func (t *tug) settle(now time.Duration) (ended bool) {
	if t.total == 0 || now-t.last() < tugWindow {
		return false
	}
	ended = t.war
	*t = tug{}
	return ended
}

// pause is the least time between two re-adds.
func (t *tug) pause() time.Duration {
	if t.war {
		return tugPause
	}
	return readdPause
}

// announce says how the address is to be announced after a re-add: with a whole
// burst, with one frame, or not at all.
func (t *tug) announce(now time.Duration) (burst, once bool) {
	switch {
	case t.total <= tugQuiet:
		return true, false
	case t.sent == 0 || now-t.sent >= tugAnnounce:
		t.sent = now
		return false, true
	}
	return false, false
}

// remind reports whether another line about a war that goes on is due.
func (t *tug) remind(now time.Duration) bool {
	if !t.war || now-t.told < tugWindow {
		return false
	}
	t.told = now
	return true
}

// why tells an operator, "" where there is no war.
func (t *tug) why() string {
	if !t.war {
		return ""
	}
	return fmt.Sprintf("someone else on this node removes it again and again: %d times in %s; it is put back at most every %s",
		t.total, (t.last() - t.since).Round(time.Second), tugPause)
}

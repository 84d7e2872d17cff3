package owner

import (
	"context"
	"time"
)

// Turns let the owners on one node hand over a few at a time: a hand-over is a chain of
// short waits, and many at once lengthen each other's. Nil turns are for one owner.
type Turns chan struct{}

// NewTurns makes turns for so many hand-overs at a time.
func NewTurns(n int) Turns { return make(Turns, n) }

// turnWait bounds how long an owner goes on owning because others hand over first.
const turnWait = time.Second

// turnLook is how often it looks whether its turn has come.
const turnLook = 2 * time.Millisecond

// take takes a turn, if there is one.
func (t Turns) take() bool {
	if t == nil {
		return true
	}
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

// await takes a turn, or goes on without one when ctx ends: false.
func (t Turns) await(ctx context.Context) bool {
	if t == nil {
		return true
	}
	select {
	case t <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// leave gives back a turn that was taken.
func (t Turns) leave() {
	if t != nil {
		<-t
	}
}

// mayHandOver tells whether this owner's turn has come. From now on it has one, which leave
// gives back, if taken says so; one that has waited for long goes without.
func (o *Owner) mayHandOver(now time.Duration) (may, taken bool) {
	if o.turns.take() {
		o.waitsFrom = 0
		return true, true
	}
	if o.waitsFrom == 0 {
		o.waitsFrom = now
	}
	if now-o.waitsFrom < turnWait {
		return false, false
	}
	o.waitsFrom = 0
	return true, false
}

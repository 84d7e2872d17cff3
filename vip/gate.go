package vip

import (
	"sync"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
)

// A Gate is the single writer of one group's guard deadline. All stores happen
// under one mutex and belong to one opening, so that a renewal that was
// calculated before Shut and arrives after it changes nothing.
//
// A term names one period of ownership. The Raft term is enough as long as
// evidence gathered before a Shut still counts after the next Open of the same
// term; a caller that gives voters their promise back while it stays leader must
// use a counter that also grows with each release.
type Gate struct {
	guard Guard
	group uint32
	now   func() time.Duration

	mu       sync.Mutex
	valid    func() // called when the gate turns valid, with mu held; nil for nobody
	open     bool
	ended    bool          // for good: the number may be another gate's
	term     uint64        // highest term opened
	deadline time.Duration // as stored in the guard
	openings uint64        // times the gate turned from not valid to valid
}

// NewGate returns a shut gate of the group and stores its deadline 0. A nil guard
// means NoGuard, a nil clock means boottime.Now.
func NewGate(guard Guard, group uint32, now func() time.Duration) *Gate {
	if guard == nil {
		guard = NoGuard{}
	}
	if now == nil {
		now = boottime.Now
	}
	guard.SetDeadline(group, 0)
	return &Gate{guard: guard, group: group, now: now}
}

// Group returns the group's number in the guard.
func (g *Gate) Group() uint32 { return g.group }

// onValid has f, which may not block, called each time the gate turns valid.
func (g *Gate) onValid(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.valid = f
}

// end shuts the gate for good. Nothing that comes later touches the group's deadline:
// its number may be another gate's by then.
func (g *Gate) end() {
	g.mu.Lock()
	g.open = false
	g.store(0)
	g.ended = true
	g.mu.Unlock()
	g.guard.Settle(g.group)
}

// Open permits renewals of this term. The deadline stays 0, and the gate not
// valid, until the first Renew. Open of the term that is open already changes
// nothing; a term lower than one opened before is refused and false returned.
func (g *Gate) Open(term uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if term < g.term || g.ended {
		return false
	}
	if g.open && term == g.term {
		return true
	}
	// A new term starts from nothing: the old one's deadline is not its evidence.
	g.store(0)
	g.open, g.term = true, term
	return true
}

// Renew moves the deadline to until. It is ignored unless the gate is open for
// exactly this term, and if it would move the deadline back. until is evidence
// plus lease length, never now plus lease length: a thawed process so stores an
// instant that has passed. It reports whether the deadline was stored.
func (g *Gate) Renew(term uint64, until time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.open || term != g.term || until <= g.deadline {
		return false
	}
	now := g.now()
	turnsValid := g.deadline <= now && until > now
	g.store(until)
	if turnsValid {
		g.openings++
		if g.valid != nil {
			g.valid()
		}
	}
	return true
}

// Shut has the kernel shut before it returns. Nothing opens the gate before the
// next Open.
func (g *Gate) Shut() { ShutAll(g) }

// ShutAll shuts gates at the same time. It waits for the kernel, if the guard has
// to, only when all deadlines are stored, and never longer than until the latest of
// them. A gate that somebody else has just shut is waited for, too.
func ShutAll(gates ...*Gate) {
	for _, g := range gates {
		g.mu.Lock()
		g.open = false
		g.store(0)
		g.mu.Unlock()
	}
	// Not under the mutex: whether the gate is valid is asked meanwhile.
	for _, g := range gates {
		g.guard.Settle(g.group)
	}
}

// Settle returns when the kernel obeys what was stored last: a gate that somebody
// else has just shut is silent then.
func (g *Gate) Settle() { g.guard.Settle(g.group) }

// Valid reports whether the group may answer and announce at now.
func (g *Gate) Valid(now time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open && g.deadline > now
}

// Deadline returns the stored deadline; 0 is shut.
func (g *Gate) Deadline() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.deadline
}

// Term returns the open term, and false if the gate is shut.
func (g *Gate) Term() (uint64, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.term, g.open
}

// state returns Valid(now) and the number of times the gate has turned valid. A
// changed number means that the gate was not valid for a while: a doubt.
func (g *Gate) state(now time.Duration) (valid bool, openings uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open && g.deadline > now, g.openings
}

// store is called with mu held.
func (g *Gate) store(deadline time.Duration) {
	if g.ended {
		return
	}
	g.deadline = deadline
	g.guard.SetDeadline(g.group, deadline)
}

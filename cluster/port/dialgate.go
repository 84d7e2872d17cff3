package port

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Each ownership group has connections of its own to each member, and a handshake is the
// most expensive thing that a node does. So those of all groups to one member are made one
// after the other, and a member that has just not been reached is left alone for a moment
// by all of them: else many groups that try again and again take the time that the leases
// need.
const (
	dialPauseMin = 50 * time.Millisecond
	dialPauseMax = time.Second
)

var errJustFailed = errors.New("it could not be reached a moment ago")

// A dialGate is that of one member.
type dialGate struct {
	busy  chan struct{} // holds a token while one dials
	pause time.Duration // after the last failure
	next  time.Time     // no attempt before
}

// dialGates are those of all members, by node ID.
type dialGates struct {
	now func() time.Time

	mu sync.Mutex
	of map[string]*dialGate
}

func (g *dialGates) gate(node string) *dialGate {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.of == nil {
		g.of = make(map[string]*dialGate)
	}
	if g.of[node] == nil {
		g.of[node] = &dialGate{busy: make(chan struct{}, 1)}
	}
	return g.of[node]
}

// through calls dial when it is its turn, within the context's time.
func (g *dialGates) through(ctx context.Context, node string, dial func() error) error {
	d := g.gate(node)
	select {
	case d.busy <- struct{}{}:
		defer func() { <-d.busy }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if g.now().Before(d.next) {
		return errJustFailed
	}
	err := dial()
	if err == nil {
		d.pause, d.next = 0, time.Time{}
		return nil
	}
	d.pause = min(max(2*d.pause, dialPauseMin), dialPauseMax)
	d.next = g.now().Add(d.pause)
	return err
}

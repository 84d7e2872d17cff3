package owner

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/vip"
)

// A Sink carries the lease of a group to its gates, on the goroutine that
// learnt of it: a renewal or a revocation never waits for the owner loop.
type Sink struct {
	gate Gate
	// lateness is by how much the guard may silence the addresses late; the lease
	// is shortened by it.
	lateness time.Duration
	// wake tells the owner loop that the lease has changed; one token is enough,
	// since the loop reads the newest state.
	wake chan struct{}
	// renewed is until when the gates were last told that the lease is valid.
	renewed atomic.Int64
	// latest is the latest end of a lease that it was told of, not shortened: after it
	// nobody needs to be silent for the sake of a promise.
	latest atomic.Int64
	// Release has the addresses off the kernel when it returns nil. It is set before
	// anything runs, and nil where the guard silences them with the gate.
	Release func(context.Context) error
}

// until is the end of the lease that the kernel knows, or of the last one.
func (s *Sink) until() time.Duration { return time.Duration(s.renewed.Load()) }

// NewSink makes the sink of a gate. lateness is by how much the guard may silence the
// addresses late.
func NewSink(gate Gate, lateness time.Duration) *Sink {
	return &Sink{gate: gate, lateness: lateness, wake: make(chan struct{}, 1)}
}

// Renew implements group.LeaseSink.
func (s *Sink) Renew(term uint64, until time.Duration) {
	if latest := s.latest.Load(); int64(until) > latest {
		s.latest.CompareAndSwap(latest, int64(until)) // one goroutine at a time renews
	}
	if open, ok := s.gate.Term(); !ok || open != term {
		// Not owning (yet): the loop decides whether to open the gate.
		s.Notify()
		return
	}
	s.renewed.Store(int64(until - s.lateness))
	s.gate.Renew(term, until-s.lateness)
}

// Revoke implements group.LeaseSink: when it returns, the kernel is silent. It
// waits for that where the guard is not immediate, until the end of the lease at the
// latest. Somebody else may have shut the gate and be waiting himself.
func (s *Sink) Revoke(term uint64) {
	defer s.Notify()
	open, ok := s.gate.Term()
	switch {
	case !ok:
		s.gate.Settle()
	case open <= term:
		s.gate.Shut()
	default:
		return
	}
	s.deleted()
}

// deleted waits until the addresses are off the kernel, where the guard does not
// silence them. If they cannot be deleted, their lifetime ends them with the lease.
func (s *Sink) deleted() {
	if s.Release == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(s.latest.Load())-boottime.Now())
	defer cancel()
	for {
		err := s.Release(ctx)
		if err == nil {
			return
		}
		pause := time.Millisecond // The owner's loop, which did not know yet, wanted them again.
		if !errors.Is(err, vip.ErrOwned) {
			pause = time.Hour // Nobody can delete them.
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// Notify has the owner's loop turn at once.
func (s *Sink) Notify() {
	select {
	case s.wake <- struct{}{}:
	default: // the loop has not taken the last token yet
	}
}

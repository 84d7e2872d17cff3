package daemon

import (
	"sync/atomic"
	"time"
)

// A leaseSink carries the lease of a group to its gates, on the goroutine that
// learnt of it: a renewal or a revocation never waits for the owner loop.
type leaseSink struct {
	gate *gates
	// lateness is by how much the guard may silence the addresses late; the lease
	// is shortened by it.
	lateness time.Duration
	// wake tells the owner loop that the lease has changed; one token is enough,
	// since the loop reads the newest state.
	wake chan struct{}
	// renewed is until when the gates were last told that the lease is valid.
	renewed atomic.Int64
}

// until is the end of the lease that the kernel knows, or of the last one.
func (s *leaseSink) until() time.Duration { return time.Duration(s.renewed.Load()) }

func newLeaseSink(gate *gates, lateness time.Duration) *leaseSink {
	return &leaseSink{gate: gate, lateness: lateness, wake: make(chan struct{}, 1)}
}

// Renew implements cluster.LeaseSink.
func (s *leaseSink) Renew(term uint64, until time.Duration) {
	if open, ok := s.gate.Term(); !ok || open != term {
		// Not owning (yet): the loop decides whether to open the gate.
		s.notify()
		return
	}
	s.renewed.Store(int64(until - s.lateness))
	s.gate.Renew(term, until-s.lateness)
}

// Revoke implements cluster.LeaseSink.
func (s *leaseSink) Revoke(term uint64) {
	if open, ok := s.gate.Term(); ok && open <= term {
		s.gate.Shut()
	}
	s.notify()
}

func (s *leaseSink) notify() {
	select {
	case s.wake <- struct{}{}:
	default: // the loop has not taken the last token yet
	}
}

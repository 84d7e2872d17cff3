package daemon

import (
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
}

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

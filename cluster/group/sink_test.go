package group

import (
	"sync"
	"time"
)

// recordingSink keeps the newest lease of a group.
type recordingSink struct {
	mu      sync.Mutex
	until   time.Duration
	term    uint64
	revoked uint64
}

func (s *recordingSink) Renew(term uint64, until time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if term > s.revoked {
		s.term, s.until = term, max(until, s.until)
	}
}

func (s *recordingSink) Revoke(term uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked = max(s.revoked, term)
	if s.term <= term {
		s.until = 0
	}
}

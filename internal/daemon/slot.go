package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vrrpcompat/vrrpnet"
)

// A slot is what one hybrid instance has of its own beneath the group's lease: a
// gate with a deadline of its own in the guard, and a keeper. So its addresses fall
// silent when VRRP takes them from this node, while those of other instances go on
// answering. An instance keeps its slot while the daemon lives.
type slot struct {
	name   string // of the instance
	gate   *vip.Gate
	keeper slotKeeper

	mu sync.Mutex
	// turn counts the virtual routers that had the say about this slot, losses how
	// often the present one told that it is not master.
	turn, losses uint64
	free         bool // no virtual router has a say
	master       bool // the one that has is master
}

// A slotKeeper is a keeper with its loop.
type slotKeeper interface {
	addressKeeper
	Run(context.Context) error
}

// rule gives the say to a new virtual router, which is not master yet, and returns
// what that tells its losses to. The gate stays as it is until then.
func (s *slot) rule() vrrpnet.Sink {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn++
	s.free = false
	return slotSink{s, s.turn}
}

// leave takes the say from any virtual router: Raft alone decides.
func (s *slot) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn++
	s.free, s.master = true, false
}

// A slotSink is told by one virtual router that it is not master.
type slotSink struct {
	slot *slot
	turn uint64
}

// Renew implements vrrpnet.Sink: the time for which VRRP gives an address counts
// for nothing beside the lease of Raft.
func (slotSink) Renew(time.Duration) {}

// Backup implements vrrpnet.Sink: when it returns, the slot is silent.
func (k slotSink) Backup(string) {
	s := k.slot
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.turn == s.turn {
		s.losses++
		s.master = false
		s.gate.Shut()
	}
}

// A moment is when a virtual router's state was asked for.
type moment struct{ turn, losses uint64 }

func (s *slot) moment() moment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return moment{s.turn, s.losses}
}

// mastered notes that the virtual router was master at some time since m, unless
// it has told otherwise in between: then nobody knows the order of the two.
func (s *slot) mastered(m moment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turn == m.turn && s.losses == m.losses {
		s.master = true
	}
}

// permitted reports whether VRRP permits the addresses here.
func (s *slot) permitted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free || s.master
}

// open opens the gate for the term if VRRP permits it. It and the loss of the
// mastership exclude each other: no gate opens after a loss. fresh says that the
// gate was not open for this term.
func (s *slot) open(term uint64) (opened, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.free && !s.master {
		return false, false
	}
	now, ok := s.gate.Term()
	return s.gate.Open(term), !ok || now != term
}

// gates are the gate of a group and those of its slots. A lease is renewed and
// revoked for all; a slot's own is opened when VRRP permits it.
type gates struct {
	main *vip.Gate

	mu    sync.Mutex
	slots []*slot // replaced, not changed
}

func (g *gates) all() []*slot {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.slots
}

func (g *gates) add(s *slot) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.slots = append(g.slots[:len(g.slots):len(g.slots)], s)
}

// Term returns the open term of the group, and false if its gate is shut.
func (g *gates) Term() (uint64, bool) { return g.main.Term() }

// Open opens the group's own gate.
func (g *gates) Open(term uint64) bool { return g.main.Open(term) }

// Renew renews whatever is open for the term.
func (g *gates) Renew(term uint64, until time.Duration) {
	g.main.Renew(term, until)
	for _, s := range g.all() {
		s.gate.Renew(term, until)
	}
}

// Shut silences everything before it returns.
func (g *gates) Shut() {
	g.main.Shut()
	for _, s := range g.all() {
		s.gate.Shut()
	}
}

package vrrp

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vrrpcompat/vrrpnet"
)

// A slot is what one hybrid instance has of its own beneath the group's lease: a
// gate with a deadline of its own in the guard, and the addresses beneath it. So they
// fall silent when VRRP takes them from this node, while those of other instances go on
// answering.
type slot struct {
	name    string // of the instance
	gate    *vip.Gate
	holding Holding
	// lease: the virtual router's own lease is the gate's, as there is no other.
	lease bool
	// slow: no guard silences the addresses with the gate, so that they have to be
	// deleted before anybody is told that they are free.
	slow bool

	mu sync.Mutex
	// turn counts the virtual routers that had the say about this slot, losses how
	// often one that had it told that it is not master.
	turn, losses uint64
	free         bool // no virtual router has a say
	master       bool // the one that has is master
}

// attach gives the say to a new virtual router and returns what that tells its losses
// to. With keep, what is permitted now stays so until the first loss.
func (s *slot) attach(keep bool) vrrpnet.Sink {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn++
	s.master = keep && (s.master || s.free)
	s.free = false
	if !s.master {
		s.gate.Shut()
	}
	return slotSink{s, s.turn}
}

// detach takes the say from any virtual router: Raft alone decides.
func (s *slot) detach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn++
	s.free, s.master = true, false
}

// revoke silences the slot until a virtual router is seen to be master.
func (s *slot) revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free, s.master = false, false
	s.gate.Shut()
}

// A slotSink is told by one virtual router that it is not master.
type slotSink struct {
	slot *slot
	turn uint64
}

// Renew implements vrrpnet.Sink. Beside the lease of Raft the time that VRRP gives
// counts for nothing.
func (k slotSink) Renew(until time.Duration) {
	if !k.slot.lease {
		return
	}
	if term, ok := k.slot.gate.Term(); ok {
		k.slot.gate.Renew(term, until)
	}
}

// deleteWithin bounds how long a loss waits for addresses to be deleted where no
// guard silences them.
const deleteWithin = 100 * time.Millisecond

// Backup implements vrrpnet.Sink: when it returns, the slot is silent.
func (k slotSink) Backup(string) {
	if !k.lose() || !k.slot.slow {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), deleteWithin)
	defer cancel()
	_ = k.slot.holding.Release(ctx) // the keeper goes on, and says what it cannot delete
}

func (k slotSink) lose() bool {
	s := k.slot
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.turn != s.turn {
		return false
	}
	s.losses++
	s.master = false
	s.gate.Shut()
	return true
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

// Gates are the gate of a group and those of its slots. A lease is renewed and
// revoked for all; a slot's own is opened when VRRP permits it.
type Gates struct {
	main *vip.Gate

	mu    sync.Mutex
	slots []*slot // replaced, not changed
}

// NewGates makes the gates of a group that has no slot yet.
func NewGates(main *vip.Gate) *Gates { return &Gates{main: main} }

func (g *Gates) all() []*slot {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.slots
}

func (g *Gates) add(s *slot) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.slots = append(g.slots[:len(g.slots):len(g.slots)], s)
}

func (g *Gates) remove(s *slot) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.slots = slices.DeleteFunc(slices.Clone(g.slots), func(x *slot) bool { return x == s })
}

// Term returns the open term of the group, and false if its gate is shut.
func (g *Gates) Term() (uint64, bool) { return g.main.Term() }

// Open opens the group's own gate.
func (g *Gates) Open(term uint64) bool { return g.main.Open(term) }

// Renew renews whatever is open for the term.
func (g *Gates) Renew(term uint64, until time.Duration) {
	g.main.Renew(term, until)
	for _, s := range g.all() {
		s.gate.Renew(term, until)
	}
}

// Shut silences everything before it returns.
func (g *Gates) Shut() { vip.ShutAll(g.each()...) }

// Settle returns when the kernel obeys what was stored last.
func (g *Gates) Settle() {
	for _, gate := range g.each() {
		gate.Settle()
	}
}

func (g *Gates) each() []*vip.Gate {
	out := []*vip.Gate{g.main}
	for _, s := range g.all() {
		out = append(out, s.gate)
	}
	return out
}

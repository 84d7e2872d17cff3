package vrrp

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/raftvip/raftvip/vip"
)

// fakeKeeper has what was Set, at once, and what it still holds.
type fakeKeeper struct {
	mu       sync.Mutex
	wanted   vip.Wanted
	holds    []vip.Address
	announce []string
	released int
}

func (k *fakeKeeper) Set(w vip.Wanted) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wanted = w
}

func (k *fakeKeeper) Status() vip.Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	st := vip.Status{Own: k.wanted.Own, Applied: true}
	for _, a := range k.wanted.Addresses {
		st.Addresses = append(st.Addresses, vip.AddressStatus{Address: a, Wanted: true, Present: k.wanted.Own})
	}
	for _, a := range k.holds {
		st.Addresses = append(st.Addresses, vip.AddressStatus{Address: a})
	}
	return st
}

func (k *fakeKeeper) Release(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.released++
	k.wanted.Own = false
	return nil
}

func (k *fakeKeeper) Announce(reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.announce = append(k.announce, reason)
}

func (k *fakeKeeper) Serves(int, netip.Addr) bool        { return false }
func (k *fakeKeeper) Defend(int, netip.Addr)             {}
func (k *fakeKeeper) WaitReleased(context.Context) error { return nil }
func (k *fakeKeeper) Changed() <-chan struct{}           { return nil }
func (k *fakeKeeper) Run(ctx context.Context) error      { <-ctx.Done(); return nil }

func (k *fakeKeeper) list() (own bool, addrs []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range k.wanted.Addresses {
		addrs = append(addrs, a.Prefix.Addr().String())
	}
	return k.wanted.Own, addrs
}

func newSlot(name string) (*slot, *fakeKeeper) {
	k := &fakeKeeper{}
	return &slot{name: name, gate: vip.NewGate(nil, 1, func() time.Duration { return 0 }), keeper: k}, k
}

// TestSlot: a gate opens only for a router that is master, and not for one that
// has told its loss since it was asked.
func TestSlot(t *testing.T) {
	s, _ := newSlot("V")
	if opened, _ := s.open(1); opened {
		t.Error("opened before anybody has a say")
	}
	sink := s.rule(false)
	m := s.moment()
	s.mastered(m)
	if opened, fresh := s.open(1); !opened || !fresh {
		t.Error("a master does not open")
	}
	if opened, fresh := s.open(1); !opened || fresh {
		t.Error("open twice is the same")
	}
	s.gate.Renew(1, time.Second)
	m = s.moment()
	sink.Backup("lost")
	if s.gate.Valid(0) || s.permitted() {
		t.Error("not silent when the loss was told")
	}
	s.mastered(m) // what was seen before the loss
	if opened, _ := s.open(1); opened {
		t.Error("opened by an old look")
	}
	s.mastered(s.moment())
	if opened, _ := s.open(2); !opened {
		t.Error("not opened after it is master again")
	}
	if sink.Renew(time.Hour); s.gate.Deadline() != 0 {
		t.Error("VRRP moved the deadline of a lease of Raft")
	}
}

// TestSlotChangesHands: what an old router says does not count, and what was open
// stays open only where that was asked for.
func TestSlotChangesHands(t *testing.T) {
	s, _ := newSlot("V")
	old := s.rule(false)
	s.mastered(s.moment())
	s.open(1)
	s.gate.Renew(1, time.Second)
	next := s.rule(true)
	old.Backup("ended")
	if !s.permitted() || !s.gate.Valid(0) {
		t.Error("the old router's end closed it")
	}
	next.Backup("started")
	if s.permitted() || s.gate.Valid(0) {
		t.Error("the new router's start did not")
	}
	s.mastered(s.moment())
	s.open(1)
	s.gate.Renew(1, time.Second)
	s.rule(false)
	if s.permitted() || s.gate.Valid(0) {
		t.Error("open without anybody who is master")
	}
	s.leave()
	if opened, _ := s.open(1); !opened {
		t.Error("without VRRP Raft alone decides")
	}
	s.gate.Renew(1, time.Second)
	s.rule(true)
	if !s.permitted() || !s.gate.Valid(0) {
		t.Error("closed though it was to stay")
	}
	s.bar()
	if s.permitted() || s.gate.Valid(0) {
		t.Error("open though barred")
	}
}

// TestSlotWithoutGuard: where no guard silences, the addresses are deleted before
// the loss has been told; a lease of VRRP itself is the gate's.
func TestSlotWithoutGuard(t *testing.T) {
	s, k := newSlot("V")
	s.slow, s.lease = true, true
	sink := s.rule(false)
	s.mastered(s.moment())
	s.open(1)
	if sink.Renew(time.Second); !s.gate.Valid(0) {
		t.Error("an advertisement that was sent is no lease")
	}
	if sink.Backup("lost"); k.released != 1 || s.gate.Valid(0) {
		t.Errorf("released %d times, open %v", k.released, s.gate.Valid(0))
	}
	s.rule(false)
	if sink.Backup("an old one"); k.released != 1 {
		t.Error("an old router's loss deletes")
	}
}

func TestGates(t *testing.T) {
	a, _ := newSlot("A")
	b, _ := newSlot("B")
	g := &Gates{main: vip.NewGate(nil, 0, func() time.Duration { return 0 })}
	g.add(a)
	g.add(b)
	g.Open(3)
	a.rule(false)
	a.mastered(a.moment())
	a.open(3)
	g.Renew(3, time.Second)
	if !g.main.Valid(0) || !a.gate.Valid(0) || b.gate.Valid(0) {
		t.Error("a renewal is for whatever is open")
	}
	g.Shut()
	if g.main.Valid(0) || a.gate.Valid(0) {
		t.Error("shut is for all")
	}
	if g.Renew(3, 2*time.Second); a.gate.Valid(0) {
		t.Error("renewed after it was shut")
	}
}

func address(s string) vip.Address {
	return vip.Address{Prefix: netip.MustParsePrefix(s), Link: "eth0"}
}

// TestShares: each keeper gets its own part, a slot's only while VRRP permits it,
// and an address changes keepers only when the old one has let go.
func TestShares(t *testing.T) {
	s, slotKeeper := newSlot("V")
	main := &fakeKeeper{}
	refreshed := 0
	k := &Keepers{main: main, gates: &Gates{main: vip.NewGate(nil, 0, nil)}, refresh: func() { refreshed++ }}
	all := vip.Wanted{Own: true, Term: 1, Addresses: []vip.Address{address("10.0.0.1/24"), address("10.0.0.2/24")}}
	check := func(when string, mainWants []string, slotOwns bool, slotWants []string) {
		t.Helper()
		k.Set(all)
		_, m := main.list()
		own, v := slotKeeper.list()
		if !slices.Equal(m, mainWants) || own != slotOwns || !slices.Equal(v, slotWants) {
			t.Errorf("%s: main has %v, the slot %v %v", when, m, own, v)
		}
	}
	both := []string{"10.0.0.1", "10.0.0.2"}
	check("no slots", both, false, nil)

	k.gates.add(s)
	k.assign(map[netip.Addr]*slot{netip.MustParseAddr("10.0.0.2"): s})
	sink := s.rule(false)
	check("the main keeper has it yet", both[:1], false, nil)
	check("now it is free", both[:1], false, both[1:])
	if !k.Waits(netip.MustParseAddr("10.0.0.2")) || k.Waits(netip.MustParseAddr("10.0.0.1")) {
		t.Error("only the slot's address waits for VRRP")
	}
	s.mastered(s.moment())
	check("VRRP permits it", both[:1], true, both[1:])
	check("again", both[:1], true, both[1:])
	if refreshed != 1 {
		t.Errorf("the lease was asked for %d times, should be once", refreshed)
	}
	if k.Announce("doubt"); len(main.announce) != 1 || len(slotKeeper.announce) != 1 {
		t.Error("a doubt is about all")
	}
	if st := k.Status(); len(st.Addresses) != 2 {
		t.Errorf("status has %d addresses", len(st.Addresses))
	}
	sink.Backup("lost")
	check("VRRP has taken it", both[:1], false, both[1:])
	s.mastered(s.moment())
	all.Own = false
	check("not the owner", both[:1], false, both[1:])

	// Somebody whom no list names any more has it.
	all.Own = true
	slotKeeper.holds = []vip.Address{address("10.0.0.3/24")}
	all.Addresses = append(all.Addresses, address("10.0.0.3/24"))
	check("held by the slot", both[:1], true, both[1:])
	slotKeeper.holds = nil
	check("free again", []string{"10.0.0.1", "10.0.0.3"}, true, both[1:])
}

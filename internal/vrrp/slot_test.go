package vrrp

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftvip/raftvip/vip"
	"github.com/raftvip/raftvip/vip/viptest"
)

// fakeHolding has what was Set, at once.
type fakeHolding struct {
	mu       sync.Mutex
	wanted   vip.Wanted
	announce []string
	released int
	closed   bool
	release  func(context.Context) error // if not nil
}

func (k *fakeHolding) Set(w vip.Wanted) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wanted = w
}

func (k *fakeHolding) Status() vip.Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	st := vip.Status{Own: k.wanted.Own, Applied: true}
	for _, a := range k.wanted.Addresses {
		st.Addresses = append(st.Addresses, vip.AddressStatus{Address: a, Wanted: true, Present: k.wanted.Own})
	}
	return st
}

func (k *fakeHolding) Release(ctx context.Context) error {
	if k.release != nil {
		return k.release(ctx)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.released++
	k.wanted.Own = false
	return nil
}

func (k *fakeHolding) Announce(reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.announce = append(k.announce, reason)
}

func (k *fakeHolding) WaitReleased(context.Context) error { return nil }
func (k *fakeHolding) Changed() <-chan struct{}           { return nil }
func (k *fakeHolding) Close(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	return nil
}

func (k *fakeHolding) list() (own bool, addrs []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range k.wanted.Addresses {
		addrs = append(addrs, a.Prefix.Addr().String())
	}
	return k.wanted.Own, addrs
}

func newSlot(name string) (*slot, *fakeHolding) {
	k := &fakeHolding{}
	return &slot{name: name, gate: vip.NewGate(nil, 1, func() time.Duration { return 0 }), holding: k}, k
}

// TestSlot: a gate opens only for a router that is master, and not for one that
// has told its loss since it was asked.
func TestSlot(t *testing.T) {
	s, _ := newSlot("V")
	if opened, _ := s.open(1); opened {
		t.Error("opened before anybody has a say")
	}
	sink := s.attach(false)
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
	old := s.attach(false)
	s.mastered(s.moment())
	s.open(1)
	s.gate.Renew(1, time.Second)
	next := s.attach(true)
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
	s.attach(false)
	if s.permitted() || s.gate.Valid(0) {
		t.Error("open without anybody who is master")
	}
	s.detach()
	if opened, _ := s.open(1); !opened {
		t.Error("without VRRP Raft alone decides")
	}
	s.gate.Renew(1, time.Second)
	s.attach(true)
	if !s.permitted() || !s.gate.Valid(0) {
		t.Error("closed though it was to stay")
	}
	s.revoke()
	if s.permitted() || s.gate.Valid(0) {
		t.Error("open though barred")
	}
}

// TestSlotWithoutGuard: where no guard silences, the addresses are deleted before
// the loss has been told; a lease of VRRP itself is the gate's.
func TestSlotWithoutGuard(t *testing.T) {
	s, k := newSlot("V")
	s.slow, s.lease = true, true
	sink := s.attach(false)
	s.mastered(s.moment())
	s.open(1)
	if sink.Renew(time.Second); !s.gate.Valid(0) {
		t.Error("an advertisement that was sent is no lease")
	}
	if sink.Backup("lost"); k.released != 1 || s.gate.Valid(0) {
		t.Errorf("released %d times, open %v", k.released, s.gate.Valid(0))
	}
	s.attach(false)
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
	a.attach(false)
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

// TestHoldings: each Holding gets its own part, a slot's only while VRRP permits it.
func TestHoldings(t *testing.T) {
	s, slotHolding := newSlot("V")
	main := &fakeHolding{}
	refreshed := 0
	hs := NewHoldings(&Gates{main: vip.NewGate(nil, 0, nil)}, main, func() { refreshed++ })
	all := vip.Wanted{Own: true, Term: 1, Addresses: []vip.Address{address("10.0.0.1/24"), address("10.0.0.2/24")}}
	check := func(when string, mainWants []string, slotOwns bool, slotWants []string) {
		t.Helper()
		hs.Set(all)
		_, m := main.list()
		own, v := slotHolding.list()
		if !slices.Equal(m, mainWants) || own != slotOwns || !slices.Equal(v, slotWants) {
			t.Errorf("%s: main has %v, the slot %v %v", when, m, own, v)
		}
	}
	both := []string{"10.0.0.1", "10.0.0.2"}
	check("no slots", both, false, nil)

	hs.gates.add(s)
	hs.assign(map[netip.Addr]*slot{netip.MustParseAddr("10.0.0.2"): s})
	sink := s.attach(false)
	check("a slot has the other", both[:1], false, both[1:])
	if !hs.Waits(netip.MustParseAddr("10.0.0.2")) || hs.Waits(netip.MustParseAddr("10.0.0.1")) {
		t.Error("only the slot's address waits for VRRP")
	}
	s.mastered(s.moment())
	check("VRRP permits it", both[:1], true, both[1:])
	check("again", both[:1], true, both[1:])
	if refreshed != 1 {
		t.Errorf("the lease was asked for %d times, should be once", refreshed)
	}
	if hs.Announce("doubt"); len(main.announce) != 1 || len(slotHolding.announce) != 1 {
		t.Error("a doubt is about all")
	}
	if st := hs.Status(); len(st.Addresses) != 2 {
		t.Errorf("status has %d addresses", len(st.Addresses))
	}
	sink.Backup("lost")
	check("VRRP has taken it", both[:1], false, both[1:])
	s.mastered(s.moment())
	all.Own = false
	check("not the owner", both[:1], false, both[1:])
}

// TestHoldingsChangeHands: an address that becomes a slot's, or the group's own again,
// is on the kernel all the time, and the slot's gate alone says whether it answers.
func TestHoldingsChangeHands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trace := &viptest.Trace{}
		host, guard := viptest.NewHost(trace, "eth0"), &viptest.Guard{Trace: trace}
		start := time.Now()
		now := func() time.Duration { return time.Hour + time.Since(start) }
		keeper := vip.NewKeeper(vip.KeeperConfig{Host: host, Announcer: &viptest.Announcer{}, Guard: guard, Now: now})
		main := vip.NewGate(guard, 0, now)
		holding := keeper.Hold(main)
		gates := NewGates(main)
		gate := vip.NewGate(guard, 1, now)
		s := &slot{name: "V", gate: gate, holding: holding.Beside(gate)}
		hs := NewHoldings(gates, holding, func() { gates.Renew(1, now()+time.Minute) })
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- keeper.Run(ctx) }()

		gates.Open(1)
		gates.Renew(1, now()+time.Minute)
		all := vip.Wanted{Own: true, Term: 1, Addresses: []vip.Address{address("10.0.0.1/24"), address("10.0.0.2/24")}}
		turn := func() {
			hs.Set(all)
			synctest.Wait()
		}
		turn()
		second := netip.MustParseAddr("10.0.0.2")
		expect := func(when string, group uint32, on bool, steps ...string) {
			t.Helper()
			if got := trace.Take(); !slices.Equal(got, steps) {
				t.Errorf("%s: %q, want %q", when, got, steps)
			}
			if g, ok := guard.Group(second); ok != on || ok && g != group {
				t.Errorf("%s: armed %v for group %d", when, ok, g)
			}
			if has := slices.Contains(host.Has("eth0"), "10.0.0.2/24"); has != on {
				t.Errorf("%s: on the kernel: %v", when, has)
			}
		}
		expect("the group's own", 0, true, "arm 10.0.0.1,10.0.0.2", "add 10.0.0.1/24 eth0", "add 10.0.0.2/24 eth0")

		gates.add(s)
		s.attach(true)
		s.mastered(s.moment())
		hs.assign(map[netip.Addr]*slot{second: s})
		changed := hs.Changed()
		turn()
		expect("the slot's, which VRRP permits", 1, true, "move 0 1 10.0.0.2")
		select {
		case <-changed:
		default:
			t.Error("the group is not told what changes in a slot")
		}
		hs.assign(nil)
		turn()
		expect("the group's own again", 0, true, "move 1 0 10.0.0.2")
		s.revoke()
		hs.assign(map[netip.Addr]*slot{second: s})
		turn()
		expect("the slot's, which VRRP does not permit", 1, false, "move 0 1 10.0.0.2", "delete 10.0.0.2/24 eth0", "disarm 10.0.0.2")
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestRelease: one that cannot delete its addresses holds up nobody else.
func TestRelease(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stuck, other := errors.New("still present"), make(chan struct{})
	s, second := newSlot("V")
	first := &fakeHolding{release: func(ctx context.Context) error {
		select {
		case <-other:
		case <-ctx.Done():
			t.Error("the other one was not asked meanwhile")
		}
		return stuck
	}}
	second.release = func(context.Context) error { close(other); return vip.ErrOwned }
	hs := NewHoldings(NewGates(vip.NewGate(nil, 0, nil)), first, nil)
	hs.gates.add(s)
	if err := hs.Release(ctx); !errors.Is(err, stuck) || !errors.Is(err, vip.ErrOwned) {
		t.Errorf("%v", err)
	}
	first.release, second.release = nil, nil
	if err := hs.Release(ctx); err != nil {
		t.Error(err)
	}
}

package vrrp

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"github.com/raftvip/raftvip/vip"
)

// Keepers are what puts the addresses of a group up: one keeper for what moves with the group alone,
// and that of each slot.
type Keepers struct {
	main  Keeper
	gates *Gates
	// refresh tells a gate that has just been opened the present lease.
	refresh func()

	mu sync.Mutex
	of map[netip.Addr]*slot // whose an address is; nil: the group's own
}

// NewKeepers makes the keeper of a group. main puts up what moves with the group alone;
// refresh tells a gate that has just been opened the present lease.
func NewKeepers(gates *Gates, main Keeper, refresh func()) *Keepers {
	return &Keepers{main: main, gates: gates, refresh: refresh}
}

// assign says which addresses belong to slots. What changes hands follows at the
// next Set.
func (k *Keepers) assign(of map[netip.Addr]*slot) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.of = of
}

func (k *Keepers) owners() map[netip.Addr]*slot {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.of
}

// Set divides what is wanted. A slot is owned only while VRRP permits it, too.
func (k *Keepers) Set(w vip.Wanted) {
	slots := k.gates.all()
	if len(slots) == 0 {
		k.main.Set(w)
		return
	}
	of, held := k.owners(), k.held(slots)
	lists := make(map[*slot][]vip.Address)
	for _, a := range w.Addresses {
		ip := a.Prefix.Addr()
		s := of[ip]
		if by, ok := held[ip]; ok && !by[s] {
			// Another keeper has it yet: only when that one has let go, also of its guard
			// entry, can this one take it. It wakes the owner when it has.
			continue
		}
		lists[s] = append(lists[s], a)
	}
	set := func(s *slot, keeper Keeper, own bool) {
		part := w
		part.Own, part.Addresses = own, lists[s]
		keeper.Set(part)
	}
	set(nil, k.main, w.Own)
	fresh := false
	for _, s := range slots {
		opened := false
		if w.Own {
			var first bool
			opened, first = s.open(w.Term)
			fresh = fresh || first
		}
		if !opened {
			s.gate.Shut()
		}
		set(s, s.keeper, opened)
	}
	if fresh {
		k.refresh()
	}
}

// held says which keepers still have to do with an address. An address that its
// future keeper knows already is that one's.
func (k *Keepers) held(slots []*slot) map[netip.Addr]map[*slot]bool {
	by := make(map[netip.Addr]map[*slot]bool)
	note := func(s *slot, keeper Keeper) {
		for _, a := range keeper.Status().Addresses {
			ip := a.Prefix.Addr()
			if by[ip] == nil {
				by[ip] = make(map[*slot]bool)
			}
			by[ip][s] = true
		}
	}
	note(nil, k.main)
	for _, s := range slots {
		note(s, s.keeper)
	}
	return by
}

// WaitReleased waits for all keepers.
func (k *Keepers) WaitReleased(ctx context.Context) error {
	errs := []error{k.main.WaitReleased(ctx)}
	for _, s := range k.gates.all() {
		errs = append(errs, s.keeper.WaitReleased(ctx))
	}
	return errors.Join(errs...)
}

// Slots returns the keepers of the instances that have one of their own.
func (k *Keepers) Slots() []SlotKeeper {
	var out []SlotKeeper
	for _, s := range k.gates.all() {
		out = append(out, s.keeper)
	}
	return out
}

// Divided reports whether some addresses have keepers of their own, whose status changes
// without a word from Changed.
func (k *Keepers) Divided() bool { return len(k.gates.all()) > 0 }

// Status is that of all keepers together.
func (k *Keepers) Status() vip.Status {
	st := k.main.Status()
	for _, s := range k.gates.all() {
		more := s.keeper.Status()
		st.Applied = st.Applied && more.Applied
		st.NotRemoved += more.NotRemoved
		st.Addresses = append(st.Addresses, more.Addresses...)
		st.Err = errors.Join(st.Err, more.Err)
	}
	return st
}

// Changed is the main keeper's; those of the slots wake the owner themselves.
func (k *Keepers) Changed() <-chan struct{} { return k.main.Changed() }

// Announce passes the doubt on to all.
func (k *Keepers) Announce(reason string) {
	k.main.Announce(reason)
	for _, s := range k.gates.all() {
		s.keeper.Announce(reason)
	}
}

// Serves reports whether one of the keepers serves the address on the link.
func (k *Keepers) Serves(link int, a netip.Addr) bool {
	if k.main.Serves(link, a) {
		return true
	}
	for _, s := range k.gates.all() {
		if s.keeper.Serves(link, a) {
			return true
		}
	}
	return false
}

// Defend has the keeper that serves the address answer a claim of it.
func (k *Keepers) Defend(link int, a netip.Addr) {
	k.main.Defend(link, a)
	for _, s := range k.gates.all() {
		s.keeper.Defend(link, a)
	}
}

// Waits reports whether an address stays down because VRRP has not given it to
// this node.
func (k *Keepers) Waits(ip netip.Addr) bool {
	s := k.owners()[ip]
	return s != nil && !s.permitted()
}

// A Keeper is what puts the addresses up and takes them down: a vip.Keeper.
type Keeper interface {
	Set(vip.Wanted)
	WaitReleased(context.Context) error
	Status() vip.Status
	Changed() <-chan struct{}
	Announce(reason string)
	Serves(link int, a netip.Addr) bool
	Defend(link int, a netip.Addr)
}

// A NoKeeper is that of a witness, which never has addresses.
type NoKeeper struct{}

func (NoKeeper) Set(vip.Wanted)                     {}
func (NoKeeper) WaitReleased(context.Context) error { return nil }
func (NoKeeper) Status() vip.Status                 { return vip.Status{Applied: true} }
func (NoKeeper) Changed() <-chan struct{}           { return nil }
func (NoKeeper) Announce(string)                    {}
func (NoKeeper) Serves(int, netip.Addr) bool        { return false }
func (NoKeeper) Defend(int, netip.Addr)             {}

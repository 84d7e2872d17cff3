package daemon

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"github.com/raftvip/raftvip/vip"
)

// shares is the keeper of a group: one keeper for what moves with the group alone,
// and that of each slot.
type shares struct {
	main  addressKeeper
	gates *gates
	// refresh tells a gate that has just been opened the present lease.
	refresh func()

	mu sync.Mutex
	of map[netip.Addr]*slot // whose an address is; nil: the group's own
}

// newKeepers makes the keeper of a group. main puts up what moves with the group alone;
// refresh tells a gate that has just been opened the present lease.
func newKeepers(gates *gates, main addressKeeper, refresh func()) *shares {
	return &shares{main: main, gates: gates, refresh: refresh}
}

// assign says which addresses belong to slots. What changes hands follows at the
// next Set.
func (k *shares) assign(of map[netip.Addr]*slot) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.of = of
}

func (k *shares) owners() map[netip.Addr]*slot {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.of
}

// Set divides what is wanted. A slot is owned only while VRRP permits it, too.
func (k *shares) Set(w vip.Wanted) {
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
	set := func(s *slot, keeper addressKeeper, own bool) {
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
func (k *shares) held(slots []*slot) map[netip.Addr]map[*slot]bool {
	by := make(map[netip.Addr]map[*slot]bool)
	note := func(s *slot, keeper addressKeeper) {
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
func (k *shares) WaitReleased(ctx context.Context) error {
	errs := []error{k.main.WaitReleased(ctx)}
	for _, s := range k.gates.all() {
		errs = append(errs, s.keeper.WaitReleased(ctx))
	}
	return errors.Join(errs...)
}

// releaseSlots waits until the addresses of the slots are off the kernel; it fails with
// vip.ErrOwned where they are wanted.
func (k *shares) releaseSlots(ctx context.Context) error {
	var errs []error
	for _, s := range k.gates.all() {
		errs = append(errs, s.keeper.Release(ctx))
	}
	return errors.Join(errs...)
}

// divided reports whether some addresses have keepers of their own, whose status changes
// without a word from Changed.
func (k *shares) divided() bool { return len(k.gates.all()) > 0 }

// Status is that of all keepers together.
func (k *shares) Status() vip.Status {
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
func (k *shares) Changed() <-chan struct{} { return k.main.Changed() }

// Announce passes the doubt on to all.
func (k *shares) Announce(reason string) {
	k.main.Announce(reason)
	for _, s := range k.gates.all() {
		s.keeper.Announce(reason)
	}
}

// Serves reports whether one of the keepers serves the address on the link.
func (k *shares) Serves(link int, a netip.Addr) bool {
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
func (k *shares) Defend(link int, a netip.Addr) {
	k.main.Defend(link, a)
	for _, s := range k.gates.all() {
		s.keeper.Defend(link, a)
	}
}

// waits reports whether an address stays down because VRRP has not given it to
// this node.
func (k *shares) waits(ip netip.Addr) bool {
	s := k.owners()[ip]
	return s != nil && !s.permitted()
}

// addressKeeper is what puts the addresses up and takes them down: a vip.Keeper.
type addressKeeper interface {
	Set(vip.Wanted)
	WaitReleased(context.Context) error
	Status() vip.Status
	Changed() <-chan struct{}
	Announce(reason string)
	Serves(link int, a netip.Addr) bool
	Defend(link int, a netip.Addr)
}

// noKeeper is that of a witness, which never has addresses.
type noKeeper struct{}

func (noKeeper) Set(vip.Wanted) {}

func (noKeeper) WaitReleased(context.Context) error { return nil }

func (noKeeper) Status() vip.Status { return vip.Status{Applied: true} }

func (noKeeper) Changed() <-chan struct{} { return nil }

func (noKeeper) Announce(string) {}

func (noKeeper) Serves(int, netip.Addr) bool { return false }

func (noKeeper) Defend(int, netip.Addr) {}

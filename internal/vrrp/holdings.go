package vrrp

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"github.com/raftvip/raftvip/vip"
)

// A Holding is what puts addresses up beneath one gate, and takes them down: a
// vip.Holding.
type Holding interface {
	Set(vip.Wanted)
	WaitReleased(context.Context) error
	Release(context.Context) error
	Status() vip.Status
	Changed() <-chan struct{}
	Announce(reason string)
	Close(context.Context) error
}

// Holdings are what puts the addresses of an ownership group up: a Holding for what moves
// with the group alone, and that of each slot.
type Holdings struct {
	main  Holding
	gates *Gates
	// refresh tells a gate that has just been opened the present lease.
	refresh func()

	mu sync.Mutex
	of map[netip.Addr]*slot // whose an address is; nil: the group's own
}

// NewHoldings makes the Holdings of a group. main puts up what moves with the group
// alone, and tells of the changes of all; refresh tells a gate that has just been opened
// the present lease.
func NewHoldings(gates *Gates, main Holding, refresh func()) *Holdings {
	return &Holdings{main: main, gates: gates, refresh: refresh}
}

// assign says which addresses belong to slots. What changes hands follows at the
// next Set.
func (hs *Holdings) assign(of map[netip.Addr]*slot) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.of = of
}

func (hs *Holdings) owners() map[netip.Addr]*slot {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	return hs.of
}

// all returns all Holdings, that of the group first.
func (hs *Holdings) all() []Holding {
	out := []Holding{hs.main}
	for _, s := range hs.gates.all() {
		out = append(out, s.holding)
	}
	return out
}

// Set divides what is wanted. A slot is owned only while VRRP permits it, too.
func (hs *Holdings) Set(w vip.Wanted) {
	slots := hs.gates.all()
	if len(slots) == 0 {
		hs.main.Set(w)
		return
	}
	of := hs.owners()
	lists := make(map[*slot][]vip.Address)
	for _, a := range w.Addresses {
		s := of[a.Prefix.Addr()]
		lists[s] = append(lists[s], a)
	}
	part := func(s *slot, own bool) vip.Wanted {
		part := w
		part.Own, part.Addresses = own, lists[s]
		return part
	}
	wants := []vip.Wanted{part(nil, w.Own)}
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
		wants = append(wants, part(s, opened))
	}
	all := []Holding{hs.main}
	for _, s := range slots {
		all = append(all, s.holding)
	}
	if fresh { // before an address may become one's whose gate has just been opened
		hs.refresh()
	}
	setAll(all, wants)
}

// setAll gives all of them what they are to want at the same instant, so that an address
// that becomes another's stays where it is.
func setAll(all []Holding, wants []vip.Wanted) {
	var wanted []vip.Want
	for i, h := range all {
		if h, ok := h.(*vip.Holding); ok {
			wanted = append(wanted, vip.Want{Holding: h, Wanted: wants[i]})
			continue
		}
		h.Set(wants[i])
	}
	vip.SetAll(wanted...)
}

// WaitReleased waits for all Holdings.
func (hs *Holdings) WaitReleased(ctx context.Context) error {
	var errs []error
	for _, h := range hs.all() {
		errs = append(errs, h.WaitReleased(ctx))
	}
	return errors.Join(errs...)
}

// Release releases all at the same time: one that cannot delete its addresses does not
// hold up the others.
func (hs *Holdings) Release(ctx context.Context) error {
	all := hs.all()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, h := range all {
		wg.Go(func() { errs[i] = h.Release(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Status is that of all together.
func (hs *Holdings) Status() vip.Status {
	st := hs.main.Status()
	for _, s := range hs.gates.all() {
		more := s.holding.Status()
		st.Applied = st.Applied && more.Applied
		st.NotRemoved += more.NotRemoved
		st.Addresses = append(st.Addresses, more.Addresses...)
		if more.Err != nil && (st.Err == nil || st.Err.Error() != more.Err.Error()) { // what is the keeper's all of them tell
			st.Err = errors.Join(st.Err, more.Err)
		}
	}
	return st
}

// Changed is closed at the next change of any of them.
func (hs *Holdings) Changed() <-chan struct{} { return hs.main.Changed() }

// Announce passes the doubt on to all.
func (hs *Holdings) Announce(reason string) {
	for _, h := range hs.all() {
		h.Announce(reason)
	}
}

// Waits reports whether an address stays down because VRRP has not given it to
// this node.
func (hs *Holdings) Waits(ip netip.Addr) bool {
	s := hs.owners()[ip]
	return s != nil && !s.permitted()
}

// NoHolding is that of a witness, which never has addresses.
type NoHolding struct{}

func (NoHolding) Set(vip.Wanted)                     {}
func (NoHolding) WaitReleased(context.Context) error { return nil }
func (NoHolding) Release(context.Context) error      { return nil }
func (NoHolding) Status() vip.Status                 { return vip.Status{Applied: true} }
func (NoHolding) Changed() <-chan struct{}           { return nil }
func (NoHolding) Announce(string)                    {}
func (NoHolding) Close(context.Context) error        { return nil }

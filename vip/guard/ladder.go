package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// climb tries the allowed mechanisms in order and keeps the first that attaches to
// every device and passes its test. Nothing is inferred from versions.
func (g *Guard) climb() error {
	inherited, err := g.inherit()
	if err != nil {
		g.warn(fmt.Sprintf("what an earlier process has armed cannot all be read, so that only the addresses marked as raftvip's are kept shut: %v", err))
	}
	var (
		errs   []error
		failed []backend
		opened bool
	)
	// One that failed half-way may have taken over the programs of an earlier process.
	// It stays, shut, until another is in its place; where none is, it goes with the
	// rest of what that process left.
	defer func() {
		for _, b := range failed {
			if !opened || !g.attaches() && len(inherited) > 0 {
				b.abandon()
				continue
			}
			g.keepPins(b)
			if err := b.close(); err != nil {
				g.warn(fmt.Sprintf("remove refused %s: %v", b.kind(), err))
			}
		}
	}()
	for _, k := range g.opts.Kind.rungs() {
		b, err := g.try(k, inherited)
		if err == nil {
			opened = true
			// Only now that ours is attached may what other mechanisms left go. One that
			// attaches nothing leaves it until the addresses are gone.
			if !g.attaches() && len(inherited) > 0 {
				g.old = inherited
			} else if err := g.removeOthers(k); err != nil {
				g.warn(fmt.Sprintf("what an earlier process left could not all be removed: %v", err))
			}
			g.describe()
			return nil
		}
		if b != nil {
			failed = append(failed, b)
		}
		g.refused = append(g.refused, Refusal{Kind: k, Reason: err.Error()})
		errs = append(errs, fmt.Errorf("%s: %w", k, err))
	}
	// What was attached by those that failed is of no use if there is nothing to shut.
	if len(inherited) == 0 && g.nothingLeft() {
		opened = true
	}
	return fmt.Errorf("guard: nothing works: %w", errors.Join(errs...))
}

// nothingLeft reports whether no earlier process has left anything armed, as far as
// this can be known.
func (g *Guard) nothingLeft() bool {
	e := survey(g.nl, g.ns, g.opts.PinDir, g.opts.Instance, g.opts.Now)
	return e.unread == nil && len(stillThere(g.nl, slices.Concat(e.addrs, g.opts.Leftovers))) == 0
}

// keepPins keeps a refused mechanism from removing the directory that the one in use
// has its maps in.
func (g *Guard) keepPins(b backend) {
	if bpf, ok := b.(*bpfBackend); ok {
		if t, ok := bpf.att.(*tcxAttacher); ok && t.pins.path == g.pinPath {
			t.shared = true
		}
	}
}

// try opens one mechanism. A backend that comes with an error is to be closed.
func (g *Guard) try(k Kind, inherited []netip.Addr) (backend, error) {
	var (
		b   backend
		err error
	)
	switch k {
	case BPFTCX, BPFClsact:
		b, err = g.openBPF(k)
	case NFT:
		b, err = openNFT(g.ns, g.opts, g.log, g.damaged, inherited)
	default:
		g.backend = nullBackend(k)
		return g.backend, nil
	}
	if err != nil {
		return nil, err
	}
	g.backend = b
	if err := g.start(inherited); err != nil {
		g.backend = nil
		g.pinPath = ""
		clear(g.devices)
		clear(g.armed)
		return b, err
	}
	return b, nil
}

func (g *Guard) openBPF(k Kind) (backend, error) {
	b, err := newBPFBackend(k, g.opts.Now)
	if err != nil {
		return nil, err
	}
	if k == BPFClsact {
		// Without a bpffs it works as well, but for the note to the next process.
		pins, err := openPinDir(g.opts.PinDir, g.opts.Instance, g.ns.inode, true)
		if err == nil {
			g.pinPath = pins.path
		}
		b.att = newClsactAttacher(g.nl, g.opts.Instance, pins)
		return b, nil
	}
	pins, err := openPinDir(g.opts.PinDir, g.opts.Instance, g.ns.inode, false)
	if err != nil {
		b.release()
		return nil, err
	}
	b.att = newTCXAttacher(g.ns, pins)
	g.pinPath = pins.path
	return b, nil
}

// start shuts the inherited addresses and attaches to the devices, in this order.
func (g *Guard) start(inherited []netip.Addr) error {
	if err := g.backend.arm(slotInherited, inherited); err != nil {
		return err
	}
	for _, a := range inherited {
		g.armed[a] = slotInherited
	}
	if err := g.probe(); err != nil {
		return err
	}
	if err := g.reconcile(); err != nil {
		return err
	}
	return g.backend.finish()
}

// probe attaches to the loopback, which is everywhere, so that a mechanism that
// cannot attach is found out even where there is no device yet.
func (g *Guard) probe() error {
	lo, err := g.nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	dev := device{index: lo.Attrs().Index, name: lo.Attrs().Name}
	if _, err := g.backend.ensure(dev); err != nil {
		return err
	}
	if g.opts.NoLocal {
		return g.backend.detach(dev.index, false)
	}
	return nil
}

// removeOthers removes what earlier processes of this instance left by mechanisms
// other than k.
func (g *Guard) removeOthers(k Kind) error {
	mine := func(inst string) bool { return inst == g.opts.Instance }
	var errs []error
	errs = append(errs, cleanPins(g.opts.PinDir, g.ns, g.pinPath, mine))
	if k == BPFClsact && g.pinPath != "" {
		errs = append(errs, removePinnedLinks(g.pinPath, func(string) bool { return true }))
	}
	if k != BPFClsact {
		errs = append(errs, removeClsact(g.nl, func(_ int, inst string) bool { return mine(inst) }))
	}
	if k != NFT {
		errs = append(errs, cleanTables(g.ns, mine))
	}
	return errors.Join(errs...)
}

// retire removes the guard of an earlier process, which was left to keep its
// addresses shut, when they are gone but for those that are about to be armed anew.
// It does nothing if there is none.
func (g *Guard) retire(arming []netip.Addr) error {
	g.arming.Lock()
	old := slices.DeleteFunc(slices.Clone(g.old), func(a netip.Addr) bool { return slices.Contains(arming, a) })
	none := len(g.old) == 0
	g.arming.Unlock()
	if none {
		return nil
	}
	if there := stillThere(g.nl, old); len(there) > 0 {
		if len(arming) > 0 {
			return fmt.Errorf("the guard of an earlier process keeps %v shut, still on an interface: %w", there, ErrAddressLeft)
		}
		return nil
	}
	if err := g.removeOthers(g.Kind()); err != nil {
		return err
	}
	g.arming.Lock()
	g.old = nil
	g.arming.Unlock()
	return nil
}

func (g *Guard) warn(text string) {
	g.warnings = append(g.warnings, text)
}

// describe collects the warnings about the mechanism in use.
func (g *Guard) describe() {
	k := g.Kind()
	if w := clocksourceWarning(clocksource()); w != "" {
		g.warn(w)
	}
	switch k {
	case NFT:
		g.warn("guard nft is weaker than eBPF: whoever flushes the ruleset opens it, and on a busy machine a lease below 1 s may lapse although the owner is well")
	case Lifetime:
		g.warn("guard lifetime is weaker than eBPF: after a lease two nodes may answer for seconds")
	case Off:
		g.warn("guard off: a stopped or dead daemon leaves its addresses answering, and two nodes may answer")
	}
}

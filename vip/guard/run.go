package guard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/raftvip/raftvip/internal/shortage"
	"github.com/raftvip/raftvip/internal/tick"
)

// Run follows interfaces that come and go, checks every attachment every
// Options.Recheck and repairs it. It returns nil when ctx ends; the guard stays in
// force until Close.
func (g *Guard) Run(ctx context.Context) error {
	eg, ctx := errgroup.WithContext(ctx)
	eg.Go(func() error { return g.backend.run(ctx) })
	eg.Go(func() error { return g.follow(ctx) })
	return eg.Wait()
}

// follow checks at once, after every change of a link, and periodically. A failed
// subscription leaves the periodic check.
func (g *Guard) follow(ctx context.Context) error {
	ticks := tick.New(g.opts.Recheck)
	defer ticks.Stop()
	var events <-chan netlink.LinkUpdate
	if g.attaches() {
		events = g.subscribe(ctx)
	}
	last := ""
	for {
		text := ""
		if err := g.Check(); err != nil {
			text = err.Error()
		}
		if text != last && ctx.Err() == nil {
			if last = text; text != "" {
				g.log.Warn("guard check failed", "err", text)
			} else {
				g.log.Info("guard check is good again")
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
			if events == nil && g.attaches() {
				events = g.subscribe(ctx)
			}
		case _, ok := <-events:
			if !ok {
				events = nil // Reopened at the next tick; the check makes up for losses.
			}
			drain(events)
		}
	}
}

// attaches says whether the mechanism attaches to devices at all.
func (g *Guard) attaches() bool {
	k := g.Kind()
	return k != Lifetime && k != Off
}

// drain skips events that one check will answer together.
func drain(events <-chan netlink.LinkUpdate) {
	for {
		select {
		case _, ok := <-events:
			if !ok {
				return
			}
		default:
			return
		}
	}
}

// subscribe returns link events until ctx ends, nil if there are none to be had.
func (g *Guard) subscribe(ctx context.Context) <-chan netlink.LinkUpdate {
	g.attaching.Lock() // Close must not take the namespace away.
	defer g.attaching.Unlock()
	if g.isClosed() {
		return nil
	}
	ch := make(chan netlink.LinkUpdate, 64)
	err := g.ns.do(func() error {
		return netlink.LinkSubscribeWithOptions(ch, ctx.Done(), netlink.LinkSubscribeOptions{
			ErrorCallback: func(err error) {
				if ctx.Err() == nil && !errors.Is(err, unix.ENOBUFS) {
					g.log.Debug("guard link events", "err", err)
				}
			},
		})
	})
	if err != nil {
		g.log.Warn("guard cannot follow link events; new interfaces are found by the periodic check", "err", err)
		return nil
	}
	return ch
}

// Check checks and repairs all attachments now. The error names every interface
// that is not guarded.
func (g *Guard) Check() error {
	g.attaching.Lock()
	defer g.attaching.Unlock()
	if g.isClosed() {
		return errClosed
	}
	if !g.attaches() {
		return g.retire(nil)
	}
	return errors.Join(g.reconcile(), g.sweep())
}

// reconcile attaches to the devices that are wanted and detaches from the others.
// The caller holds attaching.
func (g *Guard) reconcile() error {
	links, err := listLinks(g.nl)
	if err != nil {
		return err
	}
	exists := map[int]bool{}
	for _, l := range links {
		exists[l.Attrs().Index] = true
	}
	wanted := map[int]bool{}
	var errs []error
	devices, err := g.holding(links, selectDevices(links, g.opts.Interfaces, !g.opts.NoLocal))
	if err != nil {
		return err
	}
	for _, dev := range devices {
		wanted[dev.index] = true
		dev.group, dev.vmac = g.vmacs[dev.index]
		c, err := g.backend.ensure(dev)
		if err != nil && g.vanished(dev.index) {
			wanted[dev.index], exists[dev.index] = false, false
			continue
		}
		g.note(dev, c, err)
		errs = append(errs, err)
	}
	attachedAll := errors.Join(errs...) == nil
	for _, i := range g.known() {
		if wanted[i] {
			continue
		}
		if exists[i] && !attachedAll {
			continue // What comes in its place may be what could not be attached to.
		}
		if err := g.leave(i, exists[i]); err != nil {
			errs = append(errs, err)
		}
	}
	g.state.Lock()
	g.checked = g.opts.Now()
	g.state.Unlock()
	return errors.Join(errs...)
}

// holding adds to the wanted devices those that have an address that an earlier
// process left armed: its guard may be on them, and stays as long. The caller holds
// attaching.
func (g *Guard) holding(links []netlink.Link, wanted []device) ([]device, error) {
	inherited := g.inheritedNow()
	if len(inherited) == 0 {
		return wanted, nil
	}
	list, err := listAddresses(g.nl, nil)
	if err != nil {
		return nil, err
	}
	has := map[int]bool{}
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && slices.Contains(inherited, ip.Unmap()) {
			has[a.LinkIndex] = true
		}
	}
	for _, dev := range wanted {
		delete(has, dev.index)
	}
	for _, l := range links {
		if at := l.Attrs(); has[at.Index] && at.EncapType == "ether" {
			wanted = append(wanted, device{index: at.Index, name: at.Name})
		}
	}
	return wanted, nil
}

// leave detaches from a device that is not wanted any more, such as one that became
// a port of a bridge. It waits while an armed address is on it. The caller holds
// attaching.
func (g *Guard) leave(ifindex int, exists bool) error {
	g.placing.Lock()
	defer g.placing.Unlock()
	if exists {
		on, err := addressesOn(g.nl, linkByIndex(ifindex))
		if err != nil {
			return err
		}
		g.arming.Lock()
		for a := range on {
			if _, armed := g.armed[a]; armed {
				g.arming.Unlock()
				return nil
			}
		}
		g.arming.Unlock()
	}
	g.forget(ifindex)
	delete(g.vmacs, ifindex)
	if err := g.backend.detach(ifindex, !exists); err != nil && exists {
		return err
	}
	return nil
}

// vanished says whether the device has gone since it was listed.
func (g *Guard) vanished(ifindex int) bool {
	_, err := g.nl.LinkByIndex(ifindex)
	return errors.As(err, &netlink.LinkNotFoundError{})
}

// note records the result for a device and logs changes.
func (g *Guard) note(dev device, c change, err error) {
	g.state.Lock()
	defer g.state.Unlock()
	s := g.devices[dev.index]
	if s == nil {
		s = &InterfaceStatus{Index: dev.index}
		g.devices[dev.index] = s
	}
	s.Name = dev.name
	if s.Attached && shortage.Is(err) {
		// It was attached, and this is no word about whether it is still.
		if s.Unchecked == "" {
			g.log.Warn("cannot look after the guard now; it was attached when last looked at", "interface", dev.name, "err", err)
		}
		s.Unchecked = err.Error()
		return
	}
	s.Unchecked = ""
	if err != nil {
		if s.Error != err.Error() {
			g.log.Error("guard not attached", "interface", dev.name, "err", err)
		}
		s.Attached, s.Error = false, err.Error()
		return
	}
	s.Attached, s.Error = true, ""
	switch c {
	case repaired:
		s.Repairs++
		g.repairs++
		g.log.Warn("guard was removed or overtaken by somebody else; attached again", "interface", dev.name, "kind", g.backend.kind())
	case attached, adopted:
		g.log.Info("guard "+c.String(), "interface", dev.name, "kind", g.backend.kind())
	}
}

// damaged counts and logs damage that a backend has found and mended by itself.
func (g *Guard) damaged(what string) {
	g.state.Lock()
	g.repairs++
	g.state.Unlock()
	g.log.Warn("guard was damaged by somebody else and has been restored", "what", what, "kind", NFT)
}

func (g *Guard) known() []int {
	g.state.Lock()
	defer g.state.Unlock()
	var out []int
	for i := range g.devices {
		out = append(out, i)
	}
	return out
}

func (g *Guard) forget(ifindex int) {
	g.state.Lock()
	defer g.state.Unlock()
	if s := g.devices[ifindex]; s != nil {
		g.log.Info("guard detached", "interface", s.Name)
	}
	delete(g.devices, ifindex)
}

// Status describes the guard now.
func (g *Guard) Status() Status {
	k := g.Kind()
	s := Status{
		Kind:            k,
		Instance:        g.opts.Instance,
		Refused:         slices.Clone(g.refused),
		Lateness:        k.lateness(),
		AddressLifetime: k.addressLifetime(),
		Guarantee:       k.guarantee(),
		Clocksource:     clocksource(),
		Warnings:        slices.Clone(g.warnings),
	}
	if k == BPFTCX {
		s.PinDir = g.pinPath
	}
	g.arming.Lock()
	s.Armed = len(g.armed)
	for _, group := range g.armed {
		if group == slotInherited {
			s.Inherited++
		}
	}
	if !g.isClosed() {
		var err error
		if s.Drops, err = g.backend.drops(); err != nil {
			s.Warnings = append(s.Warnings, fmt.Sprintf("drop counters: %v", err))
		}
	}
	g.arming.Unlock()
	g.state.Lock()
	defer g.state.Unlock()
	s.Checked, s.Repairs = g.checked, g.repairs
	for _, d := range g.devices {
		s.Interfaces = append(s.Interfaces, *d)
		if !d.Attached {
			s.Warnings = append(s.Warnings, fmt.Sprintf("interface %s is not guarded: %s", d.Name, d.Error))
		} else if d.Unchecked != "" {
			s.Warnings = append(s.Warnings, fmt.Sprintf("interface %s: cannot look whether the guard is still attached: %s", d.Name, d.Unchecked))
		}
	}
	slices.SortFunc(s.Interfaces, func(a, b InterfaceStatus) int { return a.Index - b.Index })
	return s
}

// report logs what Open has chosen.
func (g *Guard) report() {
	for _, r := range g.refused {
		g.log.Warn("guard refused", "kind", r.Kind, "reason", r.Reason)
	}
	for _, w := range g.warnings {
		g.log.Warn("guard: " + w)
	}
	g.log.Info("guard open", "kind", g.Kind(), "instance", g.opts.Instance, "interfaces", len(g.devices))
}

// Covers returns why frames of the interface are not judged by the guard, as of the
// last check; nil if they are. The kinds that judge no frames cover every interface
// as far as they cover any.
func (g *Guard) Covers(ifindex int) error {
	if !g.attaches() {
		return nil
	}
	g.state.Lock()
	defer g.state.Unlock()
	switch d := g.devices[ifindex]; {
	case d == nil:
		return errNotAttached
	case !d.Attached:
		return errors.New(d.Error)
	}
	return nil
}

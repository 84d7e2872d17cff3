package testnet

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

// faults holds what is wrong with the lab's network at present.
type faults struct {
	lab    *Lab
	filter *filter

	mu      sync.Mutex
	cut     map[path]bool
	relays  map[path]*relay
	blocked map[path]bool // what the filter drops: cut or relayed
	down    map[int]bool  // ports set down
	ending  []*relay      // still delivering what they hold
}

func newFaults(l *Lab) (*faults, error) {
	f, err := newFilter(l.sw)
	if err != nil {
		return nil, err
	}
	return &faults{
		lab: l, filter: f,
		cut: map[path]bool{}, relays: map[path]*relay{}, blocked: map[path]bool{}, down: map[int]bool{},
	}, nil
}

// apply brings the filter to what cut and relays ask for.
func (f *faults) apply() error {
	var block, free []path
	want := map[path]bool{}
	for p := range f.cut {
		want[p] = true
	}
	for p := range f.relays {
		want[p] = true
	}
	for p := range want {
		if !f.blocked[p] {
			block = append(block, p)
		}
	}
	for p := range f.blocked {
		if !want[p] {
			free = append(free, p)
		}
	}
	if err := f.filter.change(block, free); err != nil {
		return err
	}
	f.blocked = want
	return nil
}

func (f *faults) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.relays {
		r.stop()
	}
	for _, r := range f.ending {
		r.stop()
	}
	f.relays, f.ending = map[path]*relay{}, nil
	f.filter.close()
}

// finish lets relays deliver what they hold.
func (f *faults) finish(rs ...*relay) {
	f.ending = slices.DeleteFunc(f.ending, func(r *relay) bool { return r.ended.Load() })
	for _, r := range rs {
		r.finish()
		f.ending = append(f.ending, r)
	}
}

// setCuts cuts or joins all given paths in one step.
func (f *faults) setCuts(paths []path, on bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range paths {
		if on {
			f.cut[p] = true
		} else {
			delete(f.cut, p)
		}
		if r := f.relays[p]; r != nil {
			r.cut.Store(on)
		}
	}
	return f.apply()
}

// pathsBetween lists the one-way paths on the networks both hosts are on,
// limited to those given if any are.
func pathsBetween(from, to *Host, on []Network) []path {
	var ps []path
	for _, n := range networksOf(from, on) {
		if int(n) < len(to.ports) && from != to {
			ps = append(ps, path{from.ports[n], to.ports[n]})
		}
	}
	return ps
}

func networksOf(h *Host, on []Network) []Network {
	var ns []Network
	for n := range h.ports {
		use := len(on) == 0
		for _, o := range on {
			use = use || int(o) == n
		}
		if use {
			ns = append(ns, Network(n))
		}
	}
	return ns
}

// Cut silently drops every frame from one host to another, the other direction
// and all other pairs going on. Established connections are cut like new ones.
// Without a network named, all that both are on are cut.
func (l *Lab) Cut(from, to *Host, on ...Network) error {
	return l.faults.setCuts(pathsBetween(from, to, on), true)
}

// CutBoth cuts both directions between two hosts, in one step.
func (l *Lab) CutBoth(a, b *Host, on ...Network) error {
	return l.faults.setCuts(append(pathsBetween(a, b, on), pathsBetween(b, a, on)...), true)
}

// Join undoes Cut and CutBoth between two hosts.
func (l *Lab) Join(a, b *Host, on ...Network) error {
	return l.faults.setCuts(append(pathsBetween(a, b, on), pathsBetween(b, a, on)...), false)
}

// Isolate cuts a host off from all nodes and clients, both directions, in one
// step. The carrier stays. The observer still reaches it: an isolated node that
// goes on answering must be seen.
func (l *Lab) Isolate(h *Host, on ...Network) error {
	return l.Split([]*Host{h}, append(l.Nodes(), l.clients...), on...)
}

// Split cuts every host of one side off from every host of the other, both
// directions, in one step. Hosts in neither list, and a host in both towards
// itself, are not touched.
func (l *Lab) Split(a, b []*Host, on ...Network) error {
	var ps []path
	for _, x := range a {
		for _, y := range b {
			ps = append(ps, pathsBetween(x, y, on)...)
			ps = append(ps, pathsBetween(y, x, on)...)
		}
	}
	return l.faults.setCuts(ps, true)
}

// LinkDown takes the carrier from the host's interface, as a pulled cable does;
// its addresses stay. Without a network named, from all of them.
func (l *Lab) LinkDown(h *Host, on ...Network) error { return l.faults.setLinks(h, on, true) }

// LinkUp undoes LinkDown.
func (l *Lab) LinkUp(h *Host, on ...Network) error { return l.faults.setLinks(h, on, false) }

func (f *faults) setLinks(h *Host, on []Network, down bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range networksOf(h, on) {
		if err := f.setPort(h.ports[n], down); err != nil {
			return fmt.Errorf("link of %s on %v: %w", h.name, n, err)
		}
	}
	return nil
}

func (f *faults) setPort(port int, down bool) error {
	link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: port}}
	if down {
		f.down[port] = true
		return f.lab.sw.nl.LinkSetDown(link)
	}
	delete(f.down, port)
	return f.lab.sw.nl.LinkSetUp(link)
}

// Delay holds every frame from one host to another back by d, and the frames stay
// in order. It replaces an earlier delay of the same direction; zero ends it,
// frames already held still arriving on time. A frame is late by up to about
// 1 ms more than asked. It is done by a relay in this process: the switch drops
// the direction and the relay reads the frames at the sender's port and writes
// them to the receiver's, offloads included, so it is for control traffic and
// probes, not for throughput. A cut wins over a delay, also for frames held.
func (l *Lab) Delay(from, to *Host, d time.Duration, on ...Network) error {
	f := l.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	var ended []*relay
	for _, n := range networksOf(from, on) {
		if int(n) >= len(to.ports) || from == to {
			continue
		}
		p := path{from.ports[n], to.ports[n]}
		r := f.relays[p]
		switch {
		case r != nil && d > 0:
			r.delay.Store(int64(d))
		case r != nil:
			delete(f.relays, p)
			ended = append(ended, r)
		case d > 0:
			// Before the filter drops, so that nothing is lost in between.
			r, err := startRelay(l, from, to, n, d)
			if err != nil {
				return fmt.Errorf("delay %s to %s: %w", from, to, err)
			}
			r.cut.Store(f.cut[p])
			f.relays[p] = r
		}
	}
	err := f.apply()
	f.finish(ended...)
	return err
}

// Heal ends every cut and delay and sets every link up.
func (l *Lab) Heal() error {
	f := l.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	relays := f.relays
	f.cut, f.relays = map[path]bool{}, map[path]*relay{}
	errs := []error{f.apply()}
	for _, r := range relays {
		r.cut.Store(false)
		f.finish(r)
	}
	for port := range f.down {
		errs = append(errs, f.setPort(port, false))
	}
	return errors.Join(errs...)
}

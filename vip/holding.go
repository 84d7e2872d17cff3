package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Holding is the addresses beneath one gate: those of an ownership group, or of a
// virtual router beneath it. Several are independent of each other, but for an address
// that more than one of them lists: one has it at a time (see Set).
type Holding struct {
	k     *Keeper
	gate  *Gate
	log   *slog.Logger
	order int // of Hold
	// tells is another one whose Changed tells of this one's changes as well, or nil.
	tells *Holding

	// What follows is written with k.mu held.
	wanted   Wanted
	seq      uint64 // calls of Set so far
	applied  uint64 // the seq that the loop has looked at last
	ended    bool   // Close was called
	gone     bool   // and nothing is left
	entries  []*entry
	byKey    map[key]*entry // wanted ones in order, then others still held
	given    []*entry       // those that another Holding has now, and may have to delete
	again    string         // reason to announce everything again, or empty
	errs     map[string]error
	changed  chan struct{}
	counters Counters

	// What follows belongs to the Run goroutine.
	followed uint64 // the seq whose list the entries follow
	own      bool   // as looked at last
	valid    bool   // it owns, and its gate was valid
	opened   uint64 // how often the gate had turned valid
	openings uint64 // the same, as of the last announcement of everything
	term     uint64
	lifeAt   time.Duration // next refresh of lifetimes, 0 for none
}

// Hold returns a new Holding, which wants nothing, beneath a gate that no other has. It
// may be called at any time.
func (k *Keeper) Hold(gate *Gate) *Holding { return k.hold(gate, nil) }

// Beside is Hold for addresses whose changes h tells, too: its Changed is closed for
// those of either.
func (h *Holding) Beside(gate *Gate) *Holding { return h.k.hold(gate, h) }

func (k *Keeper) hold(gate *Gate, tells *Holding) *Holding {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := &Holding{
		k: k, gate: gate, log: k.log.With("group", gate.group), order: k.held, tells: tells,
		byKey: map[key]*entry{}, errs: map[string]error{}, changed: make(chan struct{}),
	}
	k.held++
	k.holdings = append(k.holdings, h)
	gate.onValid(k.wake)
	return h
}

// Set gives the Holding a new wanted state, in place of the one before. It never
// blocks. A caller that gives the addresses up shuts the gate first.
//
// Of several Holdings that list an address the one that has it keeps it: on the kernel
// and in the guard. When it does not list it any more, the address becomes another's
// at once, with its guard entry: it stays on the kernel if that one owns it, answers
// from that moment under that one's gate alone, and else goes. An address that is taken
// from one list before it is in another one's is removed in between; SetAll does both at
// once.
func (h *Holding) Set(w Wanted) { SetAll(Want{h, w}) }

// A Want is what a Holding is to bring about.
type Want struct {
	Holding *Holding
	Wanted  Wanted
}

// SetAll is Set for several Holdings of one Keeper at the same instant.
func SetAll(wants ...Want) {
	if len(wants) == 0 {
		return
	}
	k := wants[0].Holding.k
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, want := range wants {
		h, w := want.Holding, want.Wanted
		if k.closing || h.ended || h.seq > 0 && equalWanted(h.wanted, w) {
			continue
		}
		w.Addresses = slices.Clone(w.Addresses)
		h.set(w)
	}
}

// set is called with mu held.
func (h *Holding) set(w Wanted) {
	h.wanted = w
	h.seq++
	h.k.seq.Add(1)
	h.k.wake()
}

func equalWanted(a, b Wanted) bool {
	return a.Own == b.Own && a.Term == b.Term && a.Schedule == b.Schedule && slices.Equal(a.Addresses, b.Addresses)
}

// Announce asks for a new burst for all addresses that are present: after any doubt
// about what the neighbours believe, such as a healed partition. It never blocks.
func (h *Holding) Announce(reason string) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	h.again = reason
	h.k.wake()
}

// Release gives the addresses up and waits as WaitReleased does. The list stays as
// it is.
func (h *Holding) Release(ctx context.Context) error {
	h.k.mu.Lock()
	if h.wanted.Own && !h.k.closing {
		w := h.wanted
		w.Own = false
		h.set(w)
	}
	h.k.mu.Unlock()
	return h.WaitReleased(ctx)
}

// WaitReleased waits until the latest Set has been looked at and every address that
// this Holding has put on the kernel is off it, or is owned by another Holding. It
// returns ErrOwned if the addresses are to be owned (again), and an error naming those
// that are still there if ctx ends or Run has given up.
func (h *Holding) WaitReleased(ctx context.Context) error {
	for {
		h.k.mu.Lock()
		own, released, stopped, changed := h.wanted.Own, h.released(), h.k.stopped, h.changed
		var present string
		if !released {
			present = fewOf(h.present())
		}
		h.k.mu.Unlock()
		switch {
		case own:
			return ErrOwned
		case released:
			return nil
		case stopped:
			return fmt.Errorf("release addresses: keeper has stopped, still present: %s", present)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("release addresses: %w, still present: %s", context.Cause(ctx), present)
		}
	}
}

// Close ends the Holding. Its gate is shut, for good, and its addresses go from the
// kernel and from the guard, unless other Holdings list them, which then have them. It
// returns nil when nothing is left, so that the group's number in the guard can be used
// for another gate: at once for one that owns nothing, and after 5 s at most where
// someone else's copies of the addresses are in the guard. If ctx ends first the error
// names what is there; the work goes on, and Close may be called again.
func (h *Holding) Close(ctx context.Context) error {
	h.gate.end()
	h.k.mu.Lock()
	if !h.ended {
		h.ended = true
		h.set(Wanted{})
	}
	h.k.mu.Unlock()
	for {
		h.k.mu.Lock()
		gone, stopped, changed, present := h.gone, h.k.stopped, h.changed, fewOf(h.present())
		h.k.mu.Unlock()
		switch {
		case gone:
			return nil
		case stopped:
			return fmt.Errorf("close the addresses of group %d: keeper has stopped, still present: %s", h.gate.group, present)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("close the addresses of group %d: %w, still present: %s", h.gate.group, context.Cause(ctx), present)
		}
	}
}

// released is called with mu held.
func (h *Holding) released() bool {
	return h.applied == h.seq && !slices.ContainsFunc(h.entries, (*entry).isPresent) && !slices.ContainsFunc(h.given, (*entry).isUnowned)
}

// isPresent reports whether the address is on the kernel by our hand, or has to go
// from there.
func (e *entry) isPresent() bool { return e.placed || e.state == StateRemoving }

// isUnowned reports whether an address that another Holding has now has to go.
func (e *entry) isUnowned() bool { return e.isPresent() && !(e.h.wanted.Own && e.listed) }

// present names the addresses still on the kernel. It is called with mu held.
func (h *Holding) present() []string {
	var names []string
	for _, e := range h.entries {
		if e.isPresent() {
			names = append(names, e.want.String())
		}
	}
	for _, e := range h.given {
		if e.isUnowned() {
			names = append(names, e.want.String())
		}
	}
	return names
}

func fewOf(names []string) string {
	if len(names) == 0 {
		return "none known"
	}
	if len(names) > 5 {
		return strings.Join(append(names[:5:5], fmt.Sprintf("and %d more", len(names)-5)), ", ")
	}
	return strings.Join(names, ", ")
}

// notify closes the channel of Changed. It is called with mu held.
func (h *Holding) notify() {
	close(h.changed)
	h.changed = make(chan struct{})
	if h.tells != nil {
		h.tells.notify()
	}
	h.k.notify()
}

// err joins what is wrong with the Keeper as a whole and with the Holding. It is called
// with mu held.
func (h *Holding) err() error {
	if len(h.k.errs) == 0 && len(h.errs) == 0 {
		return nil
	}
	var errs []error
	for _, parts := range []map[string]error{h.k.errs, h.errs} {
		for _, part := range slices.Sorted(maps.Keys(parts)) {
			errs = append(errs, parts[part])
		}
	}
	return errors.Join(errs...)
}

// setErr records what is wrong with a part of the Holding, nil for nothing, and logs
// changes.
func (h *Holding) setErr(part string, err error) {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	if setErr(h.errs, part, err, h.log) {
		h.notify()
	}
}

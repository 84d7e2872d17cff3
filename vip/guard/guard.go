package guard

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/raftvip/raftvip/internal/boottime"
)

// Options say how to open a guard. The zero value is right for one daemon per
// network namespace.
type Options struct {
	// Kind is the mechanism; "" is Auto.
	Kind Kind
	// Instance tells the daemons of one network namespace apart: letters, digits,
	// '_' and '-', at most 64. Default "raftvip". The inode of the namespace is added
	// where daemons of several namespaces could meet (the bpffs).
	Instance string
	// PinDir is a directory in a bpffs for the pins of tcx links. Default
	// /sys/fs/bpf/raftvip, else a bpffs mounted at /run/raftvip/bpf; both only outside
	// of containers, where they outlive the daemon.
	PinDir string
	// Interfaces limits the guard to Ethernet interfaces whose name matches one of
	// these patterns (path.Match). Empty means all but the ports of bridges.
	Interfaces []string
	// NoLocal leaves the loopback out, so that this host itself goes on reaching an
	// address whose lease is over.
	NoLocal bool
	// Leftovers are addresses that an earlier process may have left on interfaces,
	// beside those that its guard has armed. Those that are really there are shut from
	// the start, until they are gone.
	Leftovers []netip.Addr
	// Recheck is the period of checks of all attachments. Default 3 s.
	Recheck time.Duration
	// Logger gets transitions. Nil means discard.
	Logger *slog.Logger
	// Now reads CLOCK_BOOTTIME. Default boottime.Now.
	Now func() time.Duration
}

var instanceName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

const defaultInstance = "raftvip"

func (o *Options) complete() error {
	kind, err := ParseKind(string(o.Kind))
	if err != nil {
		return err
	}
	o.Kind = kind
	if o.Instance == "" {
		o.Instance = defaultInstance
	}
	if !instanceName.MatchString(o.Instance) {
		return fmt.Errorf("guard instance %q: allowed are 1 to 64 letters, digits, '_' and '-'", o.Instance)
	}
	for _, p := range o.Interfaces {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("guard interface pattern %q: %w", p, err)
		}
	}
	if o.Recheck <= 0 {
		o.Recheck = 3 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = boottime.Now
	}
	return nil
}

// A Guard is an attached mechanism. Its methods may be called from any goroutine.
type Guard struct {
	opts   Options
	log    *slog.Logger
	ns     *netNS
	nl     *netlink.Handle
	lockFD int

	backend  backend
	pinPath  string
	refused  []Refusal
	warnings []string

	// placing is held for reading by who puts addresses on an interface, see Hold, and
	// for writing while one is detached from.
	placing sync.RWMutex

	// arming serialises changes of addresses. It is never held while attaching, which
	// may take long; arming is part of a takeover.
	arming sync.Mutex
	armed  map[netip.Addr]uint32
	old    []netip.Addr // kept shut by the guard of an earlier process, see retire

	// attaching serialises checks of the devices.
	attaching sync.Mutex
	vmacs     map[int]uint32 // interface -> group
	closed    bool

	// state guards what Status shows; it is never held over a system call.
	state   sync.Mutex
	devices map[int]*InterfaceStatus
	checked time.Duration
	repairs int
}

// Open attaches the best mechanism that really works here and is allowed by
// Options.Kind. All deadlines are 0, so nothing armed is answered. What an earlier
// process of the instance left behind is taken over without a gap. With Auto it
// fails only if nothing at all can be done; look at Status for what it became.
//
// Errors: ErrInUse; wrong options; none of the allowed mechanisms works, each with
// the call that failed.
func Open(opts Options) (_ *Guard, err error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	g := &Guard{
		opts:    opts,
		log:     opts.Logger.With("component", "guard"),
		lockFD:  -1,
		armed:   map[netip.Addr]uint32{},
		vmacs:   map[int]uint32{},
		devices: map[int]*InterfaceStatus{},
	}
	defer func() {
		if err != nil {
			g.release()
		}
	}()
	if g.ns, err = currentNetNS(); err != nil {
		return nil, err
	}
	if g.lockFD, err = lockInstance(g.ns, opts.Instance); err != nil {
		return nil, err
	}
	if g.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	if err = g.climb(); err != nil {
		return nil, err
	}
	g.report()
	return g, nil
}

// Arm puts addresses under the deadline of a group, which is left as it is: for a
// group without a deadline they are shut at once. Arm before the address is added
// to an interface. Arming again is no error; an address armed for another group is.
// After an error some of the addresses may be armed.
func (g *Guard) Arm(group uint32, addrs []netip.Addr) error {
	if group >= MaxGroups {
		return fmt.Errorf("guard: arm: group %d; allowed are 0 to %d", group, MaxGroups-1)
	}
	// Whoever takes an address has removed what was left of it.
	if err := g.retire(addrs); err != nil {
		return fmt.Errorf("guard: arm: remove the guard of an earlier process: %w", err)
	}
	g.arming.Lock()
	defer g.arming.Unlock()
	if g.isClosed() {
		return errClosed
	}
	var add []netip.Addr
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("guard: arm: %v is not an address of a host", a)
		}
		switch old, ok := g.armed[a]; {
		case !ok, old == slotInherited:
			add = append(add, a)
		case old != group:
			return fmt.Errorf("guard: arm: %s belongs to group %d, not %d", a, old, group)
		}
	}
	if len(g.armed)+len(add) > MaxAddresses {
		return fmt.Errorf("guard: arm: more than %d addresses", MaxAddresses)
	}
	if len(add) == 0 {
		return nil
	}
	if err := g.backend.arm(group, add); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	for _, a := range add {
		g.armed[a] = group
	}
	return nil
}

// Move puts addresses that are armed for one group under the deadline of another one.
// For each of them the kernel obeys the old deadline, and from one packet to the next the
// new one: never neither. (With nft a group's first address is silent until its lease is
// written, which takes less than a millisecond.) One that is not armed, or for a third
// group, is an error, and nothing is changed. After another error some may have been
// moved, and the call may be repeated.
func (g *Guard) Move(from, to uint32, addrs []netip.Addr) error {
	if to >= MaxGroups {
		return fmt.Errorf("guard: move: group %d; allowed are 0 to %d", to, MaxGroups-1)
	}
	g.arming.Lock()
	defer g.arming.Unlock()
	if g.isClosed() {
		return errClosed
	}
	move := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		move[i] = a.Unmap().WithZone("")
		switch old, ok := g.armed[move[i]]; {
		case !ok:
			return fmt.Errorf("guard: move: %s is not armed", a)
		case old != from && old != to:
			return fmt.Errorf("guard: move: %s belongs to group %d, not %d", a, old, from)
		}
	}
	if err := g.backend.arm(to, move); err != nil {
		return fmt.Errorf("guard: move: %w", err)
	}
	for _, a := range move {
		g.armed[a] = to
	}
	return nil
}

// Disarm takes addresses out again. Do this only when they are gone from all
// interfaces: from now on the kernel answers for them. An address that is not armed
// is no error; one of another group is, and stays armed.
func (g *Guard) Disarm(group uint32, addrs []netip.Addr) error {
	g.arming.Lock()
	defer g.arming.Unlock()
	if g.isClosed() {
		return errClosed
	}
	var (
		del  []netip.Addr
		errs []error
	)
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		switch old, ok := g.armed[a]; {
		case !ok:
		case old != group && old != slotInherited:
			errs = append(errs, fmt.Errorf("guard: disarm: %s belongs to group %d, not %d", a, old, group))
		default:
			del = append(del, a)
		}
	}
	if len(del) > 0 {
		if err := g.backend.disarm(group, del); err != nil {
			return errors.Join(append(errs, fmt.Errorf("guard: %w", err))...)
		}
		for _, a := range del {
			delete(g.armed, a)
		}
	}
	return errors.Join(errs...)
}

// SetDeadline moves the deadline of a group to a time on CLOCK_BOOTTIME; 0 shuts it.
// It never blocks, makes no system call and allocates nothing. With eBPF it is
// one atomic store and in force when it returns. With nftables the latest value is
// handed to the kernel by a goroutine: at once, but after a transaction already
// going on, and never later than the old deadline does the kernel shut by itself.
// Whoever has to know that the kernel is shut calls Settle.
//
// One writer per group: who gives up a lease must make sure that no renewal in
// flight stores after its 0.
func (g *Guard) SetDeadline(group uint32, sinceBoot time.Duration) {
	if group >= MaxGroups {
		return // Nothing can be armed for it.
	}
	g.backend.setDeadline(group, sinceBoot)
}

// Settle returns when the kernel obeys the deadline that was stored last for the
// group. It waits for whoever has the lock of nftables, but never longer than until
// the latest deadline that was ever stored, when the kernel is shut by itself. The
// eBPF guards have nothing to wait for; Lifetime and Off neither, as there the kernel
// is silent only when the address is gone.
func (g *Guard) Settle(group uint32) {
	if group < MaxGroups {
		g.backend.settle(group)
	}
}

// errNotAttached: the kernel does not have the mechanism on the device, or behind
// somebody else's.
var errNotAttached = errors.New("the guard is not attached")

// Hold makes certain that the guard is attached to each of these interfaces, by
// number, now, and keeps it from being taken off them by this process until release
// is called. bad has those where it is not, and why: no address may be put there.
// The kinds that judge no frames are good everywhere.
//
// An interface made anew has another number, so that who looked it up by name does
// not take it for the old one. One made anew with the same number is told by Attached
// after the address was put.
func (g *Guard) Hold(ifindexes []int) (bad map[int]error, release func()) {
	g.placing.RLock()
	return g.Attached(ifindexes), g.placing.RUnlock
}

// Attached asks the kernel and returns, of these interfaces, those that the guard is
// not attached to now, and why.
func (g *Guard) Attached(ifindexes []int) (bad map[int]error) {
	if !g.attaches() {
		return nil
	}
	for _, i := range ifindexes {
		err := g.Covers(i)
		switch {
		case err != nil:
		case g.isClosed():
			err = errClosed
		default:
			err = g.backend.attached(i)
		}
		if err != nil {
			if bad == nil {
				bad = map[int]error{}
			}
			bad[i] = err
		}
	}
	return bad
}

// Lateness returns the longest time for which the kernel may go on answering after
// a deadline, packets already in a queue apart. A timing that promises one owner
// must add it. Unbounded for Off.
func (g *Guard) Lateness() time.Duration { return g.backend.kind().lateness() }

// AddressLifetime returns the valid lifetime that guarded addresses must be given
// and refreshed with, a third of it apart: 30 s beneath a packet guard, 2 s where it
// is the only guard, 0 (no lifetime) for Off.
func (g *Guard) AddressLifetime() time.Duration { return g.backend.kind().addressLifetime() }

// Kind returns the mechanism in use.
func (g *Guard) Kind() Kind { return g.backend.kind() }

// SetVMAC says that an interface carries the virtual MAC of a group and nothing
// else: after the deadline nothing at all leaves it. The eBPF guards can do this;
// for others it is an error.
func (g *Guard) SetVMAC(ifindex int, group uint32) error {
	if group >= MaxGroups {
		return fmt.Errorf("guard: vmac: group %d; allowed are 0 to %d", group, MaxGroups-1)
	}
	if !g.backend.vmacSupported() {
		return fmt.Errorf("guard: vmac: not supported by %s", g.Kind())
	}
	g.attaching.Lock()
	g.vmacs[ifindex] = group
	g.attaching.Unlock()
	return g.Check()
}

var errClosed = errors.New("guard is closed")

func (g *Guard) isClosed() bool {
	g.state.Lock()
	defer g.state.Unlock()
	return g.closed
}

// ErrAddressLeft means that an armed address is still on an interface, so that the
// guard that keeps it shut stays.
var ErrAddressLeft = errors.New("the guard stays until it is gone")

// Close takes everything out of the kernel, unless an armed address is still on an
// interface: then the guard stays there, shut, as after the death of the process,
// for the next Open or Cleanup to find, and the error, ErrAddressLeft, names the
// address. Call it when Run has returned.
func (g *Guard) Close() error {
	g.state.Lock()
	was := g.closed
	g.closed = true
	g.state.Unlock()
	if was {
		return nil
	}
	g.attaching.Lock() // Always before arming.
	defer g.attaching.Unlock()
	g.placing.Lock()
	defer g.placing.Unlock()
	g.arming.Lock()
	defer g.arming.Unlock()
	defer g.release()
	if left := stillThere(g.nl, slices.Concat(slices.Collect(maps.Keys(g.armed)), g.old)); len(left) > 0 {
		g.shut()
		g.backend.abandon()
		return fmt.Errorf("guard: close: %v still on an interface: %w", left, ErrAddressLeft)
	}
	err := g.backend.close()
	if len(g.old) > 0 {
		err = errors.Join(err, g.removeOthers(g.Kind()))
		g.old = nil
	}
	if err != nil {
		return fmt.Errorf("guard: close: %w", err)
	}
	return nil
}

// shut stores 0 for every group that has an armed address, and returns when the
// kernel is shut. The caller holds arming.
func (g *Guard) shut() {
	groups := map[uint32]bool{}
	for _, group := range g.armed {
		if group < MaxGroups {
			groups[group] = true
			g.backend.setDeadline(group, 0)
		}
	}
	for group := range groups {
		g.backend.settle(group)
	}
}

// release lets go of what is the process's own.
func (g *Guard) release() {
	if g.nl != nil {
		g.nl.Close()
	}
	if g.lockFD >= 0 {
		unix.Close(g.lockFD)
	}
	if g.ns != nil {
		g.ns.close()
	}
}

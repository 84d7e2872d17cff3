package guard

import (
	"context"
	"net/netip"
	"time"
)

// A backend is one mechanism. Except for setDeadline, which may be called at any
// time and never blocks, settle and attached, its methods are serialised by Guard: arm and disarm among
// themselves, ensure, detach, finish and close among themselves.
type backend interface {
	kind() Kind
	// arm makes the addresses depend on the deadline of the group. Arming an address
	// again moves it to that group.
	arm(group uint32, addrs []netip.Addr) error
	// disarm frees the addresses; one that is not armed is no error.
	disarm(group uint32, addrs []netip.Addr) error
	setDeadline(group uint32, sinceBoot time.Duration)
	// settle returns when the kernel obeys the latest deadline of the group, or when
	// every deadline that it was ever given is over. It may be called at any time.
	settle(group uint32)
	// attached asks the kernel whether the device has the mechanism now. It may be
	// called at any time.
	attached(ifindex int) error
	// ensure attaches to the device, or checks and repairs the attachment.
	ensure(dev device) (change, error)
	// detach undoes ensure; gone says that the device does not exist any more.
	detach(ifindex int, gone bool) error
	// finish is called once, after the first round of ensure.
	finish() error
	vmacSupported() bool
	drops() (Drops, error)
	// run does what the mechanism needs a goroutine for, until ctx ends.
	run(ctx context.Context) error
	// close removes everything from the kernel.
	close() error
	// abandon lets go of what is the process's own and leaves the kernel as it is, as
	// the end of the process does.
	abandon()
}

// A change says what ensure had to do.
type change int

const (
	unchanged change = iota
	adopted          // taken over from an earlier process
	attached
	repaired // somebody had removed or overtaken it
)

func (c change) String() string {
	return [...]string{"unchanged", "adopted", "attached", "repaired"}[c]
}

// A device is an interface that the guard watches.
type device struct {
	index int
	name  string
	// vmac marks a device that carries the virtual MAC of group only.
	vmac  bool
	group uint32
}

// A hook is one direction of one device.
type hook struct {
	ifindex int
	dir     direction
}

// A nullBackend guards nothing by itself: with Lifetime the address lifetime does,
// set by whoever adds the address; with Off nothing does.
type nullBackend Kind

func (b nullBackend) kind() Kind                      { return Kind(b) }
func (nullBackend) arm(uint32, []netip.Addr) error    { return nil }
func (nullBackend) disarm(uint32, []netip.Addr) error { return nil }
func (nullBackend) setDeadline(uint32, time.Duration) {}
func (nullBackend) settle(uint32)                     {}
func (nullBackend) attached(int) error                { return nil }
func (nullBackend) ensure(device) (change, error)     { return unchanged, nil }
func (nullBackend) detach(int, bool) error            { return nil }
func (nullBackend) finish() error                     { return nil }
func (nullBackend) vmacSupported() bool               { return false }
func (nullBackend) drops() (Drops, error)             { return Drops{}, nil }
func (nullBackend) close() error                      { return nil }
func (nullBackend) abandon()                          {}
func (nullBackend) run(ctx context.Context) error     { <-ctx.Done(); return nil }

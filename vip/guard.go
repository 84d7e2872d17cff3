package vip

import (
	"net/netip"
	"time"
)

// A Guard is the kernel-enforced lease: while now is not before the deadline of
// an address's group, the kernel neither answers for the address nor lets a frame
// out that claims it, whatever this process does. Package vip/guard has the
// implementations.
type Guard interface {
	// Arm installs entries for addrs. The deadline of the group is left as it is;
	// a group never used before is shut. Arming twice is no error.
	Arm(group uint32, addrs []netip.Addr) error
	// Disarm removes the entries of addrs. An address that is not armed is no error.
	Disarm(group uint32, addrs []netip.Addr) error
	// Move puts addrs, armed for one group, under another one's deadline: for each there
	// is no moment in which it is under neither. One that is not armed is an error. After
	// an error some may have been moved, and none is without a guard.
	Move(from, to uint32, addrs []netip.Addr) error
	// SetDeadline stores the instant at which the group falls silent; 0 is shut. It
	// must never block.
	SetDeadline(group uint32, sinceBoot time.Duration)
	// Settle returns when the kernel obeys the deadline stored last: after a 0 it is
	// silent. It may wait, but never longer than until the latest deadline stored.
	Settle(group uint32)
	// Hold returns those of the links, by index, where the kernel would not judge
	// frames now, and why; no address may be put there. Of the others the guard is not
	// taken off until release is called.
	Hold(links []int) (bad map[int]error, release func())
	// Attached asks the kernel again what Hold did.
	Attached(links []int) (bad map[int]error)
}

// NoGuard is the Guard of a node without one (guard off, or address lifetime
// alone): nothing is enforced by the kernel.
type NoGuard struct{}

// Arm does nothing.
func (NoGuard) Arm(uint32, []netip.Addr) error { return nil }

// Disarm does nothing.
func (NoGuard) Disarm(uint32, []netip.Addr) error { return nil }

// Move does nothing.
func (NoGuard) Move(uint32, uint32, []netip.Addr) error { return nil }

// SetDeadline does nothing.
func (NoGuard) SetDeadline(uint32, time.Duration) {}

// Settle does nothing.
func (NoGuard) Settle(uint32) {}

// Hold finds every link as good.
func (NoGuard) Hold([]int) (map[int]error, func()) { return nil, func() {} }

// Attached finds every link as good.
func (NoGuard) Attached([]int) map[int]error { return nil }

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
	// SetDeadline stores the instant at which the group falls silent; 0 is shut. It
	// must never block.
	SetDeadline(group uint32, sinceBoot time.Duration)
}

// NoGuard is the Guard of a node without one (guard off, or address lifetime
// alone): nothing is enforced by the kernel.
type NoGuard struct{}

// Arm does nothing.
func (NoGuard) Arm(uint32, []netip.Addr) error { return nil }

// Disarm does nothing.
func (NoGuard) Disarm(uint32, []netip.Addr) error { return nil }

// SetDeadline does nothing.
func (NoGuard) SetDeadline(uint32, time.Duration) {}

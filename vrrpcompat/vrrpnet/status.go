package vrrpnet

import (
	"net/netip"
	"time"

	"github.com/raftvip/raftvip/vrrpcompat"
)

// Status is what a Router does, at one instant. Its times are of CLOCK_BOOTTIME.
type Status struct {
	// State and since when and why it is so.
	State  vrrpcompat.State
	Since  time.Duration
	Reason string
	// Master counts how often the router became master. A reader that sees another
	// count than before has missed a change and, in between, the loss of the first.
	Masters uint64
	// Until is the earliest time at which a router that heard our last advertisement
	// may take over; see Sink.Renew. Zero while not master.
	Until time.Duration
	// Announcements counts how often the addresses have to be announced again while
	// master, because another router claimed them.
	Announcements uint64

	Priority uint8
	Entitled bool
	// Other is the other router that is master, if any is known.
	Other *Speaker
	// Duplicate is a member of our own cluster that advertises too while this node is
	// entitled.
	Duplicate *Duplicate

	// Down says why there is no socket; nil if there is one.
	Down error
	// Interface, VMAC (or ""), Source and Destinations are those of the socket.
	Interface    string
	VMAC         string
	Source       netip.Addr
	Destinations []netip.Addr

	// Sent and NotSent count advertisements per destination, and QueueFull those of
	// NotSent for which the machine's queue had no room. SendError is the last error,
	// until one could be sent again.
	Sent, NotSent, QueueFull uint64
	SendError                error
	// Received is what became of what was received.
	Received vrrpcompat.Counters
	// Notes are oddities of other routers' packets, at most 16, in no order.
	Notes []Note
}

// A Speaker is another router that is master.
type Speaker struct {
	Addr     netip.Addr
	Priority uint8
	Interval time.Duration
	HeardAt  time.Duration
}

// A Duplicate is a router that should be silent.
type Duplicate struct {
	Addr  netip.Addr
	Since time.Duration
	Count uint64
}

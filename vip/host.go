package vip

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// Errors of a Host, to be tested with errors.Is.
var (
	// ErrExists: the address is on the link already.
	ErrExists = errors.New("address exists")
	// ErrGone: the address or its link is not there (any more).
	ErrGone = errors.New("address or link does not exist")
)

// A Host is the part of the kernel that this package changes and watches.
// OpenHost returns the real one, viptest.Host is the double.
type Host interface {
	// Links returns all links with their addresses.
	Links() ([]Link, error)
	// Change makes the changes in order, as one request to the kernel as far as
	// possible. One that fails does not keep the others from being made. It returns an
	// error for each change, nil where it worked; or nil alone if all worked.
	Change(changes []Change) []error
	// Watch calls sink, one call at a time, with a Snapshot and then with every
	// change, until ctx ends (it then returns nil) or an error makes further changes
	// unseen. Lost changes are made up for by another Snapshot.
	Watch(ctx context.Context, sink func(Event)) error
	// Marks reports whether the kernel keeps KernelAddress.Protocol. If not, the
	// journal has to remember what is ours.
	Marks() bool
}

// A Change is one thing to do to the address of a link.
type Change struct {
	Kind    ChangeKind
	Link    int
	Address KernelAddress
}

// ChangeKind says what a Change does.
type ChangeKind int

// The kinds of changes. The zero value is invalid.
const (
	_ ChangeKind = iota
	// AddAddress puts an address on the link. The error is ErrExists if the same
	// address with the same length is there, and ErrGone if the link is not.
	AddAddress
	// RefreshAddress starts the lifetime and the mark of an address anew, and adds the
	// address if it is not there.
	RefreshAddress
	// DeleteAddress removes exactly this address. The error is ErrGone if the address
	// or its link is not there. Other addresses stay, also where the kernel would take
	// secondary addresses along.
	DeleteAddress
)

// errorOf returns the error of the i-th of several changes.
func errorOf(errs []error, i int) error {
	if errs == nil {
		return nil
	}
	return errs[i]
}

// A Link is a network interface as last seen.
type Link struct {
	Index int
	Name  string
	// MAC is empty for a link without Ethernet addresses.
	MAC net.HardwareAddr
	// Up is the administrative state (IFF_UP), Running also has a carrier.
	Up      bool
	Running bool
	// NoARP is true where neighbours are not resolved (loopback, dummy, tun).
	NoARP bool
	// Port: the link is a port of a bridge, bond or team, and what is for this node
	// passes that.
	Port bool
	// Forwards6: the link forwards IPv6, which makes the node a router. A router whose
	// advertisement says otherwise is dropped from its neighbours' default routers (RFC
	// 4861 7.2.5).
	Forwards6 bool
	// NoIPv6: the link takes no IPv6 addresses, as IPv6 is disabled on it or its MTU is
	// too small.
	NoIPv6 bool
	// Addresses are all addresses of the link, ours and others'. A Link in an Event
	// has none.
	Addresses []KernelAddress
}

// announceable reports whether frames are to be sent for the addresses of the link.
func (l Link) announceable() bool { return len(l.MAC) == 6 && !l.NoARP }

// A KernelAddress is an address as it is, or is to be, on a link.
type KernelAddress struct {
	// Prefix is the local address with the length of its subnet.
	Prefix netip.Prefix
	// Subnet is what the address says about its link: Prefix masked, or the peer's
	// subnet on a point-to-point link. A Change does not use it.
	Subnet netip.Prefix
	// Protocol is the mark, see AddrProtocol; 0 is none.
	Protocol uint8
	// Lifetime is the time after which the kernel removes the address, in whole
	// seconds; 0 is never. Links leaves it 0.
	Lifetime time.Duration
	// NoPrefixRoute and NoDAD are the flags of that name; Deprecated is a preferred
	// lifetime of 0. Links leaves them false.
	NoPrefixRoute bool
	NoDAD         bool
	Deprecated    bool
	// Tentative: duplicate address detection is not over, or has failed (DADFailed); the
	// kernel does not answer for such an address. A Change does not use them.
	Tentative bool
	DADFailed bool
	// Broadcast, Scope and Label are IPv4 only; zero values mean none, global, none.
	// Links leaves them zero.
	Broadcast netip.Addr
	Scope     uint8
	Label     string
}

// An Event is a change of the kernel's links and addresses.
type Event struct {
	Kind EventKind
	// Links is the whole state, for Snapshot.
	Links []Link
	// Link has the new state of a link for LinkChanged. For the other kinds only Index
	// is set, and Forwards6 for ForwardingChanged.
	Link Link
	// Address is the address added or removed; only Prefix, Subnet, Protocol and the
	// state of duplicate address detection are set.
	Address KernelAddress
}

// EventKind says what an Event is about.
type EventKind int

// The kinds of events. The zero value is invalid.
const (
	_ EventKind = iota
	Snapshot
	LinkChanged
	LinkRemoved
	ForwardingChanged
	AddressAdded
	AddressRemoved
)

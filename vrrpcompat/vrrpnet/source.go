package vrrpnet

import (
	"errors"
	"fmt"
	"net/netip"
)

// ErrNoSource says that the interface has no address to send from (any more).
var ErrNoSource = errors.New("no source address")

// An address is what the kernel says of one of the machine's addresses.
type address struct {
	addr  netip.Addr
	index int // of the interface
	// unusable: tentative or failed duplicate address detection, so that the kernel
	// does not let it be a source.
	unusable bool
	// passing: temporary, deprecated, or with a lifetime. It may go at any time, and
	// with it the router's identity in a tie.
	passing bool
	// secondary: not the first of its subnet (IPv4).
	secondary bool
	// narrow: valid on this link or this host only (scope).
	narrow bool
}

// source chooses the address to send from among all of the machine's, which come
// in the kernel's order. Interface is the index of Options.Interface, or 0 if any
// will do.
func (o Options) source(all []address, index int) (address, error) {
	others := o.IsVirtual
	if others == nil {
		others = func(netip.Addr) bool { return false }
	}
	if o.Source.IsValid() {
		if others(o.Source) {
			return address{}, fmt.Errorf("%w: %v is a virtual address", ErrNoSource, o.Source)
		}
		for _, a := range all {
			// A link-local address means something on its own link only.
			if a.addr == o.Source && !a.unusable && (index == 0 || a.index == index || !a.addr.IsLinkLocalUnicast()) {
				return a, nil
			}
		}
		return address{}, fmt.Errorf("%w: this machine does not have %v", ErrNoSource, o.Source)
	}
	virtual := make(map[netip.Addr]bool, len(o.Virtual))
	for _, v := range o.Virtual {
		virtual[v] = true
	}
	best, rank := address{}, 0
	for _, a := range all {
		if a.index != index || a.addr.Is6() != o.IPv6 || a.unusable || virtual[a.addr] || others(a.addr) || a.addr.IsLoopback() {
			continue
		}
		if r := o.rank(a); r > rank {
			best, rank = a, r
		}
	}
	if rank == 0 {
		return address{}, fmt.Errorf("%w: the interface has none of its own", ErrNoSource)
	}
	return best, nil
}

// rank says how good an address is as a source, 0 for not at all; of several with
// the same rank the kernel's first one is used.
func (o Options) rank(a address) int {
	lasting := 1
	if a.passing {
		lasting = 0
	}
	if !o.IPv6 {
		switch {
		case a.narrow:
			return 1 + lasting
		case a.secondary:
			return 3 + lasting
		}
		return 5 + lasting
	}
	if a.addr.IsLinkLocalUnicast() {
		// What RFC 9568 section 5.1.2.1 wants for multicast.
		return 3 + lasting
	}
	for _, p := range o.Peers {
		if !p.IsLinkLocalUnicast() {
			return 5 + lasting
		}
	}
	// Multicast goes from a link-local address or not at all.
	if o.unicast() {
		return 1 + lasting
	}
	return 0
}

package vip

import (
	"fmt"
	"net/netip"
)

// A Source keeps what this node says to other machines from leaving with a virtual
// address as its source: the guard drops that when the lease ends, and the next
// owner gets the answers. Its methods may be called from any goroutine.
type Source struct {
	// Virtual reports whether an address is a virtual one. Besides, those that carry
	// AddrProtocol are. It must be set.
	Virtual func(netip.Addr) bool
	// Preferred is the address at which others reach this node, taken first if the
	// node has it; invalid for none.
	Preferred netip.Addr
}

// choose returns the address to send from to dst where the kernel would take chosen,
// which is a virtual one: the preferred one, else one on the interface of chosen
// whose subnet has dst, else any of that interface, else any other. It returns an
// error if the node has no address of its own of that family.
func (s Source) choose(chosen, dst netip.Addr, links []Link) (netip.Addr, error) {
	var best netip.Addr
	rank := 0
	for _, l := range links {
		there := false // chosen is
		for _, a := range l.Addresses {
			there = there || a.Prefix.Addr() == chosen
		}
		for _, a := range l.Addresses {
			ip := a.Prefix.Addr()
			if !s.usable(a) || ip.Is4() != dst.Is4() || ip.IsLinkLocalUnicast() != dst.WithZone("").IsLinkLocalUnicast() {
				continue
			}
			r := 1
			switch {
			case ip == s.Preferred:
				r = 4
			case there && a.Subnet.Contains(dst.WithZone("")):
				r = 3
			case there:
				r = 2
			}
			if r > rank {
				best, rank = ip, r
			}
		}
	}
	if rank == 0 {
		return best, fmt.Errorf("this node has no address of its own to reach %s from, only virtual ones", dst)
	}
	return best, nil
}

// usable reports whether an address of this node may be a source at all.
func (s Source) usable(a KernelAddress) bool {
	ip := a.Prefix.Addr()
	return a.Protocol != AddrProtocol && !s.Virtual(ip) && !a.Tentative && !a.DADFailed && !ip.IsLoopback()
}

package place

import (
	"net/netip"
	"slices"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/vip"
)

// Source is what keeps this node's connections from leaving with a virtual address.
// advertise is HOST:PORT at which others reach it, virtual tells of a virtual address.
func Source(advertise string, virtual func(netip.Addr) bool) vip.Source {
	s := vip.Source{Virtual: virtual}
	if a, err := netip.ParseAddrPort(advertise); err == nil {
		s.Preferred = a.Addr().Unmap()
	}
	return s
}

// IsVirtual reports whether an address is one of this node's file or, if s is not nil, of
// the cluster's.
func IsVirtual(ip netip.Addr, c *config.Config, s *state.State) bool {
	if slices.Contains(FileAddresses(c), ip) {
		return true
	}
	if s == nil {
		return false
	}
	return slices.ContainsFunc(s.Instances, func(in state.Instance) bool { return hasAddress(in, ip) })
}

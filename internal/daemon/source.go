package daemon

import (
	"net/netip"
	"slices"

	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/vip"
)

// source is what keeps this node's connections from leaving with a virtual address.
func (d *Daemon) source(advertise string) vip.Source {
	s := vip.Source{Virtual: d.isVirtual}
	if a, err := netip.ParseAddrPort(advertise); err == nil {
		s.Preferred = a.Addr().Unmap()
	}
	return s
}

// isVirtual reports whether an address is one of the cluster's or of this node's file.
func (d *Daemon) isVirtual(ip netip.Addr) bool {
	if slices.Contains(fileAddresses(d.configuration()), ip) {
		return true
	}
	if d.node == nil {
		return false
	}
	return slices.ContainsFunc(d.node.State().Instances, func(in state.Instance) bool { return hasAddress(in, ip) })
}

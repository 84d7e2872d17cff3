package config

import (
	"net/netip"
	"slices"
)

// resolve does what needs all blocks: order does not matter to raftvip, while
// keepalived wants a script above the instances that use it.
func (l *loader) resolve() {
	global := l.vrrpGlobalDefs()
	for _, in := range l.instances {
		if in.Interface == "" && l.defaultInterfaceWritten {
			in.Interface = l.cfg.Global.DefaultInterface
		}
		in.GARP = l.cfg.Global.GARP
		for _, set := range in.garp {
			set(&in.GARP)
		}
		l.resolveScripts(in)
		for _, line := range in.interfaces {
			in.TrackInterfaces = append(in.TrackInterfaces, line.TrackRef)
		}
		l.resolvePreemption(in)
		l.checkInterfaces(in)
		for _, a := range in.Addresses {
			if a.Dev == "" && in.Interface == "" && a.Prefix.Addr().IsLinkLocalUnicast() {
				l.errorf(a.Pos, "virtual address %s: a link-local address needs its interface: dev, or interface of the instance", a.Prefix)
			}
		}
		l.resolveVRRP(in, global)
		if in.VirtualRouterID == 0 && in.vridPos == (Pos{}) && in.vrrp == nil {
			l.warnf(in.Pos, "vrrp_instance %s: no virtual_router_id; raftvip does not need it, keepalived and VRRP do (1 to 255)", shorten(in.Name))
		}
	}
	l.resolveSyncGroups()
	l.checkOwnership()
	l.checkAddresses()
	l.checkVRIDs()
	for _, s := range l.cfg.Scripts {
		block := l.scripts[s.Name]
		switch {
		case block.used:
			l.checkScript(block)
		default:
			l.warnf(s.Pos, "vrrp_script %s: not used by any vrrp_instance; it is not run", shorten(s.Name))
		}
	}
}

func (l *loader) resolveScripts(in *instanceBlock) {
	for _, line := range in.scripts {
		s, ok := l.scripts[line.Name]
		if !ok {
			var names []string
			for name := range l.scripts {
				names = append(names, name)
			}
			hint := ""
			if best := nearest(line.Name, names); best != "" {
				hint = "; did you mean " + best + "?"
			}
			l.errorf(line.Pos, "track_script %s: no such vrrp_script; must be the name of one%s", shorten(line.Name), hint)
			continue
		}
		s.used = true
		if s.seq > line.seq {
			l.warnf(line.Pos, "track_script %s: defined further down, at %s; keepalived would ignore this line", shorten(line.Name), s.Pos)
		}
		ref := line.TrackRef
		if !line.weight {
			ref.Weight = s.Weight
		}
		if !line.reverse && !line.weight {
			ref.Reverse = s.Reverse
		}
		in.TrackScripts = append(in.TrackScripts, ref)
	}
}

// resolvePreemption applies keepalived's rules for combinations of state,
// priority, nopreempt and preempt_delay.
func (l *loader) resolvePreemption(in *instanceBlock) {
	if in.InitialState == "MASTER" && !in.priorityWritten {
		l.warnf(in.Pos, "vrrp_instance %s: state MASTER without priority: 255 is used, as in keepalived; write a priority", shorten(in.Name))
		in.Priority = 255
	}
	why := ""
	switch {
	case in.InitialState == "MASTER":
		why = "state MASTER"
	case in.Priority == 255:
		why = "priority 255"
	}
	if in.NoPreempt && why != "" {
		l.warnf(in.noPreemptPos, "nopreempt: ignored with %s, as in keepalived; write state BACKUP on all nodes and a priority below 255", why)
		in.NoPreempt = false
	}
	if in.PreemptDelay > 0 {
		if why = ""; in.InitialState == "MASTER" {
			why = "state MASTER"
		} else if in.NoPreempt {
			why = "nopreempt"
		}
		if why != "" {
			l.warnf(in.preemptDelayPos, "preempt_delay: ignored with %s, as in keepalived", why)
			in.PreemptDelay = 0
		}
	}
	if in.Priority == 255 {
		for _, refs := range [][]TrackRef{in.TrackScripts, in.TrackInterfaces} {
			for _, ref := range refs {
				if ref.Weight != 0 {
					l.warnf(ref.Pos, "%s: its weight %d has no effect: priority 255 never changes", shorten(ref.Name), ref.Weight)
				}
			}
		}
	}
}

// checkInterfaces reports interfaces that the machine does not have.
func (l *loader) checkInterfaces(in *instanceBlock) {
	if l.opt.InterfaceExists == nil || l.cfg.Global.DynamicInterfaces {
		return
	}
	check := func(pos Pos, what, name string) {
		if name != "" && !l.opt.InterfaceExists(name) {
			l.errorf(pos, "%s %s: no such interface; must exist, unless dynamic_interfaces is set in global_defs", what, name)
		}
	}
	if in.interfacePos != (Pos{}) {
		check(in.interfacePos, "interface", in.Interface)
	} else {
		check(in.Pos, "default_interface", in.Interface)
	}
	for _, a := range in.Addresses {
		check(a.Pos, "dev", a.Dev)
	}
	for _, ref := range in.TrackInterfaces {
		check(ref.Pos, "track_interface", ref.Name)
	}
}

// checkAddresses finds addresses that are written twice. In one instance the
// second is dropped, as in keepalived; two instances may have different
// owners, so there it is an error.
func (l *loader) checkAddresses() {
	type key struct {
		addr netip.Addr
		dev  string // of link-local addresses, which are unique on a link only
	}
	type use struct {
		in  *instanceBlock
		pos Pos
	}
	uses := map[key]use{}
	for _, in := range l.instances {
		kept := in.Addresses[:0]
		for _, a := range in.Addresses {
			k := key{addr: a.Prefix.Addr()}
			if k.addr.IsLinkLocalUnicast() {
				if k.dev = a.Dev; k.dev == "" {
					k.dev = in.Interface
				}
			}
			first, ok := uses[k]
			switch {
			case !ok:
				uses[k] = use{in, a.Pos}
				kept = append(kept, a)
			case first.in == in:
				l.warnf(a.Pos, "address %s: already in this vrrp_instance at %s; this line is ignored", k.addr, first.pos)
			default:
				l.errorf(a.Pos, "address %s: also in vrrp_instance %s at %s; must be in one instance only", k.addr, shorten(first.in.Name), first.pos)
			}
		}
		in.Addresses = kept
		l.checkFamilies(in)
	}
}

func (l *loader) checkFamilies(in *instanceBlock) {
	if in.vrrp != nil && in.VRRP.Version == 3 && !in.noAddresses && !slices.ContainsFunc(in.Addresses, func(a Address) bool { return !a.Excluded }) {
		l.errorf(in.Pos, "vrrp_instance %s: no virtual_ipaddress; VRRP version 3 needs one, or no_virtual_ipaddress if that is intended", shorten(in.Name))
		return
	}
	if len(in.Addresses) == 0 && !in.noAddresses {
		l.warnf(in.Pos, "vrrp_instance %s: no address; write virtual_ipaddress, or no_virtual_ipaddress if that is intended", shorten(in.Name))
		return
	}
	var first *Address
	for i, a := range in.Addresses {
		if a.Excluded {
			continue
		}
		if first == nil {
			first = &in.Addresses[i]
		} else if a.Prefix.Addr().Is4() != first.Prefix.Addr().Is4() {
			if in.vrrp != nil {
				return // an error already
			}
			l.warnf(a.Pos, "virtual_ipaddress: IPv4 and IPv6 in one instance; keepalived would refuse this address outside virtual_ipaddress_excluded")
			return
		}
	}
}

// checkVRIDs reports what keepalived and VRRP refuse: two virtual routers of
// one family with one number on one interface.
func (l *loader) checkVRIDs() {
	type key struct {
		vrid int
		dev  string
		ipv6 bool
	}
	uses := map[key]*instanceBlock{}
	for _, in := range l.instances {
		if in.VirtualRouterID == 0 {
			continue
		}
		k := key{vrid: in.VirtualRouterID, dev: in.Interface}
		if len(in.Addresses) > 0 {
			k.ipv6 = in.Addresses[0].Prefix.Addr().Is6()
		}
		if in.vrrp != nil {
			k.ipv6 = in.VRRP.IPv6
		}
		if first, ok := uses[k]; ok && in.vrrp != nil && first.vrrp != nil {
			if !apart(in.VRRP, first.VRRP) {
				l.errorf(in.vridPos, "virtual_router_id %d: also used by vrrp_instance %s at %s; must be another one: both speak VRRP on %s", k.vrid, shorten(first.Name), first.vridPos, k.dev)
			}
		} else if ok {
			l.warnf(in.vridPos, "virtual_router_id %d: also used by vrrp_instance %s at %s; raftvip does not mind, keepalived and VRRP refuse this on one interface", k.vrid, shorten(first.Name), first.vridPos)
		} else {
			uses[k] = in
		}
	}
}

// apart reports whether two virtual routers of one number on one interface cannot
// hear each other's advertisements: both have peers, and none in common.
func apart(a, b *VRRP) bool {
	return len(a.Peers) > 0 && len(b.Peers) > 0 && !slices.ContainsFunc(a.Peers, func(p VRRPPeer) bool { return indexPeer(b.Peers, p.Addr) >= 0 })
}

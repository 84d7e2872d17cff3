package config

import (
	"math"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/raftvip/raftvip/internal/keepalived"
)

// vrrpGlobalDefs reads the VRRP settings of global_defs if some instance speaks
// VRRP; otherwise they have no effect, and each is reported as such.
func (l *loader) vrrpGlobalDefs() *vrrpGlobals {
	g := &vrrpGlobals{group4: vrrpGroup4, group6: vrrpGroup6}
	g.DownTimerAdverts = 3
	used := slices.ContainsFunc(l.instances, func(in *instanceBlock) bool { return in.vrrp != nil })
	known := l.vrrpGlobalStatements(g)
	for _, block := range l.globalVRRP {
		if used {
			l.statements(ctxGlobal, block, known)
			continue
		}
		for _, n := range block {
			l.notRead(ctxGlobal, n, nil)
		}
	}
	return g
}

// splitVRRP takes the statements that only VRRP uses out of a global_defs block.
func (l *loader) splitVRRP(block []*keepalived.Node) (rest []*keepalived.Node) {
	var vrrp []*keepalived.Node
	for _, n := range block {
		if supportedVRRP[ctxGlobal][n.Keyword()] {
			vrrp = append(vrrp, n)
		} else {
			rest = append(rest, n)
		}
	}
	l.globalVRRP = append(l.globalVRRP, vrrp)
	return rest
}

// resolveVRRP fills in defaults and checks what RFC 9568, RFC 3768 and keepalived
// demand of a virtual router.
func (l *loader) resolveVRRP(in *instanceBlock, g *vrrpGlobals) {
	v := in.vrrp
	if v == nil {
		return
	}
	r := v.VRRP
	r.SkipCheckAddresses, r.CheckSource, r.Strict = g.SkipCheckAddresses, g.CheckSource, g.Strict
	r.LowerPrioNoAdvert, r.HigherPrioSendAdvert = g.LowerPrioNoAdvert, g.HigherPrioSendAdvert
	r.OwnerIgnoreAdverts, r.PlainChecksum = g.OwnerIgnoreAdverts, g.PlainChecksum
	r.DownTimerAdverts, r.StartupDelay = g.DownTimerAdverts, g.StartupDelay
	for _, set := range v.set {
		set(&r)
	}
	l.vrrpIdentity(in, &r)
	l.vrrpVersion(in, &r)
	l.vrrpTransport(in, &r, g)
	l.vrrpStrict(in, &r)
	if r.Mode == VRRPHybrid {
		l.vrrpHybrid(in, &r)
	}
	in.VRRP = &r
}

// vrrpIdentity checks who the virtual router is.
func (l *loader) vrrpIdentity(in *instanceBlock, r *VRRP) {
	name := shorten(in.Name)
	if in.VirtualRouterID == 0 {
		l.errorf(in.Pos, "vrrp_instance %s: missing virtual_router_id; must be between 1 and 255 where vrrp is %s", name, r.Mode)
	}
	if in.Interface == "" {
		l.errorf(in.Pos, "vrrp_instance %s: missing interface; VRRP needs one", name)
	}
	var first *Address
	count := 0
	for i, a := range in.Addresses {
		if a.Excluded {
			continue
		}
		count++
		if first == nil {
			first = &in.Addresses[i]
			r.IPv6 = a.Prefix.Addr().Is6()
		} else if a.Prefix.Addr().Is6() != r.IPv6 {
			l.errorf(a.Pos, "virtual_ipaddress: %s: other family than %s; must be one family where vrrp is %s, with the other in virtual_ipaddress_excluded or another instance",
				a.Prefix, first.Prefix, r.Mode)
		}
	}
	if first == nil {
		// The family is then that of what is written otherwise.
		for _, a := range []netip.Addr{in.vrrp.Source, in.vrrp.groupSet} {
			r.IPv6 = r.IPv6 || a.Is6()
		}
		r.IPv6 = r.IPv6 || len(r.Peers) > 0 && r.Peers[0].Addr.Is6()
	}
	if count > 255 {
		l.errorf(in.Pos, "vrrp_instance %s: %d addresses in virtual_ipaddress; must be at most 255, put the others into virtual_ipaddress_excluded", name, count)
	}
}

// vrrpVersion settles the version and what depends on it.
func (l *loader) vrrpVersion(in *instanceBlock, r *VRRP) {
	v := in.vrrp
	if !v.versionSet {
		r.Version = l.cfg.Global.VRRPVersion
		if r.IPv6 {
			r.Version = 3
		}
	} else if r.Version == 2 && r.IPv6 {
		l.errorf(v.positions["version"], "version 2: IPv4 only; must be 3 with IPv6 addresses")
		r.Version = 3
	}
	where := in.advertPos
	if where == (Pos{}) {
		where = in.Pos
	}
	switch {
	case r.Version == 2 && in.AdvertInt%time.Second != 0:
		l.errorf(where, "advert_int %s: must be whole seconds between 1 and 255 with VRRP version 2", formatSeconds(in.AdvertInt))
	case r.Version == 3 && (in.AdvertInt > 40950*time.Millisecond || in.AdvertInt%(10*time.Millisecond) != 0):
		l.errorf(where, "advert_int %s: must be between 0.01 and 40.95 seconds in steps of 0.01 with VRRP version 3", formatSeconds(in.AdvertInt))
	}
	if r.Version == 3 && r.Password != "" {
		l.warnf(v.positions["authentication"], "authentication: ignored with VRRP version 3, as in keepalived; version 3 has none")
		r.Password = ""
	}
	if r.PlainChecksum && (r.Version == 2 || r.IPv6) {
		r.PlainChecksum = false
	}
}

// vrrpTransport settles where advertisements go.
func (l *loader) vrrpTransport(in *instanceBlock, r *VRRP, g *vrrpGlobals) {
	v := in.vrrp
	family := map[bool]string{false: "IPv4", true: "IPv6"}[r.IPv6]
	r.Group = g.group4
	if r.IPv6 {
		r.Group = g.group6
	}
	if v.groupSet.IsValid() {
		if v.groupSet.Is6() != r.IPv6 {
			l.errorf(v.positions["mcast_dst_ip"], "mcast_dst_ip %s: must be %s like the addresses", v.groupSet, family)
		}
		r.Group = v.groupSet
	}
	if r.Source.IsValid() {
		if r.Source.Is6() != r.IPv6 {
			l.errorf(v.positions[v.sourceWord], "%s %s: must be %s like the addresses", v.sourceWord, r.Source, family)
		}
	} else if r.TrackSource {
		l.warnf(v.positions["track_src_ip"], "track_src_ip: has no effect without unicast_src_ip or mcast_src_ip")
		r.TrackSource = false
	}
	for _, p := range r.Peers {
		switch {
		case p.Addr.Is6() != r.IPv6:
			l.errorf(p.Pos, "unicast_peer: %s: must be %s like the addresses", p.Addr, family)
		case p.Addr == r.Source:
			l.errorf(p.Pos, "unicast_peer: %s: is this node's own %s; must be the address of another node", p.Addr, v.sourceWord)
		case slices.ContainsFunc(in.Addresses, func(a Address) bool { return a.Prefix.Addr() == p.Addr }):
			l.errorf(p.Pos, "unicast_peer: %s: is a virtual address; must be the address of another node", p.Addr)
		}
	}
	if len(r.Peers) > 0 {
		if pos, ok := v.positions["mcast_dst_ip"]; ok {
			l.warnf(pos, "mcast_dst_ip: has no effect with unicast_peer")
		}
		return
	}
	for _, k := range []string{"unicast_src_ip", "unicast_ttl", "check_unicast_src"} {
		if pos, ok := v.positions[k]; ok && !r.NoPeerIsFault {
			l.warnf(pos, "%s without unicast_peer: advertisements go to the group %s, as in keepalived", k, r.Group)
		}
	}
}

// vrrpStrict applies vrrp_strict (keepalived.conf(5)). Its firewall rule is not
// applied: the addresses answer.
func (l *loader) vrrpStrict(in *instanceBlock, r *VRRP) {
	if !r.Strict {
		return
	}
	v, name := in.vrrp, shorten(in.Name)
	l.warnf(in.Pos, "vrrp_instance %s: vrrp_strict: its firewall rule is not applied, so the addresses answer; the rest of it is", name)
	if len(r.Peers) > 0 {
		l.errorf(v.positions["unicast_peer"], "unicast_peer: vrrp_strict forbids it; write strict_mode off in this instance, or use multicast")
	}
	if r.Password != "" {
		l.warnf(v.positions["authentication"], "authentication: ignored with vrrp_strict, as in keepalived")
		r.Password = ""
	}
	if in.PreemptDelay > 0 {
		l.warnf(in.preemptDelayPos, "preempt_delay: ignored with vrrp_strict, as in keepalived")
		in.PreemptDelay = 0
	}
	if r.DownTimerAdverts != 3 {
		l.warnf(in.Pos, "vrrp_instance %s: down_timer_adverts is 3 with vrrp_strict, as in keepalived", name)
		r.DownTimerAdverts = 3
	}
	r.LowerPrioNoAdvert, r.HigherPrioSendAdvert, r.OwnerIgnoreAdverts = true, false, true
}

// raftTakeover is how many heartbeat timeouts a change of the Raft owner after a
// failure may well take.
const raftTakeover = 2

// vrrpHybrid warns of timing under which keepalived would not see one continuous
// master.
func (l *loader) vrrpHybrid(in *instanceBlock, r *VRRP) {
	// What a peer of the highest priority below 255 waits: its skew is the shortest.
	down := time.Duration(r.DownTimerAdverts) * in.AdvertInt
	if need := raftTakeover * l.cfg.Raft.HeartbeatTimeout; down < need {
		l.warnf(r.Pos, "vrrp hybrid: a VRRP peer takes over %ss after the owner fell silent, and a new Raft owner may need %ss: the addresses may move to the peer and back; "+
			"make advert_int at least %s, or heartbeat_timeout shorter", formatSeconds(down), formatSeconds(need),
			formatSeconds(max(in.AdvertInt, ceilTo(need/time.Duration(r.DownTimerAdverts), 10*time.Millisecond))))
	}
	if in.Priority == 255 {
		l.warnf(in.Pos, "vrrp_instance %s: priority 255 with vrrp hybrid: this node never yields to a VRRP peer; write a priority below 255", shorten(in.Name))
	}
}

func ceilTo(d, step time.Duration) time.Duration {
	return time.Duration(math.Ceil(float64(d)/float64(step))) * step
}

// formatSeconds shows a duration as in a file.
func formatSeconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64)
}

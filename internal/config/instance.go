package config

import (
	"maps"
	"time"

	"github.com/raftvip/raftvip/internal/keepalived"
)

// defaultScriptInterval is keepalived's (keepalived.conf(5), vrrp_script).
const defaultScriptInterval = time.Second

// instanceBlock is an instance with what is needed until all blocks are read.
type instanceBlock struct {
	*Instance
	garp            []func(*GARP) // the instance's own settings over the global ones
	vrrp            *vrrpBlock    // nil: off
	advertPos       Pos
	interfacePos    Pos
	vridPos         Pos
	priorityWritten bool
	noPreemptPos    Pos
	preemptDelayPos Pos
	noAddresses     bool
	scripts         []trackLine
	interfaces      []trackLine
}

func (l *loader) vrrpInstance(n *keepalived.Node) {
	name, ok := l.name(n)
	if !ok {
		return
	}
	if first, ok := l.instanceNames[name]; ok {
		l.errorf(n.Pos, "vrrp_instance %s: defined before, at %s; names must be unique", shorten(name), first)
		return
	}
	l.instanceNames[name] = n.Pos

	in := &instanceBlock{Instance: &Instance{Pos: n.Pos, Name: name, Priority: 100, AdvertInt: time.Second}}
	known := l.instanceStatements(in)
	if mode, pos := l.vrrpMode(n.Block); mode != "" {
		in.vrrp = &vrrpBlock{VRRP: VRRP{Pos: pos, Mode: mode, TTL: 255}, positions: map[string]Pos{}}
		maps.Copy(known, l.vrrpStatements(in.vrrp))
	}
	l.statements(ctxInstance, n.Block, known)
	if len(in.Addresses) > 1 {
		// virtual_ipaddress first, whatever the order in the file.
		var first, excluded []Address
		for _, a := range in.Addresses {
			if a.Excluded {
				excluded = append(excluded, a)
			} else {
				first = append(first, a)
			}
		}
		in.Addresses = append(first, excluded...)
	}
	l.instances = append(l.instances, in)
	l.cfg.Instances = append(l.cfg.Instances, in.Instance)
}

func (l *loader) instanceStatements(in *instanceBlock) map[string]statement {
	known := map[string]statement{
		"interface": {read: func(n *keepalived.Node) {
			in.interfacePos = n.Pos
			if v, ok := l.value(n, "an interface name"); ok && l.interfaceName(n.Pos, "interface", v) {
				in.Interface = v
			}
		}},
		"state": {read: func(n *keepalived.Node) {
			v, ok := l.value(n, "MASTER or BACKUP")
			if ok && v != "MASTER" && v != "BACKUP" {
				l.warnf(n.Pos, "state %s: taken as BACKUP, as in keepalived; must be MASTER or BACKUP", shorten(v))
				v = "BACKUP"
			}
			in.InitialState = v
		}},
		"virtual_router_id": {read: func(n *keepalived.Node) {
			in.vridPos = n.Pos
			if v, ok := l.integer(n, 1, 255); ok {
				in.VirtualRouterID = v
			}
		}},
		"priority": {read: func(n *keepalived.Node) {
			in.priorityWritten = true
			if v, ok := l.integer(n, 1, 255); ok {
				in.Priority = v
			}
		}},
		"advert_int": {read: func(n *keepalived.Node) {
			in.advertPos = n.Pos
			l.setSeconds(&in.AdvertInt, "0.01", "255")(n)
		}},
		"vrrp": {read: l.readVRRPMode},
		"virtual_ipaddress": {block: true, many: true, read: func(n *keepalived.Node) {
			in.Addresses = append(in.Addresses, l.addresses(n, false)...)
		}},
		"virtual_ipaddress_excluded": {block: true, many: true, read: func(n *keepalived.Node) {
			in.Addresses = append(in.Addresses, l.addresses(n, true)...)
		}},
		"no_virtual_ipaddress": {read: l.setFlag(&in.noAddresses)},
		"track_script": {block: true, many: true, read: func(n *keepalived.Node) {
			in.scripts = l.track(n, in.scripts)
		}},
		"track_interface": {block: true, many: true, read: func(n *keepalived.Node) {
			in.interfaces = l.track(n, in.interfaces)
		}},
		"nopreempt": {read: func(n *keepalived.Node) {
			if v, ok := l.flag(n); ok {
				in.NoPreempt, in.noPreemptPos = v, n.Pos
			}
		}},
		"preempt": {read: func(n *keepalived.Node) {
			if v, ok := l.flag(n); ok {
				in.NoPreempt, in.noPreemptPos = !v, n.Pos
			}
		}},
		"preempt_delay": {read: func(n *keepalived.Node) {
			in.preemptDelayPos = n.Pos
			l.setSeconds(&in.PreemptDelay, "0", "1000")(n)
		}},
		"dont_track_primary": {read: l.setFlag(&in.DontTrackPrimary)},
	}
	l.garpStatements(known, "", &GARP{}, &in.garp)
	return known
}

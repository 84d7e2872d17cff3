package vrrp

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/vrrpcompat"
	"github.com/raftvip/raftvip/vrrpcompat/vrrpnet"
)

// speakerSettings are what a virtual router is built from. Two that are equal need
// no other router; the priority is not part of them.
type speakerSettings struct {
	net     vrrpnet.Options
	expect  vrrpcompat.Expect
	machine vrrpcompat.MachineConfig
}

// settingsOf makes the virtual router of an instance, but for its priority and the
// addresses that it advertises.
func settingsOf(in *config.Instance) speakerSettings {
	v := in.VRRP
	version := vrrpcompat.Version(v.Version)
	s := speakerSettings{
		net: vrrpnet.Options{
			Interface: in.Interface, IPv6: v.IPv6, VRID: uint8(in.VirtualRouterID),
			Group: v.Group, Source: v.Source, TTL: v.TTL, IgnoreCarrier: in.DontTrackPrimary,
		},
		expect: vrrpcompat.Expect{
			Version: version, VRID: uint8(in.VirtualRouterID), IPv6: v.IPv6,
			AddressOwner: in.Priority == vrrpcompat.PriorityOwner && v.OwnerIgnoreAdverts,
			Interval:     in.AdvertInt, Group: v.Group, CheckUnicastSource: v.CheckSource,
			Addresses: vrrpcompat.AddressList{Skip: v.SkipCheckAddresses},
		},
		machine: vrrpcompat.MachineConfig{
			Version: version, Interval: in.AdvertInt, NoPreempt: in.NoPreempt, PreemptDelay: in.PreemptDelay, Accept: true,
			DownTimerAdverts: v.DownTimerAdverts, LowerPrioNoAdvert: v.LowerPrioNoAdvert, HigherPrioSendAdvert: v.HigherPrioSendAdvert,
			Hybrid: v.Mode == config.VRRPHybrid,
		},
	}
	if v.Password != "" {
		s.expect.AuthType, s.expect.Auth = vrrpcompat.AuthPass, vrrpcompat.Password(v.Password)
	}
	if v.PlainChecksum {
		s.expect.Checksum = vrrpcompat.ChecksumPlain
	}
	for _, p := range v.Peers {
		s.expect.Peers = append(s.expect.Peers, vrrpcompat.Peer{Address: p.Addr, MinTTL: max(p.MinTTL, 0), MaxTTL: max(p.MaxTTL, 0)})
	}
	if v.VMAC {
		s.net.VMAC = &vrrpnet.VMAC{Name: v.VMACName, TransmitBase: v.VMACBase}
	}
	return s
}

// router makes the virtual router.
func (s speakerSettings) router(addrs []netip.Addr, priority uint8, sink vrrpnet.Sink, log *slog.Logger) (*vrrpnet.Router, error) {
	s.expect.Addresses.Addresses = addrs
	s.machine.Priority = priority
	return vrrpnet.NewRouter(vrrpnet.Config{Options: s.net, Machine: s.machine, Expect: s.expect, Sink: sink, Log: log})
}

// A speaker is a virtual router on the wire: a vrrpnet.Router.
type speaker interface {
	Run(context.Context) error
	Entitle(fellow bool)
	Disentitle(handedOver bool)
	SetPriority(uint8)
	SetFellows([]netip.Addr)
	SetAddresses([]netip.Addr) error
	Status() vrrpnet.Status
	Changed() <-chan struct{}
}

package vrrp

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/raftvip/raftvip/internal/check"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/vrrpcompat"
	"github.com/raftvip/raftvip/vrrpcompat/vrrpnet"
)

func TestDecideHybrid(t *testing.T) {
	owner := hybridInputs{own: true, speaks: true, started: true}
	with := func(change func(*hybridInputs)) hybridInputs {
		in := owner
		change(&in)
		return in
	}
	for name, c := range map[string]struct {
		in   hybridInputs
		want hybridDecision // without why
		why  string
	}{
		"neither leads nor speaks":                  {hybridInputs{speaks: true, started: true}, hybridDecision{}, "another node is the Raft owner"},
		"master without a lease is nothing":         {hybridInputs{speaks: true, started: true, master: true}, hybridDecision{}, "another node"},
		"a member takes over":                       {hybridInputs{speaks: true, started: true, master: true, successor: true}, hybridDecision{handedOver: true}, "another node"},
		"owner, nothing heard yet":                  {owner, hybridDecision{entitled: true}, "listening"},
		"owner beside a better master":              {with(func(in *hybridInputs) { in.other = "192.0.2.1 with priority 200" }), hybridDecision{entitled: true}, "ready to take over from VRRP master 192.0.2.1 with priority 200"},
		"owner and master":                          {with(func(in *hybridInputs) { in.master = true }), hybridDecision{entitled: true, up: true}, "Raft owner and VRRP master"},
		"master, though another was heard as well":  {with(func(in *hybridInputs) { in.master, in.other = true, "x" }), hybridDecision{entitled: true, up: true}, "VRRP master"},
		"owner of an instance that does not speak":  {with(func(in *hybridInputs) { in.speaks = false }), hybridDecision{up: true}, "Raft owner"},
		"no VRRP and not the owner":                 {hybridInputs{successor: true}, hybridDecision{handedOver: true}, "another node"},
		"a virtual router that cannot work":         {with(func(in *hybridInputs) { in.master, in.fault = true, "no socket" }), hybridDecision{}, "no socket"},
		"vrrp_startup_delay":                        {with(func(in *hybridInputs) { in.master, in.started = true, false }), hybridDecision{}, "vrrp_startup_delay"},
		"a fault is told even during startup delay": {with(func(in *hybridInputs) { in.fault, in.started = "no socket", false }), hybridDecision{}, "no socket"},
	} {
		got := decideHybrid(c.in)
		if !strings.Contains(got.why, c.why) {
			t.Errorf("%s: %q lacks %q", name, got.why, c.why)
		}
		if got.why = ""; got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

// Whatever VRRP says, an address needs Raft, and where the instance speaks, VRRP.
func TestDecideHybridNeedsBoth(t *testing.T) {
	each := []bool{false, true}
	for _, own := range each {
		for _, successor := range each {
			for _, speaks := range each {
				for _, started := range each {
					for _, master := range each {
						for _, fault := range []string{"", "bad"} {
							in := hybridInputs{own: own, successor: successor, speaks: speaks, started: started, master: master, fault: fault, other: "x"}
							d := decideHybrid(in)
							if d.up && (!own || speaks && (!master || !d.entitled)) || d.entitled && !own || d.entitled && d.handedOver {
								t.Errorf("%+v: %+v", in, d)
							}
						}
					}
				}
			}
		}
	}
}

func TestDecidePlain(t *testing.T) {
	ready := plainInputs{started: true, check: check.InstanceReport{Ready: true, Effective: 120}}
	with := func(change func(*plainInputs)) plainInputs {
		in := ready
		change(&in)
		return in
	}
	for name, c := range map[string]struct {
		in   plainInputs
		want plainDecision
	}{
		"takes part":  {ready, plainDecision{runs: true, state: "backup"}},
		"master":      {with(func(in *plainInputs) { in.master = true }), plainDecision{runs: true, up: true, state: "master", why: "VRRP master with priority 120"}},
		"first check": {with(func(in *plainInputs) { in.check.Ready, in.master = false, true }), plainDecision{state: "initialize", why: "waiting for the first result of each check"}},
		"delay":       {with(func(in *plainInputs) { in.started, in.master = false, true }), plainDecision{state: "initialize", why: "waiting for vrrp_startup_delay"}},
		"faults": {with(func(in *plainInputs) {
			in.master, in.check.Faults, in.faults = true, []string{"script a failed"}, []string{"no interface"}
		}), plainDecision{state: "fault", why: "script a failed; no interface"}},
		"the cluster's": {with(func(in *plainInputs) { in.master, in.claimed = true, "the cluster has it" }), plainDecision{state: "fault", why: "the cluster has it"}},
	} {
		if got := decidePlain(c.in); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func instanceFrom(t *testing.T, lines string) *config.Instance {
	t.Helper()
	c, diags := config.LoadBytes("x", []byte("vrrp_instance V {\ninterface eth0\nvirtual_router_id 51\nvirtual_ipaddress {\n10.0.0.2/24\n10.0.0.1/24\n}\n"+
		"virtual_ipaddress_excluded {\n10.0.0.3/24\n}\n"+lines+"\n}"), config.Options{HostName: "h"})
	if c == nil {
		t.Fatal(diags)
	}
	return c.Instances[0]
}

func TestSettingsOf(t *testing.T) {
	addr := netip.MustParseAddr
	in := instanceFrom(t, "vrrp hybrid\nversion 3\nadvert_int 0.5\npriority 255\nnopreempt\nowner_ignore_adverts\nv3_checksum_as_v2\nskip_check_adv_addr\n"+
		"unicast_src_ip 10.0.0.9\nunicast_ttl 64\ncheck_unicast_src\nuse_vmac x\nvmac_xmit_base\nlower_prio_no_advert\nhigher_prio_send_advert\n"+
		"down_timer_adverts 4\ndont_track_primary\nunicast_peer {\n10.0.0.8\n10.0.0.7 min_ttl 63 max_ttl 65\n}")
	s := settingsOf(in)
	if s.net.Interface != "eth0" || s.net.VRID != 51 || s.net.Source != addr("10.0.0.9") || s.net.TTL != 64 || !s.net.IgnoreCarrier ||
		s.net.VMAC == nil || *s.net.VMAC != (vrrpnet.VMAC{Name: "x", TransmitBase: true}) {
		t.Errorf("%+v", s.net)
	}
	if s.expect.Version != 3 || s.expect.Interval != in.AdvertInt || !s.expect.AddressOwner || s.expect.Checksum != vrrpcompat.ChecksumPlain ||
		!s.expect.Addresses.Skip || !s.expect.CheckUnicastSource ||
		!reflect.DeepEqual(s.expect.Peers, []vrrpcompat.Peer{{Address: addr("10.0.0.8")}, {Address: addr("10.0.0.7"), MinTTL: 63, MaxTTL: 65}}) {
		t.Errorf("%+v", s.expect)
	}
	if m := s.machine; !m.Hybrid || m.DownTimerAdverts != 4 || !m.LowerPrioNoAdvert || !m.HigherPrioSendAdvert || !m.Accept {
		t.Errorf("%+v", m)
	}
	v2 := settingsOf(instanceFrom(t, "vrrp only\nauthentication {\nauth_type PASS\nauth_pass abc\n}"))
	if v2.machine.Hybrid || v2.expect.AuthType != vrrpcompat.AuthPass || v2.expect.Auth != vrrpcompat.Password("abc") || v2.expect.Version != 2 {
		t.Errorf("%+v", v2)
	}
	// What only differs in priority and addresses needs no other router.
	if !reflect.DeepEqual(settingsOf(instanceFrom(t, "vrrp only\npriority 7")), settingsOf(instanceFrom(t, "vrrp only\npriority 9"))) {
		t.Error("the priority is part of the settings")
	}
	if _, err := s.router(place.Advertised(place.InstanceOf(in)), 1, nil, nil); err != nil {
		t.Error(err)
	}
}

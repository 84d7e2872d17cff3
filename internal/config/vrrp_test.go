package config_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/config"
)

func TestVRRP(t *testing.T) {
	addr := netip.MustParseAddr
	const head = "vrrp_instance A {\ninterface eth0\nvirtual_router_id 51\nvirtual_ipaddress { 10.0.0.1/24 }\n"
	defaults := config.VRRP{
		Mode: config.VRRPHybrid, Version: 2, Group: addr("224.0.0.18"), TTL: 255, DownTimerAdverts: 3,
	}
	with := func(change func(*config.VRRP)) config.VRRP {
		v := defaults
		change(&v)
		return v
	}
	for name, c := range map[string]struct {
		file string
		want config.VRRP
	}{
		"defaults":                {head + "vrrp hybrid\n}", defaults},
		"the mode may stand last": {head + "version 3\nvrrp only\n}", with(func(v *config.VRRP) { v.Mode, v.Version = config.VRRPOnly, 3 })},
		"global defaults": {"global_defs {\nvrrp_version 3\nvrrp_mcast_group4 224.0.0.44\nvrrp_skip_check_adv_addr\nvrrp_check_unicast_src\n" +
			"vrrp_down_timer_adverts 5\nv3_checksum_as_v2\nvrrp_startup_delay 2.5\n" +
			"vrrp_lower_prio_no_advert\nvrrp_higher_prio_send_advert\nvrrp_owner_ignore_adverts\n}\n" + head + "vrrp hybrid\n}",
			with(func(v *config.VRRP) {
				v.Version, v.Group, v.SkipCheckAddresses, v.CheckSource = 3, addr("224.0.0.44"), true, true
				v.DownTimerAdverts = 5
				v.PlainChecksum, v.StartupDelay, v.LowerPrioNoAdvert = true, 2500*time.Millisecond, true
				v.HigherPrioSendAdvert, v.OwnerIgnoreAdverts = true, true
			})},
		"the instance's own, whatever the order": {head + "vrrp hybrid\nskip_check_adv_addr off\ndown_timer_adverts 4\n" +
			"unicast_src_ip 10.0.0.9\ntrack_src_ip\nunicast_ttl 0\nunicast_fault_no_peer\nuse_vmac v1\nvmac_xmit_base\n" +
			"authentication {\nauth_pass \"a b\"\nauth_type PASS\n}\n" +
			"unicast_peer {\n10.0.0.8\n10.0.0.7 min_ttl 1 max_ttl 64\n}\n}\nglobal_defs {\nvrrp_skip_check_adv_addr\nvrrp_down_timer_adverts 5\n}",
			with(func(v *config.VRRP) {
				v.DownTimerAdverts, v.Source, v.TrackSource = 4, addr("10.0.0.9"), true
				v.TTL, v.NoPeerIsFault, v.VMAC, v.VMACName, v.VMACBase, v.Password = 0, true, true, "v1", true, "a b"
				v.Peers = []config.VRRPPeer{{Addr: addr("10.0.0.8"), MinTTL: -1, MaxTTL: -1}, {Addr: addr("10.0.0.7"), MinTTL: 1, MaxTTL: 64}}
			})},
		"IPv6 is version 3": {strings.Replace(head, "10.0.0.1/24", "fd00::1/64", 1) + "vrrp hybrid\n}",
			with(func(v *config.VRRP) { v.Version, v.IPv6, v.Group = 3, true, addr("ff02::12") })},
		"strict": {head + "vrrp hybrid\nstrict_mode\nauthentication {\nauth_type PASS\nauth_pass x\n}\nhigher_prio_send_advert\n}",
			with(func(v *config.VRRP) {
				v.Strict, v.LowerPrioNoAdvert, v.OwnerIgnoreAdverts = true, true, true
			})},
	} {
		cfg, diags := config.LoadBytes("x", []byte(c.file), machine())
		if cfg == nil {
			t.Errorf("%s: %s", name, list(diags))
			continue
		}
		got := *cfg.Instances[0].VRRP
		got.Pos = config.Pos{}
		for i := range got.Peers {
			got.Peers[i].Pos = config.Pos{}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, c.want)
		}
	}
}

// Without VRRP, or with it written off again, nothing of it is looked at.
func TestVRRPOff(t *testing.T) {
	for _, mode := range []string{"", "vrrp off", "vrrp hybrid\nvrrp off"} {
		cfg, diags := config.LoadBytes("x", []byte("vrrp_instance A {\ninterface eth0\nvirtual_router_id 51\n"+mode+
			"\nunicast_ttl 999\nauthentication {\nauth_type AH\n}\nvirtual_ipaddress { 10.0.0.1/24 }\n}"), machine())
		if cfg == nil || cfg.Instances[0].VRRP != nil {
			t.Errorf("%q: %s", mode, list(diags))
		}
		if text := list(diags); strings.Count(text, "accepted, has no effect") != 2 {
			t.Errorf("%q: %s", mode, text)
		}
	}
}

// A password is never shown.
func TestVRRPPasswordHidden(t *testing.T) {
	for _, line := range []string{"auth_pass hunter2", "auth_pass hunter2hunter2 hunter2", "auth_pass", "auth_passhunter2", "auth_type PASS\nauth_pass hunter2 hunter2"} {
		_, diags := config.LoadBytes("x", []byte("vrrp_instance A {\nvrrp hybrid\ninterface eth0\nvirtual_router_id 5\nvirtual_ipaddress { 10.0.0.1 }\nauthentication {\n"+line+"\n}\n}"), machine())
		if text := list(diags); strings.Contains(text, "hunter") {
			t.Errorf("%q: %s", line, text)
		}
	}
}

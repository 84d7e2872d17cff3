package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/raftvip/raftvip/internal/config"
)

// Every keyword of keepalived that is not supported gives exactly one warning
// with its line, with or without values, and with a block if it takes one.
func TestKeywordsWithoutEffect(t *testing.T) {
	blocks := map[string]string{
		"%s":                   rootKeywords,
		"global_defs {\n%s\n}": globalKeywords,
		"vrrp_instance I {\nno_virtual_ipaddress\nvirtual_router_id 1\n%s\n}": instanceKeywords,
		"vrrp_instance I {\nno_virtual_ipaddress\nvirtual_router_id 1\n}\nvrrp_instance J {\nno_virtual_ipaddress\nvirtual_router_id 2\n}\nvrrp_sync_group G {\ngroup { I J }\n%s\n}": syncKeywords,
		"vrrp_script s {\nscript pgrep\n%s\n}\nvrrp_instance I {\nno_virtual_ipaddress\nvirtual_router_id 1\ntrack_script {\ns\n}\n}":                                                 "init_fail",
	}
	for block, keywords := range blocks {
		line := strings.Count(strings.Split(block, "%s")[0], "\n") + 1
		for _, k := range strings.Fields(keywords) {
			for _, form := range []string{k, k + " 10.0.0.1 \"a b\"", k + " x {\n\ta 1\n\tb { c }\n}"} {
				_, diags := config.LoadBytes("x", fmt.Appendf(nil, block, form), machine())
				want := fmt.Sprintf("x:%d: warning: %s: accepted, has no effect in this version", line, k)
				if len(diags) != 1 || !strings.HasPrefix(diags[0].String(), want) {
					t.Errorf("%q: got %q, want one %s", form, list(diags), want)
				}
			}
		}
	}
}

// Two families match these keywords; the reason must not depend on chance.
func TestFamiliesAreDeterminate(t *testing.T) {
	text := "global_defs {\nchecker_process_name x\nlvs_netlink_cmd_rcv_bufs 1\nsmtp_alerts\nsmpt_alert\n}"
	_, diags := config.LoadBytes("x", []byte(text), machine())
	first := list(diags)
	for range 50 {
		if _, diags := config.LoadBytes("x", []byte(text), machine()); list(diags) != first {
			t.Fatalf("got\n%s\nand\n%s", first, list(diags))
		}
	}
	if strings.Contains(first, "*") || strings.Contains(first, "smtp_?") {
		t.Error(first)
	}
}

const rootKeywords = `net_namespace net_namespace_ipvs namespace_with_ipsets instance use_pid_dir child_wait_time
	linkbeat_use_polling linkbeat_interfaces interface_up_down_delays garp_group track_group static_ipaddress
	static_routes static_rules track_file vrrp_track_file vrrp_track_process track_process
	bfd_instance virtual_server virtual_server_group real_server sorry_server SSL`

const globalKeywords = `notification_email notification_email_from smtp_server smtp_connect_timeout smtp_helo_name
	smtp_alert smtp_alert_vrrp no_email_faults use_symlink_paths set_supplementary_groups vrrp_strict
	vrrp_skip_check_adv_addr vrrp_check_unicast_src vrrp_mcast_group4 vrrp_mcast_group6 vrrp_garp_lower_prio_delay
	vrrp_garp_lower_prio_repeat vrrp_min_garp vrrp_garp_extra_if vrrp_vmac_garp_intvl vrrp_lower_prio_no_advert
	vrrp_higher_prio_send_advert vrrp_down_timer_adverts vrrp_startup_delay vrrp_delay_after_boot
	vrrp_notify_priority_changes vrrp_owner_ignore_adverts log_unknown_vrids disable_local_igmp vrrp_iptables
	vrrp_ipsets nftables nftables_priority nftables_counters nftables_ifindex v3_checksum_as_v2 notify_fifo
	notify_fifo_script vrrp_notify_fifo vrrp_notify_fifo_script fifo_write_vrrp_states_on_reload startup_script
	shutdown_script startup_script_timeout shutdown_script_timeout reload_check_config reload_time_file reload_repeat
	reload_file include_check config_save_dir tmp_config_directory data_use_instance state_dump_file stats_dump_file
	json_dump_file json_version max_auto_priority min_auto_priority_delay vrrp_priority vrrp_no_swap vrrp_rt_priority
	vrrp_cpu_affinity vrrp_rlimit_rttime process_names vrrp_process_name umask random_seed vrrp_netlink_cmd_rcv_bufs
	vrrp_rx_bufs_policy vrrp_rx_bufs_multiplier iproute_usr_dir iproute_etc_dir vmac_prefix vmac_addr_prefix
	enable_snmp_vrrp enable_traps snmp_socket enable_dbus dbus_service_name lvs_sync_daemon checker_priority
	bfd_priority rs_init_notifies smtp_alert_checker snmp_vs_stats_update_interval nftables_ipvs no_checker_emails`

const syncKeywords = `notify_master notify_backup notify_fault notify_stop notify notify_deleted track_script track_interface
	track_file track_process track_bfd smtp_alert notify_priority_changes global_tracking sync_group_tracking_weight`

const instanceKeywords = `authentication auth_hmac virtual_routes virtual_rules unicast_src_ip mcast_src_ip unicast_peer
	unicast_ttl check_unicast_src unicast_fault_no_peer old_unicast_checksum mcast_dst_ip track_src_ip version
	track_process track_file track_bfd notify_master notify_backup notify_fault notify_stop notify notify_deleted
	notify_master_rx_lower_pri smtp_alert notify_priority_changes garp_lower_prio_delay garp_lower_prio_repeat
	garp_extra_if vmac_garp_intvl lower_prio_no_advert higher_prio_send_advert down_timer_adverts owner_ignore_adverts
	timer_expired_backup thread_timer_expired accept no_accept strict_mode skip_check_adv_addr v3_checksum_as_v2
	promote_secondaries use_vmac vmac_xmit_base use_vmac_addr use_ipvlan vrf linkbeat_use_polling kernel_rx_buf_size
	debug native_ipv6 lvs_sync_daemon_interface`

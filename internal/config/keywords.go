package config

import (
	"fmt"
	"strings"
)

// A context is a kind of block.
type context string

const (
	ctxRoot     context = "top level"
	ctxGlobal   context = "global_defs"
	ctxInstance context = "vrrp_instance"
	ctxScript   context = "vrrp_script"
	ctxRaft     context = "raft"
	ctxSync     context = "vrrp_sync_group"

	// ctxAuthentication is a block of an instance; nothing else is found there.
	ctxAuthentication context = "authentication"
)

var contexts = []context{ctxRoot, ctxGlobal, ctxInstance, ctxScript, ctxRaft, ctxSync}

func (c context) where() string {
	if c == ctxRoot {
		return "no block"
	}
	return "a " + string(c) + " block"
}

// supported names the keywords that have an effect, to say where a misplaced
// one belongs.
var supported = map[context]map[string]bool{
	ctxRoot: words("global_defs vrrp_script vrrp_instance vrrp_sync_group raft"),
	ctxGlobal: words(`router_id script_user enable_script_security default_interface dynamic_interfaces
		vrrp_version vrrp_garp_master_delay vrrp_garp_master_repeat vrrp_garp_master_refresh
		vrrp_garp_master_refresh_repeat vrrp_garp_interval vrrp_gna_interval`),
	ctxInstance: words(`state interface virtual_router_id priority advert_int virtual_ipaddress
		virtual_ipaddress_excluded no_virtual_ipaddress track_script track_interface nopreempt preempt
		preempt_delay dont_track_primary garp_master_delay garp_master_repeat garp_master_refresh
		garp_master_refresh_repeat vrrp`),
	ctxScript: words("script interval timeout weight rise fall user"),
	ctxRaft: words(`node_id listen advertise peers secret_file data_dir socket heartbeat_timeout
		ownership guard witness on_quorum_loss tls`),
	ctxSync: words("group"),
}

// supportedVRRP names the keywords that have an effect only where an instance
// has "vrrp hybrid" or "vrrp only"; of global_defs, where any has.
var supportedVRRP = map[context]map[string]bool{
	ctxGlobal: words(`vrrp_mcast_group4 vrrp_mcast_group6 vrrp_skip_check_adv_addr vrrp_check_unicast_src
		vrrp_lower_prio_no_advert vrrp_higher_prio_send_advert vrrp_owner_ignore_adverts vrrp_strict
		v3_checksum_as_v2 vrrp_startup_delay vrrp_down_timer_adverts`),
	ctxInstance: words(`version authentication auth_hmac unicast_src_ip mcast_src_ip track_src_ip unicast_peer
		unicast_ttl check_unicast_src unicast_fault_no_peer mcast_dst_ip use_vmac vmac_xmit_base v3_checksum_as_v2
		skip_check_adv_addr lower_prio_no_advert higher_prio_send_advert owner_ignore_adverts strict_mode
		down_timer_adverts accept native_ipv6`),
}

func words(s string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(s) {
		m[w] = true
	}
	return m
}

func noEffectMessage(keyword, reason string) string {
	s := keyword + ": accepted, has no effect in this version"
	if reason != "" {
		s += "; " + reason
	}
	return s
}

// noEffect looks a keyword up among those that keepalived knows and raftvip
// does not act on. The reason may be empty.
func noEffect(ctx context, keyword string) (reason string, ok bool) {
	table := noEffectTable[ctx]
	if reason, ok := table[keyword]; ok {
		return reason, true
	}
	longest := ""
	for pattern := range table {
		head, prefix := strings.CutSuffix(pattern, "*")
		tail, suffix := strings.CutPrefix(pattern, "*")
		matches := prefix && strings.HasPrefix(keyword, head) || suffix && strings.HasSuffix(keyword, tail)
		if matches && (len(pattern) > len(longest) || len(pattern) == len(longest) && pattern < longest) {
			longest = pattern
		}
	}
	return table[longest], longest != ""
}

// Reasons that several keywords share.
const (
	onlyVRRP       = "used only by VRRP"
	noVRRPGarp     = "a lower-priority VRRP advertisement is never heard without VRRP"
	noScripts      = "no notify script is run"
	noMail         = "no mail is sent"
	noFIFO         = "no notify FIFO is written"
	noFirewall     = "no firewall rule is applied"
	noSNMP         = "there is no SNMP agent"
	noDBus         = "there is no D-Bus interface"
	noLVS          = "raftvip has no LVS part"
	noRoutes       = "no routes or rules are set; use the system's network configuration"
	noTracker      = "this check does not run and changes neither priority nor fault state"
	noGroupTracker = "a group tracks nothing of its own; track it in one of its instances"
	noVMAC         = "addresses are put on the interface itself"
	noTuning       = "raftvip manages its own process"
	noDumps        = "use raftvip status --json"
	alwaysTold     = "a reload is always checked as a whole before anything changes"
	separately     = "the mechanism that keeps two nodes from answering is always on"
)

// noEffectTable has every keyword of keepalived 2.4 that is not supported. A
// name may begin or end with * for a family of keywords.
var noEffectTable = map[context]map[string]string{
	ctxRoot: table(
		entry("the block is skipped as a whole: "+noLVS,
			"virtual_server", "virtual_server_group", "real_server", "sorry_server", "SSL"),
		entry(noTracker, "track_file", "vrrp_track_file", "track_process", "vrrp_track_process", "bfd_instance"),
		entry(noRoutes, "static_routes", "static_rules"),
		entry("use the system's network configuration", "static_ipaddress"),
		entry("static items are not supported", "track_group"),
		entry("run the daemon in the namespace instead", "net_namespace"),
		entry(noLVS, "net_namespace_ipvs", "namespace_with_ipsets"),
		entry("several daemons are told apart by data_dir and socket in the raft block", "instance"),
		entry(noTuning, "use_pid_dir", "child_wait_time"),
		entry("link state comes from netlink", "linkbeat_use_polling", "linkbeat_interfaces"),
		entry("a link change counts at once", "interface_up_down_delays"),
		entry("use vrrp_garp_interval and vrrp_gna_interval", "garp_group"),
	),
	ctxGlobal: table(
		entry(noMail, "notification_email", "notification_email_from", "smtp_*", "no_email_faults", "no_checker_emails"),
		entry("scripts are run by the path that is written", "use_symlink_paths"),
		entry("scripts run without supplementary groups", "set_supplementary_groups"),
		entry(noFirewall, "vrrp_strict", "vrrp_iptables", "vrrp_ipsets", "nftables*"),
		entry(onlyVRRP, "vrrp_skip_check_adv_addr", "vrrp_check_unicast_src", "vrrp_mcast_group4", "vrrp_mcast_group6",
			"vrrp_lower_prio_no_advert", "vrrp_higher_prio_send_advert", "vrrp_down_timer_adverts",
			"vrrp_owner_ignore_adverts", "log_unknown_vrids", "disable_local_igmp", "v3_checksum_as_v2",
			"vrrp_rx_bufs_policy", "vrrp_rx_bufs_multiplier"),
		entry(noVRRPGarp, "vrrp_garp_lower_prio_delay", "vrrp_garp_lower_prio_repeat"),
		entry("use vrrp_garp_master_repeat 1 and vrrp_garp_master_delay 0", "vrrp_min_garp"),
		entry("every address is announced again by vrrp_garp_master_refresh", "vrrp_garp_extra_if", "vrrp_vmac_garp_intvl"),
		entry("a node takes part as soon as its checks have reported", "vrrp_startup_delay", "vrrp_delay_after_boot"),
		entry(noFIFO, "vrrp_notify_priority_changes", "notify_fifo", "notify_fifo_script", "vrrp_notify_fifo",
			"vrrp_notify_fifo_script", "fifo_write_vrrp_states_on_reload"),
		entry("use ExecStartPre= and ExecStopPost= of the service", "startup_script", "startup_script_timeout",
			"shutdown_script", "shutdown_script_timeout"),
		entry(alwaysTold, "reload_check_config"),
		entry("reloads are started by raftvip reload or SIGHUP", "reload_time_file", "reload_repeat", "reload_file"),
		entry("an include that cannot be read is always an error", "include_check"),
		entry(noDumps, "config_save_dir", "tmp_config_directory", "data_use_instance", "state_dump_file",
			"stats_dump_file", "json_dump_file", "state_dump_file_location", "stats_dump_file_location",
			"json_dump_file_location", "json_version"),
		entry(noTuning, "max_auto_priority", "min_auto_priority_delay", "vrrp_priority", "vrrp_no_swap",
			"vrrp_rt_priority", "vrrp_cpu_affinity", "vrrp_rlimit_rttime", "vrrp_rlimit_rtime", "process_names",
			"*_process_name", "umask", "random_seed", "*_rcv_bufs", "*_rcv_bufs_force", "vrrp_netlink_*",
			"iproute_usr_dir", "iproute_etc_dir"),
		entry(noVMAC, "vmac_prefix", "vmac_addr_prefix"),
		entry(noSNMP, "enable_snmp_*", "enable_traps", "snmp_*"),
		entry(noDBus, "enable_dbus", "dbus_*"),
		entry(noLVS, "lvs_*", "checker_*", "rs_init_notifies"),
		entry("there is no BFD", "bfd_*"),
	),
	ctxInstance: table(
		entry(onlyVRRP, "authentication", "auth_hmac", "unicast_src_ip", "mcast_src_ip", "unicast_peer", "unicast_ttl",
			"check_unicast_src", "unicast_fault_no_peer", "old_unicast_checksum", "mcast_dst_ip", "version",
			"lower_prio_no_advert", "higher_prio_send_advert", "down_timer_adverts", "owner_ignore_adverts",
			"skip_check_adv_addr", "v3_checksum_as_v2", "native_ipv6", "kernel_rx_buf_size"),
		entry("only VRRP sends from this address", "track_src_ip"),
		entry(noRoutes, "virtual_routes", "virtual_rules"),
		entry(noTracker, "track_process", "track_file", "track_bfd"),
		entry(noScripts, "notify_master", "notify_backup", "notify_fault", "notify_stop", "notify", "notify_deleted",
			"notify_master_rx_lower_pri"),
		entry(noMail, "smtp_alert"),
		entry(noFIFO, "notify_priority_changes"),
		entry(noVRRPGarp, "garp_lower_prio_delay", "garp_lower_prio_repeat"),
		entry("every address is announced again by garp_master_refresh", "garp_extra_if", "vmac_garp_intvl"),
		entry(separately, "timer_expired_backup", "thread_timer_expired"),
		entry("the owner accepts traffic to its addresses", "accept"),
		entry(noFirewall, "no_accept", "strict_mode"),
		entry("addresses do not depend on each other", "promote_secondaries"),
		entry(noVMAC, "use_vmac", "vmac_xmit_base", "use_vmac_addr", "use_ipvlan"),
		entry("name the interface that is in the VRF", "vrf"),
		entry("link state comes from netlink", "linkbeat_use_polling"),
		entry(noTuning, "debug"),
		entry(noLVS, "lvs_sync_daemon_interface", "lvs_sync_daemon"),
	),
	ctxSync: table(
		entry(noScripts, "notify_master", "notify_backup", "notify_fault", "notify_stop", "notify", "notify_deleted"),
		entry(noGroupTracker, "track_script", "track_interface", "track_file", "track_process", "track_bfd"),
		entry(noMail, "smtp_alert"),
		entry(noFIFO, "notify_priority_changes"),
		entry("what an instance tracks counts for its whole group", "global_tracking"),
		entry("the weights of what the instances track always count", "sync_group_tracking_weight"),
	),
	ctxScript: table(
		entry("nor has it one in keepalived: the first run decides", "init_fail"),
	),
}

type keywordsOfReason struct {
	reason   string
	keywords []string
}

func entry(reason string, keywords ...string) keywordsOfReason {
	return keywordsOfReason{reason, keywords}
}

// table joins entries; a keyword in two of them is a mistake in this file.
func table(entries ...keywordsOfReason) map[string]string {
	m := map[string]string{}
	for _, e := range entries {
		for _, k := range e.keywords {
			if _, ok := m[k]; ok {
				panic(fmt.Sprintf("keyword %s is in the table twice", k))
			}
			m[k] = e.reason
		}
	}
	return m
}

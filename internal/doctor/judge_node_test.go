package doctor

import (
	"strings"
	"testing"
	"time"
)

// healthy are the facts of a node with which nothing is wrong.
func healthy() Facts {
	i := eth0("10.0.0.1/24", "fd00::1/64")
	i.VIPs = prefixes("10.0.0.100/24")
	return Facts{
		Name: "lb1", Address: "10.0.0.1:7355", Interfaces: []Interface{i}, Guard: &Guard{Kind: "bpf-tcx"},
		ClockSource: "tsc", Sync: SyncYes, DataDir: "/var/lib/raftvip", Fsync: time.Millisecond, Heartbeat: 300 * time.Millisecond,
	}
}

func TestJudgeNodeHealthy(t *testing.T) {
	for _, f := range judgeNode(healthy()) {
		if f.Result != OK || f.Do != "" || f.Node != "lb1" || f.Seen == "" {
			t.Errorf("%+v", f)
		}
	}
}

func TestJudgeNode(t *testing.T) {
	cases := []struct {
		name   string
		change func(*Facts)
		check  Check
		result Result
		seen   string
		do     string
	}{
		{"interface down", func(f *Facts) { f.Interfaces[0].Up = false }, CheckInterface, Fail, "is down", "ip link set eth0 up"},
		{"no carrier", func(f *Facts) { f.Interfaces[0].Running = false }, CheckInterface, Fail, "no carrier", "cable"},
		{"no interface for an address", func(f *Facts) { f.Missing = []string{"10.1.0.1: no interface"} }, CheckInterface, Fail, "virtual address 10.1.0.1", "dev"},
		{"an address answers in two places", func(f *Facts) { f.Troubles = []Trouble{{Interface: "eth0", Serious: true, Seen: "two", Do: "ip"}} }, CheckAddress, Fail, "two", "ip"},
		{"an address that someone else has configured", func(f *Facts) { f.Troubles = []Trouble{{Interface: "eth0", Seen: "copy", Do: "ip"}} }, CheckAddress, Warn, "copy", "ip"},
		{"behind NAT", func(f *Facts) { f.Interfaces = nil }, CheckInterface, Warn, "no interface has the address 10.0.0.1:7355", "NAT"},
		{"no address", func(f *Facts) { f.Interfaces, f.Address = nil, "" }, CheckInterface, Warn, "no address that other nodes could reach", "advertise"},
		{"strict rp_filter, alone", func(f *Facts) { f.Interfaces[0].RPFilter = 1 }, CheckSysctl, OK, "harmless with one interface", ""},
		{"strict rp_filter, others", func(f *Facts) { f.Interfaces[0].RPFilter, f.Others = 1, 1 }, CheckSysctl, Warn, "rp_filter is 1 (strict)", "net.ipv4.conf.eth0.rp_filter=2 (and net.ipv4.conf.all.rp_filter"},
		{"loose rp_filter", func(f *Facts) { f.Interfaces[0].RPFilter, f.Others = 2, 1 }, CheckSysctl, OK, "rp_filter is 2", ""},
		{"arp_ignore 1", func(f *Facts) { f.Interfaces[0].ARPIgnore = 1 }, CheckSysctl, OK, "arp_ignore is 1", ""},
		{"arp_ignore 2, /24", func(f *Facts) { f.Interfaces[0].ARPIgnore = 2 }, CheckSysctl, Warn, "only askers whose own address is in the subnet", "arp_ignore=0"},
		{"arp_ignore 2, /32", func(f *Facts) {
			f.Interfaces[0].ARPIgnore, f.Interfaces[0].VIPs = 2, prefixes("10.0.0.100/32", "fd00::100/128")
		}, CheckSysctl, Fail, "10.0.0.100/32 is a subnet of its own", "arp_ignore=0"},
		{"arp_ignore 3", func(f *Facts) { f.Interfaces[0].ARPIgnore = 3 }, CheckSysctl, Warn, "scope host", "arp_ignore=0"},
		{"arp_ignore 5", func(f *Facts) { f.Interfaces[0].ARPIgnore = 5 }, CheckSysctl, Warn, "arp_ignore is 5", "arp_ignore=0"},
		{"arp_ignore 8", func(f *Facts) { f.Interfaces[0].ARPIgnore = 8 }, CheckSysctl, Fail, "for none of its addresses", "arp_ignore=0"},
		{"arp_filter, alone", func(f *Facts) { f.Interfaces[0].ARPFilter = 1 }, CheckSysctl, OK, "arp_filter is 1", ""},
		{"arp_filter, others", func(f *Facts) { f.Interfaces[0].ARPFilter, f.Others = 1, 1 }, CheckSysctl, Warn, "arp_filter is 1 and", "arp_filter=0"},
		{"port dropped", func(f *Facts) {
			f.Filters = []Filter{{Packet: "TCP port 7355 coming in on eth0", Port: true, Certain: true, Rule: "table ip f, chain c, rule 1"}}
		},
			CheckFirewall, Fail, "TCP port 7355 coming in on eth0 is dropped by table ip f, chain c, rule 1", "accept raftvip's TCP port"},
		{"protocol dropped", func(f *Facts) { f.Filters = []Filter{{Packet: "protocol 112", Certain: true, Rule: "r"}} }, CheckFirewall, Warn, "is dropped by r", "does not need it"},
		{"perhaps dropped", func(f *Facts) { f.Filters = []Filter{{Packet: "protocol 112", Port: true, Rule: "r"}} }, CheckFirewall, OK, "may be dropped by r", ""},
		{"iptables-legacy", func(f *Facts) { f.LegacyTables = []string{"ip filter"} }, CheckFirewall, Warn, "iptables-legacy is in use (ip filter)", "iptables-legacy -S"},
		{"rules not read", func(f *Facts) { f.FilterError = "not permitted" }, CheckFirewall, Warn, "cannot be read: not permitted", "root"},
		{"rules not read by a witness", func(f *Facts) { f.FilterError, f.Witness = "not permitted", true }, CheckFirewall, OK, "not looked at: not permitted", ""},
		{"weak guard", func(f *Facts) { f.Guard = &Guard{Kind: "lifetime", Guarantee: "two nodes may answer", Weak: true} }, CheckGuard, Warn, "guard lifetime: two nodes may answer", "eBPF"},
		{"guard not attached", func(f *Facts) { f.Guard.Problems = []string{"eth0: busy"} }, CheckGuard, Fail, "not attached: eth0: busy", "log"},
		{"no privileges", func(f *Facts) { f.Lacking = []string{"CAP_NET_ADMIN", "CAP_BPF"} }, CheckPrivileges, Fail, "CAP_NET_ADMIN, CAP_BPF lacking", "root"},
		{"no eBPF", func(f *Facts) { f.Lacking = []string{"CAP_BPF"} }, CheckPrivileges, Warn, "the guard cannot use eBPF", "grant"},
		{"witness", func(f *Facts) { f.Lacking, f.Witness = []string{"CAP_NET_RAW"}, true }, CheckPrivileges, OK, "cannot send or hear probes of protocol 112", ""},
		{"witness without eBPF", func(f *Facts) { f.Lacking, f.Witness = []string{"CAP_BPF"}, true }, CheckPrivileges, OK, "nothing lacks", ""},
		{"kvm-clock", func(f *Facts) { f.ClockSource = "kvm-clock" }, CheckClock, Warn, "kvm-clock hides a pause", "tsc"},
		{"no NTP", func(f *Facts) { f.Sync = SyncNo }, CheckClock, Warn, "nobody synchronises", "chrony"},
		{"NTP not known", func(f *Facts) { f.Sync = SyncUnknown }, CheckClock, OK, "cannot be asked", ""},
		{"disk full", func(f *Facts) { f.FsyncError = "no space left on device" }, CheckDisk, Fail, "no space left", "room"},
		{"copied data dir", func(f *Facts) { f.Identities = []Trouble{{Seen: "two hold lb2", Do: "move-here"}} }, CheckIdentity, Fail, "two hold", "move-here"},
		{"slow disk", func(f *Facts) { f.Fsync = 150 * time.Millisecond }, CheckDisk, Warn, "took 150ms", "faster disk"},
		{"disk hangs", func(f *Facts) { f.Fsync, f.Heartbeat = fsyncPatience, 0 }, CheckDisk, Warn, "took more than 3s", "faster disk"},
		{"disk slower than elections", func(f *Facts) { f.Fsync = 300 * time.Millisecond }, CheckDisk, Warn, "longer than the heartbeat timeout (300ms)", "lengthen heartbeat_timeout"},
	}
	for _, c := range cases {
		f := healthy()
		c.change(&f)
		found := false
		for _, got := range judgeNode(f) {
			found = found || got.Check == c.check && got.Result == c.result && strings.Contains(got.Seen, c.seen) &&
				(c.do == "" && got.Do == "" || c.do != "" && strings.Contains(got.Do, c.do))
			if (got.Result == OK) != (got.Do == "") {
				t.Errorf("%s: what is wrong has advice, and nothing else has: %+v", c.name, got)
			}
		}
		if !found {
			t.Errorf("%s: not in %+v", c.name, judgeNode(f))
		}
	}
}

// The settings of ARP do not matter where no address will be.
func TestJudgeNodeOtherInterface(t *testing.T) {
	f := healthy()
	other := eth0("192.168.0.1/24")
	other.Name, other.ARPIgnore, other.RPFilter = "eth1", 8, 1
	f.Interfaces = append(f.Interfaces, other)
	for _, got := range judgeNode(f) {
		if got.Result != OK {
			t.Errorf("%+v", got)
		}
	}
	f.Interfaces[0].VIPs = nil // no address anywhere yet: all may get one
	n := 0
	for _, got := range judgeNode(f) {
		if got.Result == Fail && got.Interface == "eth1" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d failures of eth1", n)
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1234567 * time.Nanosecond: "1.2ms", 999 * time.Nanosecond: "1µs", -12345 * time.Millisecond: "12s", 1555 * time.Millisecond: "1.56s", 0: "0s",
	} {
		if got := short(d); got != want {
			t.Errorf("%d is %s, want %s", d, got, want)
		}
	}
}

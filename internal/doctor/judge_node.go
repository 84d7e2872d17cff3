package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// judgeNode finds what there is to say of one node alone.
func judgeNode(f Facts) []Finding {
	n := notes{node: f.Name}
	n.interfaces(f)
	n.addresses(f)
	n.sysctls(f)
	n.firewall(f)
	n.guard(f)
	n.privileges(f)
	n.clock(f)
	n.disk(f)
	n.identities(f)
	return n.all
}

// notes gathers findings about a node.
type notes struct {
	node string
	all  []Finding
}

func (n *notes) add(check Check, iface string, result Result, do, format string, args ...any) {
	n.all = append(n.all, Finding{Check: check, Node: n.node, Interface: iface, Result: result, Seen: fmt.Sprintf(format, args...), Do: do})
}

func (n *notes) interfaces(f Facts) {
	for _, m := range f.Missing {
		n.add(CheckInterface, "", Fail, "give the node an address in that subnet, or name the interface with dev in its file", "virtual address %s", m)
	}
	for _, i := range f.Interfaces {
		switch {
		case !i.Up:
			n.add(CheckInterface, i.Name, Fail, "ip link set "+i.Name+" up", "the interface is down")
		case !i.Running:
			n.add(CheckInterface, i.Name, Fail, "look at the cable, or at the virtual machine's network", "the interface has no carrier")
		default:
			n.add(CheckInterface, i.Name, OK, "", "up, MTU %d%s", i.MTU, vipCount(i.VIPs))
		}
	}
	const advertise = "name the node's own address with --advertise, or with advertise in the raft block"
	switch {
	case len(f.Interfaces) > 0:
	case f.Address == "":
		n.add(CheckInterface, "", Warn, advertise, "this node has no address that other nodes could reach it at")
	default:
		n.add(CheckInterface, "", Warn, advertise+"; behind NAT this is normal",
			"no interface has the address %s, at which the others reach this node", f.Address)
	}
}

// addresses passes on what the daemon finds wrong with virtual addresses.
func (n *notes) addresses(f Facts) {
	for _, a := range f.Troubles {
		result := Warn
		if a.Serious {
			result = Fail
		}
		n.add(CheckAddress, a.Interface, result, a.Do, "%s", a.Seen)
	}
	if len(f.Troubles) == 0 && !f.Witness {
		n.add(CheckAddress, "", OK, "", "nothing is known to be wrong with virtual addresses here")
	}
}

// identities passes on what the node found out about its peers and itself.
func (n *notes) identities(f Facts) {
	for _, i := range f.Identities {
		n.add(CheckIdentity, "", Fail, i.Do, "%s", i.Seen)
	}
}

func vipCount(vips []netip.Prefix) string {
	switch len(vips) {
	case 0:
		return ""
	case 1:
		return ", for " + vips[0].Addr().String()
	}
	return fmt.Sprintf(", for %d virtual addresses", len(vips))
}

// sysctls judges the settings that decide whether a node answers for a virtual
// address: where there are any, or may be once the cluster has some.
func (n *notes) sysctls(f Facts) {
	placed := slices.ContainsFunc(f.Interfaces, func(i Interface) bool { return len(i.VIPs) > 0 })
	for _, i := range f.Interfaces {
		if f.Witness || placed && len(i.VIPs) == 0 {
			continue
		}
		set := func(name string, value int) string {
			return fmt.Sprintf("sysctl -w net.ipv4.conf.%s.%s=%d", i.Name, name, value)
		}
		add := func(result Result, do, format string, args ...any) {
			n.add(CheckSysctl, i.Name, result, do, format, args...)
		}
		allOf := func(name string) string {
			return ` (and net.ipv4.conf.all.` + name + `, as the greater of both counts)`
		}

		switch several := f.Others > 0 || len(f.Interfaces) > 1; {
		case i.RPFilter == 1 && several:
			add(Warn, set("rp_filter", 2)+allOf("rp_filter"),
				"rp_filter is 1 (strict) and the node has other interfaces: packets to a virtual address are dropped when the way back to their sender is through another interface")
		case i.RPFilter == 1:
			add(OK, "", "rp_filter is 1 (strict), which is harmless with one interface")
		default:
			add(OK, "", "rp_filter is %d", i.RPFilter)
		}
		n.arpIgnore(i, set("arp_ignore", 0)+allOf("arp_ignore"))
		switch {
		case i.ARPFilter > 0 && (f.Others > 0 || len(f.Interfaces) > 1):
			add(Warn, set("arp_filter", 0)+allOf("arp_filter"),
				"arp_filter is 1 and the node has other interfaces: ARP for a virtual address is not answered when the way back to the asker is through another interface")
		default:
			add(OK, "", "arp_filter is %d", i.ARPFilter)
		}
		// Both are harmless: an owner may name a virtual address in its ARP, and
		// whoever does not own is silenced by the guard.
		add(OK, "", "arp_announce is %d, accept_local is %d; raftvip works with any", i.ARPAnnounce, i.AcceptLocal)
	}
}

// arpIgnore judges arp_ignore (ip-sysctl), which can keep an owner from answering.
func (n *notes) arpIgnore(i Interface, do string) {
	var alone []string
	for _, v := range i.VIPs {
		if v.Addr().Is4() && v.IsSingleIP() {
			alone = append(alone, v.String())
		}
	}
	switch {
	case i.ARPIgnore == 2 && len(alone) > 0:
		n.add(CheckSysctl, i.Name, Fail, do, "arp_ignore is 2: the node answers only askers in the subnet of the address, and %s is a subnet of its own, so ARP for it is never answered",
			strings.Join(alone[:min(len(alone), 3)], ", "))
	case i.ARPIgnore == 2:
		n.add(CheckSysctl, i.Name, Warn, do, "arp_ignore is 2: the node answers only askers whose own address is in the subnet of the virtual one")
	case i.ARPIgnore == 3:
		n.add(CheckSysctl, i.Name, Warn, do, "arp_ignore is 3: virtual addresses of scope host are not answered for")
	case i.ARPIgnore == 8:
		n.add(CheckSysctl, i.Name, Fail, do, "arp_ignore is 8: the node answers ARP for none of its addresses, so that nobody would reach a virtual address here")
	case i.ARPIgnore > 3:
		n.add(CheckSysctl, i.Name, Warn, do, "arp_ignore is %d, which has no meaning that is known here", i.ARPIgnore)
	default:
		n.add(CheckSysctl, i.Name, OK, "", "arp_ignore is %d", i.ARPIgnore)
	}
}

func (n *notes) firewall(f Facts) {
	dropped := 0
	for _, l := range f.Filters {
		switch {
		case !l.Certain:
			n.add(CheckFirewall, "", OK, "", "%s may be dropped by %s; the probes say whether it is", l.Packet, l.Rule)
			continue
		case l.Port:
			n.add(CheckFirewall, "", Fail, "accept raftvip's TCP port between the nodes", "%s is dropped by %s", l.Packet, l.Rule)
		default:
			n.add(CheckFirewall, "", Warn, "raftvip itself does not need it; for VRRP accept protocol 112 between the nodes", "%s is dropped by %s", l.Packet, l.Rule)
		}
		dropped++
	}
	if len(f.LegacyTables) > 0 {
		n.add(CheckFirewall, "", Warn, "look with iptables-legacy -S (ip6tables-legacy -S), or move the rules to nftables; the probes say what really passes",
			"iptables-legacy is in use (%s): its rules cannot be read", strings.Join(f.LegacyTables, ", "))
	}
	switch {
	case f.FilterError != "" && f.Witness:
		n.add(CheckFirewall, "", OK, "", "the nftables rules of this witness were not looked at: %s", f.FilterError)
	case f.FilterError != "":
		n.add(CheckFirewall, "", Warn, "run as root; the probes say what really passes", "the nftables rules cannot be read: %s", f.FilterError)
	case dropped == 0:
		n.add(CheckFirewall, "", OK, "", "no nftables rule is known to drop raftvip's port or protocol 112")
	}
}

func (n *notes) guard(f Facts) {
	if f.Guard == nil {
		return
	}
	for _, p := range f.Guard.Problems {
		n.add(CheckGuard, "", Fail, "see the daemon's log; addresses on that interface are not owned", "not attached: %s", p)
	}
	if f.Guard.Weak {
		n.add(CheckGuard, "", Warn, `let the daemon use eBPF (CAP_BPF, /sys/fs/bpf) or nftables; "raftvip status" says why it does not`, "guard %s: %s", f.Guard.Kind, f.Guard.Guarantee)
		return
	}
	n.add(CheckGuard, "", OK, "", "guard %s", f.Guard.Kind)
}

func (n *notes) privileges(f Facts) {
	lacks := strings.Join(f.Lacking, ", ")
	needed := slices.Contains(f.Lacking, "CAP_NET_ADMIN") || slices.Contains(f.Lacking, "CAP_NET_RAW")
	switch {
	case f.Witness && needed:
		n.add(CheckPrivileges, "", OK, "", "the witness runs without %s, which it does not need; it cannot send or hear probes of protocol 112 nor read the firewall", lacks)
	case f.Witness || len(f.Lacking) == 0:
		n.add(CheckPrivileges, "", OK, "", "nothing lacks that the node needs")
	case needed:
		n.add(CheckPrivileges, "", Fail, "run as root, or by the systemd unit, which grants just these", "%s lacking: the node cannot put addresses on interfaces", lacks)
	default:
		n.add(CheckPrivileges, "", Warn, "grant it, as the systemd unit does", "%s lacking: the guard cannot use eBPF", lacks)
	}
}

// clock judges how the node keeps time. Nothing that decides ownership uses the wall
// clock, but leases depend on the machine's not being paused unawares.
func (n *notes) clock(f Facts) {
	switch s := f.ClockSource; {
	case s == "kvm-clock", strings.HasPrefix(s, "hyperv"), s == "xen":
		n.add(CheckClock, "", Warn, "use clocksource tsc where the host has it",
			"clock source %s hides a pause of this virtual machine: after one, the address may be answered for the rest of the lease", s)
	case s != "":
		n.add(CheckClock, "", OK, "", "clock source %s", s)
	}
	switch f.Sync {
	case SyncNo:
		n.add(CheckClock, "", Warn, "run chrony or systemd-timesyncd: tokens, certificates and the history need the right time",
			"the kernel says that nobody synchronises the clock")
	case SyncYes:
		n.add(CheckClock, "", OK, "", "the clock is synchronised")
	default:
		n.add(CheckClock, "", OK, "", "whether the clock is synchronised cannot be asked from here; see how far the nodes are apart")
	}
}

// slowDisk is the time of a write from which on changes of the cluster's state take
// noticeably longer than their way through the network.
const slowDisk = 100 * time.Millisecond

func (n *notes) disk(f Facts) {
	took := short(f.Fsync)
	if f.Fsync >= fsyncPatience {
		took = "more than " + short(fsyncPatience)
	}
	switch {
	case f.FsyncError != "":
		n.add(CheckDisk, "", Fail, "make room, or make the directory writable for the daemon", "cannot write to the data dir: %s", f.FsyncError)
	case f.Heartbeat > 0 && f.Fsync >= f.Heartbeat:
		n.add(CheckDisk, "", Warn, "put the data dir on a faster disk, or lengthen heartbeat_timeout",
			"a write to %s took %s, longer than the heartbeat timeout (%s): elections may need several tries", f.DataDir, took, short(f.Heartbeat))
	case f.Fsync >= slowDisk:
		n.add(CheckDisk, "", Warn, "put the data dir on a faster disk", "a write to %s took %s", f.DataDir, took)
	default:
		n.add(CheckDisk, "", OK, "", "a write to %s took %s", f.DataDir, took)
	}
}

// short prints a duration with the digits that matter.
func short(d time.Duration) string {
	switch d = d.Abs(); {
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

package vrrpnet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
	"github.com/raftvip/raftvip/vrrpcompat"
)

// The interface goes, comes back as another one, is switched off, loses its carrier,
// changes its address. The peer is a keepalived of lower priority.
func TestInterfaceComesAndGoes(t *testing.T) {
	t.Parallel()
	l := testnet.ForTest(t, testnet.Options{Nodes: 2})
	needKeepalived(t)
	us, them := l.Node(0), l.Node(1)
	w := watchWire(t, l.Observer(), "eth0")
	const interval = 200 * time.Millisecond
	v := rival{version: vrrpcompat.V3, interval: interval}
	own, next, peer := l.VIP4(5), l.VIP4(6), them.Addr4(testnet.Front)
	// A bridge, as virtual interfaces on it go with it.
	add := fmt.Sprintf("ip link add v0 type bridge mcast_snooping 0; ip link set eth0 master v0; ip addr add %v/24 dev v0; ip link set v0 up", own)

	c := ourConfig(61, 150, v, l.VIP4(161), netip.Addr{})
	c.Options.Interface = "v0"
	m := ourConfig(62, 150, v, l.VIP4(162), netip.Addr{})
	m.Options.Interface, m.Options.VMAC = "v0", &VMAC{}
	ignore := ourConfig(63, 150, v, l.VIP4(163), netip.Addr{})
	ignore.Options.Interface, ignore.Options.IgnoreCarrier = "v0", true
	all := map[string]routerConfig{"plain": c, "vmac": m, "ignore": ignore}
	vrids := map[string]uint8{"plain": 61, "vmac": 62, "ignore": 63}
	config := keepalivedGlobals
	for _, name := range []string{"plain", "vmac", "ignore"} {
		config += instance(vrids[name], 100, 3, interval, all[name].Expect.Addresses.Addresses[0])
	}
	if _, err := l.StartKeepalived(them, config); err != nil {
		t.Fatal(err)
	}
	// It is not there yet.
	rs := startRouters(t, l, us, all)
	away := func(name, why string) {
		t.Helper()
		rs.wait(name, "to have no socket: "+why, func(s report) error {
			if s.State != vrrpcompat.Initialize || !strings.Contains(s.DownText, why) {
				return fmt.Errorf("%v, down %q", s.State, s.DownText)
			}
			return nil
		})
		w.settle(vrids[name], peer, interval)
	}
	back := func(name string, src netip.Addr) report {
		t.Helper()
		s := rs.waitState(name, vrrpcompat.Master)
		w.settle(vrids[name], src, interval)
		return s
	}
	losses := func(name string) int {
		n := 0
		for _, x := range rs.status(name).Told {
			if x.Reason != "started" {
				n++
			}
		}
		return n
	}
	for name := range all {
		away(name, "does not exist")
	}
	index := ""
	for i := range 3 {
		mustExec(t, us, add)
		for name := range all {
			back(name, own)
			if n := losses(name); n != i {
				t.Errorf("%s: lost %d times, want %d", name, n, i)
			}
		}
		now := mustExec(t, us, "ip -o link show v0 | cut -d: -f1")
		if now == index {
			t.Errorf("the interface has index %s again: nothing was tried", now)
		}
		index = now
		mustExec(t, us, "ip link del v0")
		for name := range all {
			away(name, "does not exist")
		}
	}

	// Another one in its place, so quickly that the old one is not missed.
	mustExec(t, us, add)
	for name := range all {
		back(name, own)
	}
	batch := "link del v0\n" + strings.ReplaceAll(strings.ReplaceAll(add, "; ", "\n"), "ip ", "")
	mustExec(t, us, "printf '"+batch+"\n' | ip -batch -")
	from := time.Now()
	for name := range all {
		w.first(vrids[name], own, name+" to speak from the new interface", func(s seen) bool { return s.at.After(from) })
		back(name, own)
	}

	// Switched off and on, carrier lost and found.
	mustExec(t, us, "ip link set v0 down")
	away("plain", "v0 is down")
	away("vmac", "v0 is down")
	mustExec(t, us, "ip link set v0 up")
	back("plain", own)
	back("vmac", own)
	if err := l.LinkDown(us); err != nil {
		t.Fatal(err)
	}
	away("plain", "no carrier")
	away("vmac", "no carrier")
	if s := rs.status("ignore"); s.State != vrrpcompat.Master || s.DownText != "" {
		t.Errorf("without looking at the carrier: %v, %q", s.State, s.DownText)
	}
	if err := l.LinkUp(us); err != nil {
		t.Fatal(err)
	}
	for name := range all {
		back(name, own)
	}

	// Another address: the same master, from the new one.
	before := map[string]report{}
	for name := range all {
		before[name] = rs.status(name)
	}
	mustExec(t, us, fmt.Sprintf("ip addr add %v/25 dev v0; ip addr del %v/24 dev v0", next, own))
	for name := range all {
		w.settle(vrids[name], next, interval)
		s := rs.status(name)
		if s.Source != next || s.State != vrrpcompat.Master || s.Masters != before[name].Masters || len(s.Told) != len(before[name].Told) || s.VMAC != before[name].VMAC {
			t.Errorf("%s: %v from %v, %d times master before and %d after", name, s.State, s.Source, before[name].Masters, s.Masters)
		}
		for _, p := range w.of(vrids[name], own) {
			if p.priority() == 0 && p.at.After(before[name].lastTold()) {
				t.Errorf("%s: said that it leaves", name)
			}
		}
	}
	mustExec(t, us, fmt.Sprintf("ip addr del %v/25 dev v0", next))
	for name := range all {
		away(name, "no source address")
	}
	rs.end()
	if out := mustExec(t, us, "ip -o link"); strings.Contains(out, "vrrp") {
		t.Errorf("left behind: %s", out)
	}
}

func (r report) lastTold() (at time.Time) {
	for _, x := range r.Told {
		at = x.At
	}
	return at
}

// setting reads a network setting in the host.
func readSetting(t *testing.T, h *testnet.Host, name string) string {
	t.Helper()
	return strings.TrimSpace(mustExec(t, h, "cat /proc/sys/net/ipv4/conf/"+name))
}

// A virtual MAC on our side, and on the other where keepalived has one as well: then
// both have the same MAC address.
func TestVMAC(t *testing.T) {
	testnet.Require(t)
	t.Parallel()
	for _, ipv6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("ipv6=%v", ipv6), func(t *testing.T) {
			t.Parallel()
			l := testnet.ForTest(t, testnet.Options{Nodes: 2})
			needKeepalived(t)
			us, them := l.Node(0), l.Node(1)
			w := watchWire(t, l.Observer(), "eth0")
			const interval = 200 * time.Millisecond
			v := rival{version: vrrpcompat.V3, ipv6: ipv6, interval: interval}
			own := v.source(us, 0)
			base := us.MAC(testnet.Front).String()
			virtualMAC := func(vrid int) string {
				return fmt.Sprintf("00:00:5e:00:%02x:%02x", map[bool]int{false: 1, true: 2}[ipv6], vrid)
			}
			// Where the filter is on for all, a virtual MAC without an address hears nothing.
			mustExec(t, us, "sysctl -qw net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.eth0.rp_filter=1")

			type router struct {
				vrid     uint8
				name     string
				prio     uint8
				vmac     *VMAC
				their    string
				wantMAC  string
				wantName string
			}
			cases := []router{
				{71, "higher", 150, &VMAC{}, "", virtualMAC(71), "vrrp.71"},
				{72, "lower", 50, &VMAC{Name: "given"}, "", "", "given"},
				{73, "higher, both", 150, &VMAC{}, "use_vmac", virtualMAC(73), "vrrp.73"},
				{74, "lower, both", 50, &VMAC{}, "use_vmac", "", "vrrp.74"},
				{75, "from the base", 150, &VMAC{TransmitBase: true}, "use_vmac\n vmac_xmit_base", base, "vrrp.75"},
				{76, "from the base, lower", 50, &VMAC{TransmitBase: true}, "use_vmac", "", "vrrp.76"},
			}
			config, ours := keepalivedGlobals, map[string]routerConfig{}
			for _, c := range cases {
				vip := virtual(l, c.vrid, ipv6)
				config += instance(c.vrid, peerPriority, 3, interval, vip, c.their)
				rc := ourConfig(c.vrid, c.prio, v, vip, netip.Addr{})
				rc.Options.VMAC = c.vmac
				ours[c.name] = rc
			}
			if _, err := l.StartKeepalived(them, config); err != nil {
				t.Fatal(err)
			}
			for _, c := range cases {
				w.first(c.vrid, netip.Addr{}, "the peer to be master", func(seen) bool { return true })
			}
			rs := startRouters(t, l, us, ours)
			for _, c := range cases {
				if c.prio < peerPriority {
					s := rs.wait(c.name, "to follow", func(s report) error {
						if s.Other == nil || s.State != vrrpcompat.Backup {
							return fmt.Errorf("%v, other %+v, drops %v", s.State, s.Other, s.Drops)
						}
						return nil
					})
					if s.VMAC != c.wantName {
						t.Errorf("%s: on %s", c.name, s.VMAC)
					}
					w.settle(c.vrid, v.source(them, c.vrid), interval)
					continue
				}
				s := rs.waitState(c.name, vrrpcompat.Master)
				w.settle(c.vrid, own, interval)
				if s.VMAC != c.wantName || s.Source != own || s.Interface != "eth0" {
					t.Errorf("%s: %v on %s and %s", c.name, s.Source, s.VMAC, s.Interface)
				}
				for _, p := range w.of(c.vrid, own) {
					if p.from.String() != c.wantMAC {
						t.Fatalf("%s: sent from %v, want %s", c.name, p.from, c.wantMAC)
					}
				}
			}
			// Set up as keepalived does, and no address was made up.
			for name, want := range map[string]string{
				"eth0/arp_ignore": "1", "eth0/arp_filter": "1", "all/rp_filter": "0", "eth0/rp_filter": "2", "default/rp_filter": "2",
				"vrrp.71/arp_ignore": "1", "vrrp.71/accept_local": "1", "vrrp.71/rp_filter": "0",
			} {
				if got := readSetting(t, us, name); got != want {
					t.Errorf("%s is %s, want %s", name, got, want)
				}
			}
			if out := mustExec(t, us, "ip -o addr show dev vrrp.71; ip -d link show dev vrrp.71"); strings.Contains(out, "inet") || !strings.Contains(out, "mode private") {
				t.Errorf("vrrp.71: %s", out)
			}
			// An address on it is answered for with its MAC, and not with the base's.
			vip := l.VIP4(171)
			if ipv6 {
				vip = l.VIP6(171)
				mustExec(t, us, fmt.Sprintf("ip addr add %v/128 dev vrrp.71 nodad", vip))
			} else {
				mustExec(t, us, fmt.Sprintf("ip addr add %v/32 dev vrrp.71", vip))
			}
			testnet.MustWait(t, 10*time.Second, "the virtual address to be answered for", func() error {
				who, err := l.Owners(vip)
				if err == nil && !slices.Equal(who, []string{virtualMAC(71)}) {
					err = fmt.Errorf("owners %v, want %s", who, virtualMAC(71))
				}
				return err
			})

			// Killed, it leaves everything, which the next start removes with its address.
			rs.kill()
			if out := mustExec(t, us, "ip -o addr show dev vrrp.71"); !strings.Contains(out, vip.String()) {
				t.Fatalf("nothing left: %s", out)
			}
			rs = startRouters(t, l, us, ours)
			for _, c := range cases {
				rs.wait(c.name, "to have its interface", func(s report) error {
					if s.VMAC != c.wantName {
						return fmt.Errorf("on %q, down %q", s.VMAC, s.DownText)
					}
					return nil
				})
			}
			if out := mustExec(t, us, "ip -o addr show dev vrrp.71"); strings.Contains(out, vip.String()) {
				t.Errorf("an address of before the crash: %s", out)
			}
			rs.end()
			if out := mustExec(t, us, "ip -o link"); strings.Contains(out, "vrrp") || strings.Contains(out, "given") {
				t.Errorf("left behind: %s", out)
			}
		})
	}
}

// On a macvlan, as a container has it, the kernel puts the virtual MAC beside it, so
// that it does not go with it.
func TestVMACOnMacvlan(t *testing.T) {
	t.Parallel()
	l := testnet.ForTest(t, testnet.Options{Nodes: 2})
	us := l.Node(0)
	w := watchWire(t, l.Observer(), "eth0")
	const interval = 100 * time.Millisecond
	c := ourConfig(77, 100, rival{version: vrrpcompat.V3, interval: interval}, l.VIP4(177), netip.Addr{})
	c.Options.Interface, c.Options.VMAC = "v0", &VMAC{}
	rs := startRouters(t, l, us, map[string]routerConfig{"r": c})
	for range 2 {
		mustExec(t, us, fmt.Sprintf("ip link add v0 link eth0 type macvlan mode bridge; ip addr add %v/24 dev v0; ip link set v0 up", l.VIP4(5)))
		s := rs.waitState("r", vrrpcompat.Master)
		w.settle(77, l.VIP4(5), interval)
		if s.VMAC != "vrrp.77" {
			t.Errorf("on %s", s.VMAC)
		}
		for _, p := range w.of(77, netip.Addr{}) {
			if p.from.String() != "00:00:5e:00:01:4d" {
				t.Errorf("sent from %v", p.from)
			}
		}
		mustExec(t, us, "ip link del v0")
		rs.waitState("r", vrrpcompat.Initialize)
	}
	rs.end()
	if out := mustExec(t, us, "ip -o link"); strings.Contains(out, "vrrp") {
		t.Errorf("left behind: %s", out)
	}
}

// What was not made here is left alone: an interface that has the name, keepalived's
// of the same virtual router, and one that another process uses now.
func TestVMACOfOthers(t *testing.T) {
	t.Parallel()
	l := testnet.ForTest(t, testnet.Options{Nodes: 1})
	h := l.Node(0)
	v := rival{version: vrrpcompat.V3, interval: 200 * time.Millisecond}
	with := func(vrid uint8, vm *VMAC) map[string]routerConfig {
		c := ourConfig(vrid, 100, v, virtual(l, vrid, false), netip.Addr{})
		c.Options.VMAC = vm
		return map[string]routerConfig{"r": c}
	}
	mustExec(t, h, `ip link add name vrrp.81 type bridge
		ip link add vrrp.82 link eth0 address 00:00:5e:00:01:52 type macvlan mode private
		ip link set vrrp.82 up
		ip link add name given type bridge`)
	rs := startRouters(t, l, h, with(81, &VMAC{}))
	rs.wait("r", "to take the next name", func(s report) error {
		if s.VMAC != "vrrp1.81" {
			return fmt.Errorf("on %q, down %q", s.VMAC, s.DownText)
		}
		return nil
	})
	refused := func(vrid uint8, vm *VMAC, why string) *routers {
		t.Helper()
		rs := startRouters(t, l, h, with(vrid, vm))
		s := rs.wait("r", "to be refused: "+why, func(s report) error {
			if !strings.Contains(s.DownText, why) {
				return fmt.Errorf("on %q, down %q", s.VMAC, s.DownText)
			}
			return nil
		})
		if s.State != vrrpcompat.Initialize {
			t.Errorf("%s: %v", why, s.State)
		}
		return rs
	}
	refused(82, &VMAC{}, "another interface on eth0 has 00:00:5e:00:01:52").end()
	refused(83, &VMAC{Name: "given"}, "given exists and was not made here").end()
	second := refused(81, &VMAC{}, "in use on this machine")
	if s := rs.status("r"); s.VMAC != "vrrp1.81" || s.DownText != "" {
		t.Errorf("the first one: %q, %q", s.VMAC, s.DownText)
	}
	// It takes over when the first one ends.
	rs.end()
	second.wait("r", "to get the interface", func(s report) error {
		if s.VMAC != "vrrp1.81" {
			return fmt.Errorf("on %q, down %q", s.VMAC, s.DownText)
		}
		return nil
	})
	second.end()
	for name, want := range map[string]string{"eth0/arp_ignore": "0", "eth0/arp_filter": "0"} {
		if got := readSetting(t, h, name); got != want {
			t.Errorf("%s is %s after the end, want %s", name, got, want)
		}
	}
	if out := mustExec(t, h, "ip -o link"); !strings.Contains(out, "vrrp.81") || !strings.Contains(out, "vrrp.82") || !strings.Contains(out, "given") || strings.Contains(out, "vrrp1") {
		t.Errorf("afterwards: %s", out)
	}
}

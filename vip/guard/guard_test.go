package guard

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestParseKind(t *testing.T) {
	for in, want := range map[string]Kind{"": Auto, "auto": Auto, "bpf": BPF, "bpf-tcx": BPFTCX, "bpf-clsact": BPFClsact, "nft": NFT, "lifetime": Lifetime, "off": Off} {
		if got, err := ParseKind(in); err != nil || got != want {
			t.Errorf("ParseKind(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"BPF", "none", "ebpf "} {
		if _, err := ParseKind(in); err == nil || !strings.Contains(err.Error(), "allowed are") {
			t.Errorf("ParseKind(%q): %v", in, err)
		}
	}
}

func TestOptionsRefused(t *testing.T) {
	for _, o := range []Options{
		{Kind: "ebpf"}, {Instance: "a/b"}, {Instance: "a.b"}, {Instance: "a@1"}, {Instance: strings.Repeat("x", 65)}, {Interfaces: []string{"eth["}},
	} {
		if g, err := Open(o); err == nil {
			g.Close()
			t.Errorf("%+v: no error", o)
		}
	}
}

// The kinds that attach nothing need no privilege.
func TestNullKinds(t *testing.T) {
	for _, k := range []Kind{Lifetime, Off} {
		g := &Guard{backend: nullBackend(k), armed: map[netip.Addr]uint32{}}
		a := netip.MustParseAddr("10.0.0.1")
		if err := g.Arm(1, []netip.Addr{a}); err != nil {
			t.Fatal(err)
		}
		g.SetDeadline(1, 1)
		g.SetDeadline(MaxGroups, 1)
		if err := g.SetVMAC(1, 1); err == nil {
			t.Errorf("%s: vmac: no error", k)
		}
		if k == Off && g.Lateness() != Unbounded || k == Lifetime && g.Lateness() != soleLifetime+lifetimeSlack {
			t.Errorf("%s: lateness %v", k, g.Lateness())
		}
	}
}

func TestArmRules(t *testing.T) {
	g := &Guard{backend: nullBackend(Off), armed: map[netip.Addr]uint32{}}
	a := netip.MustParseAddr("10.0.0.1")
	mapped := netip.MustParseAddr("::ffff:10.0.0.1")
	if err := g.Arm(1, []netip.Addr{a, mapped}); err != nil || len(g.armed) != 1 {
		t.Errorf("one address written twice: %v, %v", err, g.armed)
	}
	for what, err := range map[string]error{
		"another group's address":    g.Arm(2, []netip.Addr{a}),
		"group too high":             g.Arm(MaxGroups, []netip.Addr{a}),
		"no address":                 g.Arm(1, []netip.Addr{{}}),
		"unspecified":                g.Arm(1, []netip.Addr{netip.IPv6Unspecified()}),
		"multicast":                  g.Arm(1, []netip.Addr{netip.MustParseAddr("224.0.0.18")}),
		"disarm another group's":     g.Disarm(2, []netip.Addr{a}),
		"IPv4 unspecified in IPv6":   g.Arm(1, []netip.Addr{netip.MustParseAddr("::ffff:0.0.0.0")}),
		"multicast in IPv6 notation": g.Arm(1, []netip.Addr{netip.MustParseAddr("ff02::1")}),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if err := g.Disarm(1, []netip.Addr{mapped, netip.MustParseAddr("10.0.0.9")}); err != nil || len(g.armed) != 0 {
		t.Errorf("disarm: %v, %v", err, g.armed)
	}
	g.armed[a] = slotInherited
	if err := g.Arm(3, []netip.Addr{a}); err != nil || g.armed[a] != 3 {
		t.Errorf("arm an inherited address: %v, %v", err, g.armed)
	}
}

func TestSelectDevices(t *testing.T) {
	attrs := func(index int, name, encap string, master int) netlink.LinkAttrs {
		return netlink.LinkAttrs{Index: index, Name: name, EncapType: encap, MasterIndex: master}
	}
	links := []netlink.Link{
		&netlink.Device{LinkAttrs: attrs(1, "lo", "loopback", 0)},
		&netlink.Device{LinkAttrs: attrs(2, "eth0", "ether", 0)},
		&netlink.Bridge{LinkAttrs: attrs(3, "br0", "ether", 0)},
		&netlink.Veth{LinkAttrs: attrs(4, "port0", "ether", 3)},
		&netlink.Bond{LinkAttrs: attrs(5, "bond0", "ether", 0)},
		&netlink.Device{LinkAttrs: attrs(6, "eth1", "ether", 5)},
		&netlink.Wireguard{LinkAttrs: attrs(7, "wg0", "none", 0)},
	}
	for _, tt := range []struct {
		patterns []string
		local    bool
		want     string
	}{
		{nil, true, "lo eth0 br0 bond0 eth1"},
		{nil, false, "eth0 br0 bond0 eth1"},
		{[]string{"eth*"}, true, "lo eth0 eth1"},
		{[]string{"port0", "wg0"}, false, "port0"},
	} {
		var names []string
		for _, d := range selectDevices(links, tt.patterns, tt.local) {
			names = append(names, d.name)
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("patterns %v, local %v: %s; want %s", tt.patterns, tt.local, got, tt.want)
		}
	}
}

func TestInstanceDir(t *testing.T) {
	name := instanceDir("raftvip", 4026531833)
	if inst, inode, ok := splitInstanceDir(name); !ok || inst != "raftvip" || inode != 4026531833 {
		t.Errorf("%s: %s, %d, %v", name, inst, inode, ok)
	}
	for _, bad := range []string{"raftvip", "raftvip@", "raftvip@x"} {
		if _, _, ok := splitInstanceDir(bad); ok {
			t.Errorf("%s accepted", bad)
		}
	}
}

func TestClocksourceWarning(t *testing.T) {
	for source, want := range map[string]bool{"tsc": false, "": false, "kvm-clock": true, "hyperv_clocksource_tsc_page": true, "xen": true, "arch_sys_counter": false} {
		if got := clocksourceWarning(source) != ""; got != want {
			t.Errorf("%q: warning %v, want %v", source, got, want)
		}
	}
}

func TestArmManyAtOnce(t *testing.T) {
	needKernel(t)
	m, err := newGateMaps()
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	var addrs []netip.Addr
	for i := range 1000 {
		addrs = append(addrs, netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(i % 250)}))
	}
	for slot := range uint32(2) { // again, for another group
		if err := m.putAll(addrs, slot); err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			var got uint32
			if err := m.vips.Lookup(a.As16(), &got); err != nil || got != slot {
				t.Fatalf("%s: group %d, %v; want %d", a, got, err, slot)
			}
		}
	}
	if got, _, err := mapsEstate(m.vips, nil); err != nil || len(got) != len(addrs) {
		t.Errorf("%d addresses, %v; want %d", len(got), err, len(addrs))
	}
}

package vrrpnet

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
	"github.com/raftvip/raftvip/vrrpcompat"
)

// A relation is ours to the peer's priority and address. Each has a VRID of its own
// on the same interface, so that all are tried at once.
type relation struct {
	vrid  uint8
	name  string
	prio  uint8 // ours; the peer's is peerPriority
	above bool  // our address is the higher one
	// wins: we are master in the end when both were at the same time.
	wins bool
}

const peerPriority = 100

var relations = []relation{
	{11, "higher", 150, false, true},
	{12, "equal-above", peerPriority, true, true},
	{13, "equal-below", peerPriority, false, false},
	{14, "lower", 50, true, false},
}

// A rival is another implementation of a virtual router in n2.
type rival struct {
	name     string
	version  vrrpcompat.Version
	ipv6     bool
	interval time.Duration
	start    func(*testing.T, *testnet.Lab, *testnet.Host, rival)
	macvlan  bool // it speaks from an interface of its own for each router
}

// source is the address from which it speaks for a virtual router.
func (v rival) source(h *testnet.Host, vrid uint8) netip.Addr {
	switch {
	case !v.ipv6:
		return h.Addr4(testnet.Front)
	case v.macvlan:
		return netip.MustParseAddr(fmt.Sprintf("fe80::8:%d", vrid))
	}
	return linkLocal(h)
}

var rivals = []rival{
	{"keepalived-v2", vrrpcompat.V2, false, time.Second, startKeepalived, false},
	{"keepalived-v3", vrrpcompat.V3, false, 200 * time.Millisecond, startKeepalived, false},
	{"keepalived-v3-ipv6", vrrpcompat.V3, true, 200 * time.Millisecond, startKeepalived, false},
	{"frr-v2", vrrpcompat.V2, false, time.Second, startFRR, true},
	{"frr-v3", vrrpcompat.V3, false, 200 * time.Millisecond, startFRR, true},
	{"frr-v3-ipv6", vrrpcompat.V3, true, 200 * time.Millisecond, startFRR, true},
}

// mustExec runs a shell script in the host.
func mustExec(t *testing.T, h *testnet.Host, script string) string {
	t.Helper()
	out, err := h.Exec(t.Context(), "sh", "-ec", script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// virtual is the virtual address of a VRID.
func virtual(l *testnet.Lab, vrid uint8, ipv6 bool) netip.Addr {
	if ipv6 {
		return netip.MustParseAddr(fmt.Sprintf("fe80::1:%d", vrid))
	}
	return l.VIP4(100 + int(vrid))
}

// needKeepalived fails the test with what to do if keepalived is missing.
func needKeepalived(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("keepalived"); err != nil {
		t.Fatal("keepalived is not installed: make setup")
	}
}

// instance is a vrrp_instance of keepalived, with more lines if any.
func instance(vrid, prio uint8, version vrrpcompat.Version, interval time.Duration, vip netip.Addr, more ...string) string {
	return fmt.Sprintf(`vrrp_instance V%d {
    interface eth0
    virtual_router_id %d
    priority %d
    version %d
    advert_int %g
    virtual_ipaddress {
        %v
    }
    %s
}
`, vrid, vrid, prio, version, interval.Seconds(), vip, strings.Join(more, "\n    "))
}

const keepalivedGlobals = `global_defs {
    router_id peer
    vrrp_garp_master_delay 0
}
`

func startKeepalived(t *testing.T, l *testnet.Lab, h *testnet.Host, v rival) {
	t.Helper()
	needKeepalived(t)
	config := keepalivedGlobals
	for _, r := range relations {
		config += instance(r.vrid, peerPriority, v.version, v.interval, virtual(l, r.vrid, v.ipv6))
	}
	if _, err := l.StartKeepalived(h, config); err != nil {
		t.Fatal(err)
	}
}

// startFRR makes the macvlans that vrrpd needs, each with an address.
func startFRR(t *testing.T, l *testnet.Lab, h *testnet.Host, v rival) {
	t.Helper()
	config := "interface eth0\n"
	for _, r := range relations {
		vip := virtual(l, r.vrid, v.ipv6)
		own, proto := vip, "ip"
		if v.ipv6 {
			own, proto = v.source(h, r.vrid), "ipv6"
		}
		addMacvlan(t, h, r.vrid, v.ipv6, own)
		config += fmt.Sprintf(" vrrp %[1]d version %[2]d\n vrrp %[1]d priority %[3]d\n vrrp %[1]d advertisement-interval %[4]d\n vrrp %[1]d %[5]s %[6]v\n",
			r.vrid, v.version, peerPriority, v.interval.Milliseconds(), proto, vip)
	}
	if _, err := l.StartFRR(h, config); err != nil {
		t.Fatal(err)
	}
}

// addMacvlan makes an interface with the MAC address of a virtual router.
func addMacvlan(t *testing.T, h *testnet.Host, vrid uint8, ipv6 bool, addr netip.Addr) {
	t.Helper()
	family, bits := 1, 32
	if ipv6 {
		family, bits = 2, 64
	}
	mustExec(t, h, fmt.Sprintf(`ip link add vr%[1]d link eth0 type macvlan mode bridge
		ip link set vr%[1]d addrgenmode none address 00:00:5e:00:%02[2]x:%02[1]x
		ip addr add %[3]v/%[4]d dev vr%[1]d
		ip link set vr%[1]d up`, vrid, family, addr, bits))
}

// ourConfig is a router like those of the peers.
func ourConfig(vrid, prio uint8, v rival, vip, source netip.Addr) routerConfig {
	return routerConfig{
		Options: Options{Interface: "eth0", IPv6: v.ipv6, VRID: vrid, Source: source},
		Machine: vrrpcompat.MachineConfig{Version: v.version, Priority: prio, Interval: v.interval, Accept: true},
		Expect:  vrrpcompat.Expect{Addresses: vrrpcompat.AddressList{Addresses: []netip.Addr{vip}}},
	}
}

// linkLocal returns the address that the kernel gave the host.
func linkLocal(h *testnet.Host) netip.Addr {
	m := h.MAC(testnet.Front)
	// RFC 4291 appendix A.
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// settleUnlessStalled is settle for the router that should be master. Of two with
// equal priority the other one may be master all the same, and remains it, if the
// first was not to be heard for the down interval before: on a loaded machine that
// happens to every implementation.
func (w *wire) settleUnlessStalled(r relation, should, other netip.Addr, interval time.Duration) {
	w.t.Helper()
	if r.prio != peerPriority {
		w.settle(r.vrid, should, interval)
		return
	}
	var master netip.Addr
	testnet.MustWait(w.t, 30*time.Second, fmt.Sprintf("one master of router %d", r.vrid), func() error {
		var err error
		if err = w.alone(r.vrid, should, interval); err == nil {
			master = should
		} else if w.alone(r.vrid, other, interval) == nil {
			master, err = other, nil
		}
		return err
	})
	if master == should {
		return
	}
	gap := silence(w.of(r.vrid, netip.Addr{}), should, other, interval)
	if gap < 3*interval {
		w.t.Errorf("%s: %v is master, %v after the last word of %v", r.name, other, gap, should)
		return
	}
	w.t.Logf("%s: %v is master, as %v was stalled for %v", r.name, other, should, gap)
}

// silence returns for how long a router had been silent when another one, which now
// speaks alone, began to. That both speak for a moment, before one yields, is part
// of the change.
func silence(all []seen, should, other netip.Addr, interval time.Duration) time.Duration {
	var last, began time.Time
	for _, s := range all {
		switch {
		case s.src == other && s.priority() > 0 && began.IsZero():
			began = s.at
		case s.src == should && (began.IsZero() || s.at.Sub(began) > 4*interval):
			last, began = s.at, time.Time{}
		}
	}
	if last.IsZero() || began.IsZero() {
		return 0
	}
	return began.Sub(last)
}

func TestSilence(t *testing.T) {
	a, b := ip("10.0.0.1"), ip("10.0.0.2")
	for _, x := range []struct {
		name string
		said string // one letter for each tenth of an interval, or . for none; z is b with priority 0
		want int    // tenths
	}{
		{"never the first", "b.........b.........b", 0},
		{"never the other", "a.........a.........a", 0},
		{"took it from a living one", "a.........a....b.........b.........b", 5},
		{"took it from a silent one", "a.........a.......................................b.........b", 40},
		{"and it was there once more", "a.........a.......................................b.........b.a.......b", 40},
		{"left before", "b.........z......a.........a.........a.........a.........a.........a...b.........b", 4},
	} {
		var all []seen
		for i, c := range x.said {
			s := seen{at: time.Unix(0, 0).Add(time.Duration(i) * 10 * time.Millisecond), src: b, payload: []byte{0x31, 1, 100}}
			switch c {
			case '.':
				continue
			case 'a':
				s.src = a
			case 'z':
				s.payload = []byte{0x31, 1, 0}
			}
			all = append(all, s)
		}
		if got := silence(all, a, b, 100*time.Millisecond); got != time.Duration(x.want)*10*time.Millisecond {
			t.Errorf("%s: %v, want %d tenths", x.name, got, x.want)
		}
	}
}

// Both directions of an election: who is there first, who comes later, and two that
// were master at the same time, as after a partition; at every relation of priority
// and address (RFC 9568 sections 6.4.2 and 6.4.3).
func TestElection(t *testing.T) {
	testnet.Require(t)
	t.Parallel()
	for _, v := range rivals {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			l := testnet.ForTest(t, testnet.Options{Nodes: 2})
			us, them := l.Node(0), l.Node(1)
			w := watchWire(t, l.Observer(), "eth0")

			below, above := netip.MustParseAddr("10.99.0.9"), netip.MustParseAddr("10.99.0.90")
			bits := 24
			if v.ipv6 {
				below, above, bits = netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::ffff:0:0:1"), 64
			}
			mustExec(t, us, fmt.Sprintf("ip addr add %v/%d dev eth0; ip addr add %v/%d dev eth0", below, bits, above, bits))
			ours := map[string]routerConfig{}
			source := map[uint8]netip.Addr{}
			for _, r := range relations {
				source[r.vrid] = below
				if r.above {
					source[r.vrid] = above
				}
				ours[r.name] = ourConfig(r.vrid, r.prio, v, virtual(l, r.vrid, v.ipv6), source[r.vrid])
			}
			// peer is where the peer speaks from, source where we do.
			peer := func(r relation) netip.Addr { return v.source(them, r.vrid) }
			settled := func(we func(relation) bool) {
				t.Helper()
				for _, r := range relations {
					should, other := source[r.vrid], peer(r)
					if !we(r) {
						should, other = other, should
					}
					w.settleUnlessStalled(r, should, other, v.interval)
				}
			}

			// We are there first. Of those that come later only a higher priority takes
			// over, whatever the address is.
			rs := startRouters(t, l, us, ours)
			settled(func(relation) bool { return true })
			v.start(t, l, them, v)
			for _, r := range relations {
				if r.prio < peerPriority {
					w.settle(r.vrid, peer(r), v.interval)
				}
			}
			settled(func(r relation) bool { return r.prio >= peerPriority })

			// Cut off from each other, both are master. Together again the better one
			// remains, and of equals the one with the higher address.
			if err := l.CutBoth(us, them); err != nil {
				t.Fatal(err)
			}
			from := time.Now()
			for _, r := range relations {
				rs.waitState(r.name, vrrpcompat.Master)
				w.first(r.vrid, peer(r), "the peer to be master on its own", func(s seen) bool { return s.at.After(from) })
			}
			if err := l.Heal(); err != nil {
				t.Fatal(err)
			}
			settled(func(r relation) bool { return r.wins })

			// We leave, and say so where we are master; the peer is master.
			rs.end()
			settled(func(relation) bool { return false })
			for _, r := range relations {
				said := w.of(r.vrid, source[r.vrid])
				if last := said[len(said)-1]; (last.priority() == 0) != r.wins {
					t.Errorf("%s: the last advertisement has priority %d", r.name, last.priority())
				}
			}

			// The peer is there first.
			rs = startRouters(t, l, us, ours)
			settled(func(r relation) bool { return r.prio > peerPriority })
			for _, r := range relations {
				want := vrrpcompat.Backup
				if r.prio > peerPriority {
					want = vrrpcompat.Master
				}
				if r.prio == peerPriority && rs.status(r.name).State == vrrpcompat.Master {
					continue // the peer was stalled, or settled would have failed
				}
				got := rs.waitState(r.name, want)
				if want == vrrpcompat.Backup && (got.Other == nil || got.Other.Addr != peer(r) || got.Other.Priority != peerPriority) {
					t.Errorf("%s: other master %+v, want %v", r.name, got.Other, peer(r))
				}
				if len(got.Notes) > 0 {
					t.Errorf("%s: odd packets: %+v", r.name, got.Notes)
				}
			}
		})
	}
}

package vrrpnet

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
	"github.com/raftvip/raftvip/vrrpcompat"
)

// Differences between our configuration and that of a keepalived that is master:
// what fits takes part in the election, what does not is named with its sender.
func TestMismatch(t *testing.T) {
	t.Parallel()
	l := testnet.ForTest(t, testnet.Options{Nodes: 2})
	needKeepalived(t)
	us, them := l.Node(0), l.Node(1)
	w := watchWire(t, l.Observer(), "eth0")
	pass := "authentication {\n auth_type PASS\n auth_pass secret12\n }"
	secret := func(c *routerConfig, password string) {
		c.Expect.AuthType, c.Expect.Auth = vrrpcompat.AuthPass, vrrpcompat.Password(password)
	}
	const v3 = 200 * time.Millisecond
	cases := []struct {
		vrid    uint8
		name    string
		version vrrpcompat.Version // theirs and ours, unless changed
		prio    uint8              // ours
		more    string             // in their instance
		change  func(*routerConfig)
		wins    uint8 // 1: we alone, 2: they alone, 0: both
		reason  string
		detail  string
		dropped bool
	}{
		{21, "password", vrrpcompat.V2, 150, pass, func(c *routerConfig) { secret(c, "secret12") }, 1, "", "", false},
		{22, "password, first eight", vrrpcompat.V2, 50, pass, func(c *routerConfig) { secret(c, "secret12, and more") }, 2, "", "", false},
		{23, "other password", vrrpcompat.V2, 150, pass, func(c *routerConfig) { secret(c, "secret13") }, 0, "auth_data", "", true},
		{24, "no password here", vrrpcompat.V2, 150, pass, func(*routerConfig) {}, 0, "auth_type", "authentication type 1", true},
		{25, "no password there", vrrpcompat.V2, 150, "", func(c *routerConfig) { secret(c, "secret12") }, 0, "auth_type", "authentication type 0", true},
		{26, "version 2 interval", vrrpcompat.V2, 50, "", func(c *routerConfig) { c.Machine.Interval = 2 * time.Second }, 0, "interval", "interval 1s", true},
		// With a shorter interval of ours keepalived 2.2.7 would not speak any more: a packet
		// that it drops starts its timer again.
		{27, "version", vrrpcompat.V2, 50, "", func(c *routerConfig) { c.Machine.Version = vrrpcompat.V3 }, 0, "version", "version 2", true},
		{28, "version 3 interval is learnt", vrrpcompat.V3, 50, "", func(c *routerConfig) { c.Machine.Interval = 50 * time.Millisecond }, 2, "interval", "interval 200ms", false},
		{29, "more addresses here", vrrpcompat.V3, 50, "", func(c *routerConfig) {
			c.Expect.Addresses.Addresses = append(c.Expect.Addresses.Addresses, l.VIP4(199))
		}, 2, "address_list", "addresses 10.99.0.129", false},
		{30, "other addresses", vrrpcompat.V3, 50, "", func(c *routerConfig) {
			c.Expect.Addresses.Addresses = []netip.Addr{l.VIP4(199)}
		}, 0, "vrid_collision", "addresses 10.99.0.130", true},
		{31, "checksum", vrrpcompat.V3, 50, "", func(c *routerConfig) { c.Expect.Checksum = vrrpcompat.ChecksumPlain }, 0, "checksum_form", "", true},
	}
	config, ours := keepalivedGlobals, map[string]routerConfig{}
	for _, c := range cases {
		v := rival{version: c.version, interval: v3}
		if c.version == vrrpcompat.V2 {
			v.interval = time.Second
		}
		vip := virtual(l, c.vrid, false)
		config += instance(c.vrid, peerPriority, v.version, v.interval, vip, c.more)
		rc := ourConfig(c.vrid, c.prio, v, vip, netip.Addr{})
		c.change(&rc)
		ours[c.name] = rc
	}
	if _, err := l.StartKeepalived(them, config); err != nil {
		t.Fatal(err)
	}
	peer, own := them.Addr4(testnet.Front), us.Addr4(testnet.Front)
	for _, c := range cases {
		w.first(c.vrid, peer, "the peer to be master", func(seen) bool { return true })
	}
	rs := startRouters(t, l, us, ours)
	for _, c := range cases {
		interval := v3
		if c.version == vrrpcompat.V2 {
			interval = time.Second
		}
		switch c.wins {
		case 0:
			rs.waitState(c.name, vrrpcompat.Master)
		case 1:
			w.settle(c.vrid, own, interval)
		case 2:
			w.settle(c.vrid, peer, interval)
			rs.wait(c.name, "to know the master", func(s report) error {
				if s.State != vrrpcompat.Backup || s.Other == nil || s.Other.Addr != peer || s.Other.Interval != interval {
					return fmt.Errorf("%v, other %+v", s.State, s.Other)
				}
				return nil
			})
		}
		s := rs.wait(c.name, "to hear the peer", func(s report) error {
			if s.Accepted == 0 && len(s.Drops) == 0 {
				return errors.New("nothing received")
			}
			return nil
		})
		if c.reason == "" {
			if len(s.Notes) > 0 || len(s.Drops) > 0 || s.Accepted == 0 {
				t.Errorf("%s: accepted %d, dropped %v: %+v", c.name, s.Accepted, s.Drops, s.Notes)
			}
			continue
		}
		if len(s.Notes) != 1 {
			t.Errorf("%s: notes %+v, want one: %s", c.name, s.Notes, c.reason)
			continue
		}
		n := s.Notes[0]
		if n.Reason != c.reason || n.Detail != c.detail || n.Dropped != c.dropped || n.Sender != peer || n.Count == 0 || n.Last < n.First || n.First == 0 {
			t.Errorf("%s: %+v, want %s %q", c.name, n, c.reason, c.detail)
		}
		if c.dropped && s.Drops[c.reason] == 0 || !c.dropped && s.Accepted == 0 {
			t.Errorf("%s: accepted %d, dropped %v", c.name, s.Accepted, s.Drops)
		}
	}
}

// Unicast: to peers only, with the TTL that was asked for, from an address that
// they can answer; and what is not from a peer has no say.
func TestUnicast(t *testing.T) {
	t.Parallel()
	l := testnet.ForTest(t, testnet.Options{Nodes: 3})
	needKeepalived(t)
	us, them, intruder := l.Node(0), l.Node(1), l.Node(2)
	w := watchWire(t, us, "eth0")
	const interval = 200 * time.Millisecond
	v4, v6 := rival{version: vrrpcompat.V3, interval: interval}, rival{version: vrrpcompat.V3, ipv6: true, interval: interval}
	addr := func(h *testnet.Host, v rival) netip.Addr {
		if v.ipv6 {
			return h.Addr6(testnet.Front)
		}
		return h.Addr4(testnet.Front)
	}
	from := func(h *testnet.Host, v rival, more string) string {
		return fmt.Sprintf("unicast_src_ip %v\n unicast_peer {\n %v\n }\n %s", addr(h, v), addr(us, v), more)
	}
	cases := []struct {
		vrid uint8
		name string
		v    rival
		prio uint8
		wins uint8
	}{
		{31, "higher", v4, 150, 1},
		{32, "lower", v4, 50, 2},
		{33, "higher IPv6", v6, 150, 1},
		{34, "lower IPv6", v6, 50, 2},
	}
	config, ours := keepalivedGlobals, map[string]routerConfig{}
	for _, c := range cases {
		vip := virtual(l, c.vrid, c.v.ipv6)
		config += instance(c.vrid, peerPriority, 3, interval, vip, from(them, c.v, ""))
		rc := ourConfig(c.vrid, c.prio, c.v, vip, netip.Addr{})
		rc.Options.TTL = 250
		rc.Expect.Peers = []vrrpcompat.Peer{{Address: addr(us, c.v)}, {Address: addr(them, c.v)}}
		rc.Expect.CheckUnicastSource = true
		ours[c.name] = rc
	}
	// A peer whose packets have come too far, and one that we do not know to be one.
	config += instance(35, peerPriority, 3, interval, l.VIP4(135), from(them, v4, "unicast_ttl 200"))
	rc := ourConfig(35, 50, v4, l.VIP4(135), netip.Addr{})
	rc.Expect.Peers = []vrrpcompat.Peer{{Address: addr(them, v4), MinTTL: 201}}
	ours["far"] = rc
	config += instance(37, peerPriority, 3, interval, l.VIP4(137), from(them, v4, ""))
	ours["multicast here"] = ourConfig(37, 50, v4, l.VIP4(137), netip.Addr{})
	// A router that has no peer but itself is master of what it is told to be.
	rc = ourConfig(38, 50, v4, l.VIP4(138), netip.Addr{})
	rc.Expect.Peers = []vrrpcompat.Peer{{Address: addr(us, v4)}}
	ours["alone"] = rc
	if _, err := l.StartKeepalived(them, config); err != nil {
		t.Fatal(err)
	}
	// Not a peer, with a higher priority.
	if _, err := l.StartKeepalived(intruder, keepalivedGlobals+instance(31, 200, 3, interval, l.VIP4(131), from(intruder, v4, ""))); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		w.first(c.vrid, addr(them, c.v), "the peer to be master", func(seen) bool { return true })
	}
	w.first(31, addr(intruder, v4), "the intruder", func(seen) bool { return true })
	rs := startRouters(t, l, us, ours)

	for _, c := range cases {
		state := vrrpcompat.Backup
		if c.wins == 1 {
			state = vrrpcompat.Master
		}
		s := rs.wait(c.name, "to find its place", func(s report) error {
			if s.State != state || s.Other == nil && state == vrrpcompat.Backup || s.Accepted == 0 {
				return fmt.Errorf("%v (%s), other %v", s.State, s.Reason, s.Other)
			}
			return nil
		})
		if s.Source != addr(us, c.v) || len(s.Destinations) != 1 || s.Destinations[0] != addr(them, c.v) {
			t.Errorf("%s: from %v to %v", c.name, s.Source, s.Destinations)
		}
	}
	for _, c := range cases {
		if c.wins != 1 {
			continue
		}
		said := w.first(c.vrid, addr(us, c.v), "our advertisement", func(seen) bool { return true })
		ttl := said.ip[8]
		if c.v.ipv6 {
			ttl = said.ip[7]
		}
		if said.dst != addr(them, c.v) || ttl != 250 {
			t.Errorf("%s: sent to %v with TTL %d", c.name, said.dst, ttl)
		}
		// The peer yields: after some intervals only we speak.
		testnet.MustWait(t, 20*time.Second, c.name+": the peer to yield", func() error {
			since := time.Now().Add(-4 * interval)
			for _, s := range w.of(c.vrid, addr(them, c.v)) {
				if s.at.After(since) {
					return fmt.Errorf("it spoke %v ago", time.Since(s.at))
				}
			}
			return nil
		})
	}
	rs.wait("alone", "to be master", func(s report) error {
		if s.State != vrrpcompat.Master || s.Renewed == 0 || s.Until == 0 || s.SendText != "" {
			return fmt.Errorf("%v, renewed %d, %q", s.State, s.Renewed, s.SendText)
		}
		return nil
	})
	for name, reason := range map[string]string{
		"higher": "source", "far": "peer_ttl", "multicast here": "not_multicast",
	} {
		s := rs.wait(name, "to note "+reason, func(s report) error {
			if s.Drops[reason] == 0 || s.State != vrrpcompat.Master {
				return fmt.Errorf("%v, drops %v", s.State, s.Drops)
			}
			return nil
		})
		sender := addr(them, v4)
		if name == "higher" {
			sender = addr(intruder, v4)
		}
		if len(s.Notes) != 1 || s.Notes[0].Sender != sender || s.Notes[0].Reason != reason {
			t.Errorf("%s: notes %+v", name, s.Notes)
		}
	}
}

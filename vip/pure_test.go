package vip

import (
	"errors"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func kaddr(s string, proto uint8) KernelAddress {
	return KernelAddress{Prefix: pfx(s), Subnet: pfx(s).Masked(), Protocol: proto}
}

func TestResolve(t *testing.T) {
	links := []Link{
		{Index: 1, Name: "lo", Up: true, Addresses: []KernelAddress{kaddr("127.0.0.1/8", 0), kaddr("10.5.0.9/32", 0)}},
		{Index: 2, Name: "eth0", Up: true, Addresses: []KernelAddress{kaddr("10.1.2.9/24", 0), kaddr("fe80::1/64", 0), kaddr("10.9.0.1/24", AddrProtocol)}},
		{Index: 3, Name: "eth1", Up: true, Addresses: []KernelAddress{kaddr("10.1.0.9/16", 0), kaddr("fe80::2/64", 0), kaddr("2001:db8::1/64", 0)}},
		{Index: 4, Name: "eth2", Addresses: []KernelAddress{kaddr("10.1.2.8/24", 0)}},
		{Index: 5, Name: "tun0", Up: true, Addresses: []KernelAddress{{Prefix: pfx("172.16.0.1/30"), Subnet: pfx("192.168.7.0/30")}}},
	}
	tests := []struct {
		prefix, dev, instance string
		want, err             string
	}{
		{prefix: "10.1.2.3/32", dev: "eth1", instance: "eth0", want: "eth1"},
		{prefix: "10.1.2.3/32", instance: "eth0", want: "eth0"},
		{prefix: "10.1.2.3/32", want: "eth0"}, // longest subnet, and eth2 is down
		{prefix: "10.1.7.3/32", want: "eth1"},
		{prefix: "2001:db8::5/64", want: "eth1"},
		{prefix: "192.168.7.2/32", want: "tun0"}, // the peer's subnet counts
		{prefix: "172.16.0.2/32", err: "172.16.0.2: no interface has an address in its subnet; name one with dev (this node has lo, eth0, eth1, eth2, tun0)"},
		{prefix: "10.5.0.9/32", err: "10.5.0.9: no interface"}, // a single address is no subnet
		{prefix: "10.9.0.3/32", err: "10.9.0.3: no interface"}, // ours does not count
		{prefix: "fe80::5/64", err: "fe80::5: several interfaces have an address in its subnet (eth0, eth1); name one with dev"},
		{prefix: "10.1.2.3/32", dev: "eth9", want: "eth9", err: "10.1.2.3: interface does not exist: eth9; this node has"},
		{prefix: "10.1.2.3/32", instance: "bond0", want: "bond0", err: "interface does not exist: bond0"},
	}
	for _, tt := range tests {
		got, err := Resolve(pfx(tt.prefix), tt.dev, tt.instance, links)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("Resolve(%s, %q, %q) = %q, %v; want %q, %q", tt.prefix, tt.dev, tt.instance, got, err, tt.want, tt.err)
		}
		if named := tt.want != "" && tt.err != ""; named != errors.Is(err, ErrNoLink) {
			t.Errorf("Resolve(%s, %q, %q): errors.Is(%v, ErrNoLink) is %v", tt.prefix, tt.dev, tt.instance, err, !named)
		}
	}
}

// TestSiteStays: an address that was placed stays where it is when that is not clear
// any more.
func TestSiteStays(t *testing.T) {
	const addr, second = "10.1.2.3/24", time.Second
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	on := func(name string, addrs ...string) Link {
		l := Link{Name: name, Up: true, MAC: mac}
		for _, a := range addrs {
			l.Addresses = append(l.Addresses, kaddr(a, 0))
		}
		return l
	}
	without := func(l Link, change func(*Link)) Link { change(&l); return l }
	eth0, mgmt := on("eth0", "10.1.2.9/24"), on("eth1", "10.1.2.8/24")
	other, bare := on("eth0", "192.0.2.1/24"), on("eth0")
	port := without(bare, func(l *Link) { l.Port = true })
	down := without(eth0, func(l *Link) { l.Up = false })
	tests := []struct {
		name         string
		was          Site
		dev, prefix  string
		links        []Link
		want         string
		warning, err string
	}{
		{name: "first time, clear", links: []Link{eth0}, want: "eth0"},
		{name: "first time, two", links: []Link{eth0, mgmt}, err: "several interfaces have an address in its subnet (eth0, eth1)"},
		{name: "a second one comes", was: Site{Link: "eth0"}, links: []Link{eth0, mgmt}, want: "eth0", warning: "several interfaces have an address in its subnet (eth0, eth1); it stays on eth0"},
		{name: "one with a longer subnet comes", was: Site{Link: "eth0"}, links: []Link{eth0, on("eth1", "10.1.2.8/28")}, want: "eth0", warning: "(eth1, eth0); it stays on eth0"},
		{name: "two others", was: Site{Link: "eth9"}, links: []Link{eth0, mgmt}, err: "several"},
		{name: "its own address is lost", was: Site{Link: "eth0"}, links: []Link{bare}, want: "eth0", warning: "eth0 has no address in its subnet any more; it stays"},
		{name: "lost, and two others have one", was: Site{Link: "eth0"}, links: []Link{bare, mgmt, on("eth2", "10.1.2.7/24")}, want: "eth0", warning: "it stays"},
		{name: "lost, and another has one", was: Site{Link: "eth0"}, links: []Link{bare, mgmt}, want: "eth0", warning: "it moves there after 30s"},
		{name: "lost a while ago", was: Site{Link: "eth0", lostAt: 71 * second}, links: []Link{bare, mgmt}, want: "eth0", warning: "it moves there after 30s"},
		{name: "lost long ago", was: Site{Link: "eth0", lostAt: 70 * second}, links: []Link{bare, mgmt}, want: "eth1"},
		{name: "it became a port of a bridge that has the address", was: Site{Link: "eth0"}, links: []Link{port, on("br0", "10.1.2.9/24")}, want: "br0"},
		{name: "it was taken down", was: Site{Link: "eth0"}, links: []Link{down, mgmt}, want: "eth1"},
		{name: "it was removed", was: Site{Link: "eth0"}, links: []Link{mgmt}, want: "eth1"},
		{name: "it was removed, and nothing is left", was: Site{Link: "eth0"}, links: []Link{on("lo")}, err: "no interface has an address in its subnet"},

		{name: "named, on another network", dev: "eth0", links: []Link{other, mgmt}, want: "", err: "wrong interface: eth0 has no address in 10.1.2.0/24; eth1 has"},
		{name: "named, on no network", dev: "eth0", links: []Link{bare, mgmt}, err: "eth1 has"},
		{name: "named, without a length, on another network", dev: "eth0", prefix: "10.1.2.3/32", links: []Link{other, mgmt}, err: "eth0 has no address in 10.1.2.0/24; eth1 has"},
		{name: "named, own address lost", was: Site{Link: "eth0"}, dev: "eth0", links: []Link{bare, mgmt}, want: "eth0", warning: "eth0 has no address in 10.1.2.0/24; eth1 has; it stays"},
		{name: "named, in no subnet of the machine", dev: "eth0", prefix: "198.51.100.5/24", links: []Link{eth0, mgmt}, want: "eth0"},
		{name: "named, both are right", dev: "eth0", links: []Link{eth0, mgmt}, want: "eth0"},
		{name: "named, single own address in the subnet as written", dev: "eth0", links: []Link{on("eth0", "10.1.2.9/32"), mgmt}, want: "eth0"},
		{name: "named, the other is down", dev: "eth0", links: []Link{bare, without(mgmt, func(l *Link) { l.Up = false })}, want: "eth0"},
		{name: "named, the other is a tunnel", dev: "eth0", links: []Link{bare, without(on("wg0", "10.0.0.1/8"), func(l *Link) { l.MAC = nil })}, want: "eth0"},
		{name: "named, a loopback", dev: "lo", links: []Link{without(on("lo", "127.0.0.1/8"), func(l *Link) { l.NoARP = true }), mgmt}, want: "lo"},
		{name: "named, link-local", dev: "eth0", prefix: "fe80::5/64", links: []Link{bare, on("eth1", "fe80::1/64")}, want: "eth0"},
		{name: "named, the other has a copy of it", dev: "eth0", links: []Link{bare, on("eth1", "10.1.2.3/24")}, want: "eth0"},
		{name: "named, ours does not count", dev: "eth0", links: []Link{bare, {Name: "eth1", Up: true, MAC: mac, Addresses: []KernelAddress{kaddr("10.1.2.8/24", AddrProtocol)}}}, want: "eth0"},
	}
	for _, tt := range tests {
		if tt.prefix == "" {
			tt.prefix = addr
		}
		got, warning, err := tt.was.Resolve(100*second, pfx(tt.prefix), tt.dev, "", tt.links)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || errors.Is(err, ErrWrongLink) != (tt.dev != "") {
				t.Errorf("%s: %q, %v; want %q", tt.name, got.Link, err, tt.err)
			}
			continue
		}
		if err != nil || got.Link != tt.want || tt.warning == "" && warning != "" || !strings.Contains(warning, tt.warning) {
			t.Errorf("%s: %q, %q, %v; want %q, %q", tt.name, got.Link, warning, err, tt.want, tt.warning)
		}
		if pending := strings.Contains(warning, "moves there"); pending != (got.Until() > 100*second) {
			t.Errorf("%s: to be looked at at %v", tt.name, got.Until())
		}
	}
}

func TestKernelForm(t *testing.T) {
	tests := []struct {
		name     string
		a        Address
		covered  bool
		lifetime time.Duration
		want     KernelAddress
	}{
		{"IPv4 in a subnet of the link is a single address without route",
			Address{Prefix: pfx("10.1.2.3/24")}, true, 30 * time.Second,
			KernelAddress{Prefix: pfx("10.1.2.3/32"), Subnet: pfx("10.1.2.3/32"), Protocol: AddrProtocol, Lifetime: 30 * time.Second, NoPrefixRoute: true}},
		{"IPv4 in a subnet of its own keeps its length and route",
			Address{Prefix: pfx("10.1.2.3/24"), Broadcast: netip.MustParseAddr("10.1.2.255"), Scope: 253, Label: "eth0:1"}, false, 0,
			KernelAddress{Prefix: pfx("10.1.2.3/24"), Subnet: pfx("10.1.2.0/24"), Protocol: AddrProtocol,
				Broadcast: netip.MustParseAddr("10.1.2.255"), Scope: 253, Label: "eth0:1"}},
		{"IPv6 has no DAD and is never a source address",
			Address{Prefix: pfx("2001:db8::5/64"), Scope: 253, Label: "x"}, true, 0,
			KernelAddress{Prefix: pfx("2001:db8::5/128"), Subnet: pfx("2001:db8::5/128"), Protocol: AddrProtocol, NoPrefixRoute: true, NoDAD: true, Deprecated: true}},
		{"IPv6 in a subnet of its own keeps its length",
			Address{Prefix: pfx("2001:db8::5/64")}, false, 0,
			KernelAddress{Prefix: pfx("2001:db8::5/64"), Subnet: pfx("2001:db8::/64"), Protocol: AddrProtocol, NoDAD: true, Deprecated: true}},
	}
	for _, tt := range tests {
		if got := tt.a.kernelForm(tt.covered, tt.lifetime); got != tt.want {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.name, got, tt.want)
		}
	}
}

func TestCoveredBy(t *testing.T) {
	for _, tt := range []struct {
		a, own string
		want   bool
	}{
		{"10.0.0.5/24", "10.0.0.1/24", true},
		{"10.0.0.5/32", "10.0.0.1/24", true},
		{"10.0.0.5/24", "10.0.0.1/16", true},
		{"10.0.0.5/24", "10.0.0.1/32", true},  // a gateway on the link
		{"10.0.0.5/32", "10.0.0.1/32", false}, // nothing says that they belong together
		{"10.0.0.5/24", "10.0.1.1/24", false},
		{"10.0.0.5/24", "10.0.0.5/16", false}, // a copy of it
		{"10.0.0.5/24", "fd00::1/64", false},
		{"fd00::5/64", "fd00::1/64", true},
		{"fd00::5/64", "fd00::1/128", true},
		{"fd00::5/64", "fe80::1/64", false},
		{"10.0.0.5/24", "10.0.0.250/30", true}, // in it, and does not lead to ours
		{"2001:db8::5/64", "2001:db8::1/48", true},
	} {
		own := pfx(tt.own)
		if got := (Address{Prefix: pfx(tt.a)}).coveredBy(KernelAddress{Prefix: own, Subnet: own.Masked()}); got != tt.want {
			t.Errorf("%s covered by %s: %v", tt.a, tt.own, got)
		}
	}
}

func TestParseScopeAndBroadcast(t *testing.T) {
	for s, want := range map[string]int{"": 0, "global": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255, "17": 17, "0xfd": 253, "256": -1, "universe": -1} {
		got, err := ParseScope(s)
		if (err != nil) != (want < 0) || err == nil && int(got) != want {
			t.Errorf("ParseScope(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, tt := range []struct{ s, prefix, want string }{
		{"", "10.1.2.3/24", "invalid IP"}, {"-", "10.1.2.3/24", "invalid IP"}, {"+", "10.1.2.3/24", "10.1.2.255"},
		{"+", "10.1.2.3/20", "10.1.15.255"}, {"+", "10.1.2.3/31", "invalid IP"}, {"10.1.2.99", "10.1.2.3/24", "10.1.2.99"},
		{"+", "2001:db8::1/64", "error"}, {"all", "10.1.2.3/24", "error"},
	} {
		got, err := ParseBroadcast(tt.s, pfx(tt.prefix))
		if s := got.String(); err != nil && tt.want != "error" || err == nil && s != tt.want {
			t.Errorf("ParseBroadcast(%q, %s) = %s, %v; want %s", tt.s, tt.prefix, s, err, tt.want)
		}
	}
}

func TestDecide(t *testing.T) {
	up := &Link{Index: 2, Name: "eth0", Up: true, Running: true}
	down := &Link{Index: 2, Name: "eth0"}
	target := place{2, pfx("10.0.0.5/32")}
	stray := place{2, pfx("10.0.0.5/24")}
	foreign := pfx("10.0.0.5/16")
	tests := []struct {
		name string
		v    view
		want step // why is not compared, only whether it is empty
	}{
		{"nothing wanted, nothing there", view{link: up}, step{}},
		{"not owned: ours goes", view{link: up, gate: true, ours: []place{target}, target: target, put: true}, step{remove: []place{target}, state: StateRemoving}},
		{"not owned, gate not valid: ours goes all the same", view{link: up, ours: []place{target, stray}, target: target}, step{remove: []place{target, stray}, state: StateRemoving}},
		{"not owned, link gone: what is left goes", view{ours: []place{target}}, step{remove: []place{target}, state: StateRemoving}},
		{"not owned: a foreign address is put under the guard", view{link: up, foreign: foreign}, step{guard: true, state: StateForeign, why: "x"}},
		{"not owned: a foreign address that no guard can silence is reported", view{link: up, foreign: foreign, unguarded: "no"}, step{state: StateForeign, why: "x"}},

		{"owned: add", view{own: true, gate: true, link: up, target: target}, step{add: true}},
		{"owned, gate not valid: nothing is touched", view{own: true, link: up, target: target}, step{state: StateWaiting, why: "x"}},
		{"owned, gate not valid: what is there stays", view{own: true, link: up, target: target, ours: []place{target}, put: true}, step{state: StatePresent, why: "x"}},
		{"owned, gate not valid: strays stay too", view{own: true, link: up, target: target, ours: []place{stray}}, step{state: StateWaiting, why: "x"}},
		{"owned and there", view{own: true, gate: true, link: up, target: target, ours: []place{target}, put: true}, step{state: StatePresent}},
		{"owned, there by an earlier hand of ours: written anew", view{own: true, gate: true, link: up, target: target, ours: []place{target}}, step{adopt: true}},
		{"owned, there with another length: that goes first", view{own: true, gate: true, link: up, target: target, ours: []place{stray}}, step{remove: []place{stray}}},
		{"owned, there twice: the other goes", view{own: true, gate: true, link: up, target: target, ours: []place{target, stray}, put: true}, step{remove: []place{stray}, state: StatePresent}},
		{"owned, to have another form: that stands beside it first", view{own: true, gate: true, link: up, target: target, ours: []place{stray}, reform: true}, step{add: true, state: StatePresent}},
		{"owned, to have another form, gate not valid: as it is", view{own: true, link: up, target: target, ours: []place{stray}, reform: true}, step{state: StatePresent, why: "x"}},
		{"owned, IPv6 to have another length: goes first", view{own: true, gate: true, is6: true, link: up, target: target, ours: []place{stray}, reform: true}, step{remove: []place{stray}}},
		{"owned, to have another route: written anew", view{own: true, gate: true, is6: true, link: up, target: target, ours: []place{target}, reform: true}, step{adopt: true}},
		{"owned, to go behind, foreign beside it: left alone", view{own: true, gate: true, link: up, target: target, ours: []place{target}, put: true, behind: true, foreign: foreign}, step{state: StatePresent, why: "x"}},
		{"owned, before an address of the machine: goes behind it", view{own: true, gate: true, link: up, target: target, ours: []place{target}, put: true, behind: true}, step{requeue: true, state: StatePresent}},
		{"owned, there with another label: goes first", view{own: true, gate: true, link: up, target: target, ours: []place{target}, changed: true}, step{remove: []place{target}}},
		{"owned, foreign address: it serves", view{own: true, gate: true, link: up, target: target, foreign: foreign}, step{guard: true, borrow: true, state: StateBorrowed, why: "x"}},
		{"owned, foreign address, gate not valid: it is kept silent", view{own: true, link: up, target: target, foreign: foreign}, step{guard: true, state: StateWaiting, why: "x"}},
		{"owned, foreign address that no guard can silence: left alone", view{own: true, gate: true, link: up, target: target, foreign: foreign, unguarded: "no"}, step{state: StateForeign, why: "x"}},
		{"owned, foreign address that the kernel does not answer for: does not serve", view{own: true, gate: true, is6: true, link: up, target: target, foreign: foreign, mute: "dad"}, step{guard: true, state: StateForeign, why: "x"}},
		{"owned, foreign address and a stray of ours: the stray goes first", view{own: true, gate: true, link: up, target: target, foreign: foreign, ours: []place{stray}}, step{remove: []place{stray}}},
		{"owned, foreign beside ours: ours stays, said", view{own: true, gate: true, link: up, target: target, ours: []place{target}, put: true, foreign: foreign}, step{state: StatePresent, why: "x"}},
		{"owned, no link", view{own: true, gate: true, target: target}, step{state: StateNoLink, why: "x"}},
		{"owned, link renamed: the old place is cleared", view{own: true, gate: true, ours: []place{target}}, step{remove: []place{target}, state: StateNoLink, why: "x"}},
		{"owned, link down: IPv4 is added", view{own: true, gate: true, link: down, target: target}, step{add: true}},
		{"owned, link down: IPv6 waits", view{own: true, gate: true, is6: true, link: down, target: target}, step{state: StateNoLink, why: "x"}},
	}
	for _, tt := range tests {
		tt.v.linkName = "eth0"
		got := decide(tt.v)
		if got.why != "" {
			got.why = "x"
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.name, got, tt.want)
		}
	}
}

// drain takes all that is due at now.
func drain(q *burstQueue[string], now time.Duration) string {
	var s []string
	for {
		x, ok := q.next(now, false)
		if !ok {
			return strings.Join(s, " ")
		}
		s = append(s, x)
	}
}

func TestBurstQueue(t *testing.T) {
	l4, l6 := lane{link: 2}, lane{link: 2, is6: true}

	q := newBurstQueue[string]()
	q.start(l4, "a", 3, 0)
	q.start(l4, "b", 2, 0)
	if got := drain(q, 0); got != "a b a b a" {
		t.Errorf("round robin: %s", got)
	}
	if _, ok := q.wake(); ok {
		t.Error("wake with nothing left")
	}

	q.start(l4, "a", 2, 0)
	if x, _ := q.next(0, true); x != "a" {
		t.Errorf("first announcement: %q", x)
	}
	if x, ok := q.next(0, true); ok {
		t.Errorf("a repetition (%s) among the first announcements", x)
	}
	q.start(l4, "b", 1, 0)
	if x, _ := q.next(0, true); x != "b" {
		t.Errorf("first announcement of the next address: %q", x)
	}
	if got := drain(q, 0); got != "a" {
		t.Errorf("repetitions: %s", got)
	}

	q.start(l4, "a", 2, 0)
	q.start(l4, "a", 5, 0)
	q.start(l4, "a", 1, 0)
	if got := drain(q, 0); got != "a a a a a" {
		t.Errorf("several reasons at once: %s", got)
	}

	q.start(l4, "a", 2, 10)
	q.start(l4, "b", 2, 10)
	q.start(l6, "c", 2, 0)
	got := []string{}
	for now := time.Duration(100); now <= 130; now += 5 {
		if s := drain(q, now); s != "" {
			got = append(got, s)
		}
		if at, ok := q.wake(); ok && at <= now {
			t.Errorf("wake at %d, which is not after %d", at, now)
		}
	}
	if want := []string{"c a c", "b", "a", "b"}; !slices.Equal(got, want) {
		t.Errorf("gaps: %q, want %q", got, want)
	}

	q = newBurstQueue[string]()
	q.start(l4, "a", 2, 0)
	q.start(l4, "b", 2, 0)
	q.next(0, false)
	q.drop("a")
	q.start(l4, "a", 1, 0) // again after it came back
	if got := drain(q, 0); got != "b a b" && got != "b b a" && got != "a b b" {
		t.Errorf("after drop: %s", got)
	}

	q.start(l4, "a", 2, 0)
	x, _ := q.next(0, false)
	q.pause(l4, x, 0, 7)
	if got := drain(q, 6); got != "" {
		t.Errorf("sent during a pause: %s", got)
	}
	if got := drain(q, 7); got != "a a" {
		t.Errorf("after a pause: %s", got)
	}
	q.start(l4, "a", 2, 0)
	q.start(l4, "b", 2, 0)
	q.start(l4, "c", 1, 0)
	q.dropAll([]string{"a", "c", "x"})
	if got := drain(q, 9); got != "b b" {
		t.Errorf("after a and c were dropped: %s", got)
	}
	q.start(l4, "a", 2, 0)
	q.dropAll([]string{"a"})
	if got := drain(q, 9); got != "" {
		t.Errorf("after all were dropped: %s", got)
	}
}

func TestReleaseAtLeast(t *testing.T) {
	for release, want := range map[string]bool{"5.18.0": true, "5.17.9-arch1": false, "6.1.0-13-amd64": true, "5.14.0-503.el9": false, "5.18": true, "x": false, "": false} {
		if got := releaseAtLeast(release, 5, 18); got != want {
			t.Errorf("releaseAtLeast(%q) = %v", release, got)
		}
	}
}

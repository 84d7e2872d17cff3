package owner

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/policy"
	"github.com/raftvip/raftvip/vip"
)

func takeAddress(prefix string) vip.Address {
	return vip.Address{Prefix: netip.MustParsePrefix(prefix), Link: "eth0"}
}

func upLink() vip.Link { return vip.Link{Index: 2, Name: "eth0", Up: true, Running: true} }

// TestTaken judges one address of an owner, beside one that is up. It is looked at
// once for each instant, as it is, and judged after the last.
func TestTaken(t *testing.T) {
	const ms = time.Millisecond
	denied := fmt.Errorf("add fd00::1/64: %w", errors.New("permission denied"))
	long := []time.Duration{10000 * ms, 10500 * ms}
	for _, tt := range []struct {
		name      string
		at        []time.Duration // 10 s if nil
		link      vip.Link
		a         vip.AddressStatus
		waits     bool
		missing   string
		unsettled time.Duration
	}{
		{name: "up", at: long, a: vip.AddressStatus{State: vip.StatePresent, Present: true}},
		{name: "someone else's copy serves", at: long, a: vip.AddressStatus{State: vip.StateBorrowed, Why: "x"}},
		{name: "still coming", a: vip.AddressStatus{State: vip.StateAbsent}, unsettled: 10500 * ms},
		{name: "still coming, and seen again", at: []time.Duration{10000 * ms, 10400 * ms}, a: vip.AddressStatus{State: vip.StateAbsent}, unsettled: 10500 * ms},
		{name: "never came", at: long, a: vip.AddressStatus{State: vip.StateAbsent}, missing: "fd00::1: it is not there yet"},
		{name: "failed a moment ago", a: vip.AddressStatus{State: vip.StateFailed, Err: denied}, unsettled: 10500 * ms},
		{name: "failed for a while", at: long, a: vip.AddressStatus{State: vip.StateFailed, Err: denied}, missing: "fd00::1: permission denied"},
		{name: "foreign and cannot serve", at: long, a: vip.AddressStatus{State: vip.StateForeign, Why: "foreign"}, missing: "fd00::1: foreign"},
		{name: "no link", at: long, a: vip.AddressStatus{State: vip.StateNoLink, Why: "interface eth0 is down"}, missing: "fd00::1: interface eth0 is down"},
		{name: "contested, there just now", a: vip.AddressStatus{State: vip.StatePresent, Present: true, Contested: true, Why: "tug"}, missing: "fd00::1: tug"},
		{name: "one announcement failed", at: long, a: vip.AddressStatus{State: vip.StatePresent, Present: true, AnnounceErr: errors.New("no"), AnnounceFailures: 1}},
		{name: "announcements fail", a: vip.AddressStatus{State: vip.StatePresent, Present: true, AnnounceErr: errors.New("no"), AnnounceFailures: announceTries}, missing: "fd00::1: no"},
		{name: "there, but the link is down", link: vip.Link{Name: "eth0", Up: true}, a: vip.AddressStatus{State: vip.StatePresent, Present: true}, missing: "fd00::1: interface eth0 is down"},
		{name: "the lease is to come", a: vip.AddressStatus{State: vip.StateWaiting, Why: "x"}, unsettled: 10500 * ms},
		{name: "the guard is to come", a: vip.AddressStatus{State: vip.StateWaiting, Why: "x", Unguarded: true}, unsettled: 10500 * ms},
		{name: "the guard does not come", at: long, a: vip.AddressStatus{State: vip.StateWaiting, Why: "x", Unguarded: true}, missing: "fd00::1: x"},
		{name: "the lease has lapsed", at: long, a: vip.AddressStatus{State: vip.StateWaiting, Why: "x"}},
		{name: "VRRP has not given it", at: long, waits: true, a: vip.AddressStatus{State: vip.StateAbsent}},
	} {
		if tt.at == nil {
			tt.at = long[:1]
		}
		if tt.link.Name == "" {
			tt.link = upLink()
		}
		tt.a.Address, tt.a.Wanted = takeAddress("fd00::1/64"), true
		// Of an address that was taken from the list nothing is expected.
		kept := []vip.AddressStatus{tt.a, {Address: takeAddress("10.0.0.9/24"), State: vip.StateRemoving, Present: true}}
		var tk takes
		var got policy.Take
		for _, now := range tt.at {
			got = tk.taken(now, []vip.Link{tt.link}, kept, func(netip.Addr) bool { return tt.waits })
		}
		if got.Reason != tt.missing || (got.Missing == 1) != (tt.missing != "") || tk.unsettled != tt.unsettled {
			t.Errorf("%s: %+v, look again at %v; want missing %q, %v", tt.name, got, tk.unsettled, tt.missing, tt.unsettled)
		}
	}

	// One that is new in the list, or that VRRP gives only now, has its time too, however
	// long the node has owned.
	var tk takes
	a := vip.AddressStatus{Address: takeAddress("fd00::1/64"), Wanted: true}
	waits := true
	for _, st := range []struct {
		at      time.Duration
		waits   bool
		missing int
	}{{10 * time.Second, true, 0}, {20 * time.Second, true, 0}, {30 * time.Second, false, 0}, {30*time.Second + 499*ms, false, 0}, {30*time.Second + 500*ms, false, 1}} {
		waits = st.waits
		if got := tk.taken(st.at, nil, []vip.AddressStatus{a}, func(netip.Addr) bool { return waits }); got.Missing != st.missing {
			t.Errorf("at %v: %+v, want %d missing", st.at, got, st.missing)
		}
	}
}

func TestForeseen(t *testing.T) {
	addrs := []vip.Address{takeAddress("10.0.0.1/24"), takeAddress("fd00::1/64"), takeAddress("fd00::2/64")}
	copyOf := func(silent bool, mute string) []vip.AddressStatus {
		return []vip.AddressStatus{{Address: addrs[0], Wanted: true, Foreign: addrs[0].Prefix, Silent: silent, Mute: mute, Why: "a copy"}}
	}
	for _, tt := range []struct {
		name    string
		change  func(*vip.Link)
		kept    []vip.AddressStatus
		missing int
		reason  string
	}{
		{name: "nothing in the way"},
		{name: "IPv6 is disabled", change: func(l *vip.Link) { l.NoIPv6 = true }, missing: 2,
			reason: "fd00::1: IPv6 is disabled on eth0 (net.ipv6.conf.eth0.disable_ipv6), and 1 more"},
		{name: "no carrier", change: func(l *vip.Link) { l.Running = false }, missing: 3, reason: "10.0.0.1: interface eth0 is down, and 2 more"},
		{name: "a link that is not there is a fault, or comes with the mastership", change: func(l *vip.Link) { l.Name = "eth1" }},
		{name: "a link with a virtual MAC is up when it is master", change: func(l *vip.Link) { l.Running, l.MAC = false, net.HardwareAddr{0, 0, 0x5e, 0, 1, 51} }},
		{name: "a silent copy would serve", kept: copyOf(true, "")},
		{name: "a copy that would not", kept: copyOf(true, "DAD failed"), missing: 1, reason: "10.0.0.1: a copy"},
		{name: "a copy that answers", kept: copyOf(false, ""), missing: 1, reason: "10.0.0.1: a copy"},
	} {
		l := upLink()
		if tt.change != nil {
			tt.change(&l)
		}
		if got := foreseen(addrs, []vip.Link{l}, tt.kept); got.Wanted != 3 || got.Missing != tt.missing || got.Reason != tt.reason {
			t.Errorf("%s: %+v, want %d missing: %s", tt.name, got, tt.missing, tt.reason)
		}
	}
}

// TestCauseOf: what is worth another try, and what is not.
func TestCauseOf(t *testing.T) {
	addrs := []vip.Address{takeAddress("10.0.0.1/24")}
	links := []vip.Link{upLink(), {Index: 3, Name: "veth7", Up: true}}
	base := causeOf(addrs, links)
	for name, change := range map[string]func(){
		"other addresses":  func() { addrs = append(addrs, takeAddress("10.0.0.2/24")) },
		"IPv6 is back":     func() { links[0].NoIPv6 = true },
		"the link is new":  func() { links[0].Index = 9 },
		"the link is down": func() { links[0].Running = false },
	} {
		addrs, links = slices.Clone(addrs[:1]), []vip.Link{upLink(), {Index: 3, Name: "veth7", Up: true}}
		if change(); causeOf(addrs, links) == base {
			t.Errorf("%s: the same cause", name)
		}
	}
	links = []vip.Link{upLink(), {Index: 4, Name: "docker0"}}
	links[0].Addresses = []vip.KernelAddress{{Prefix: netip.MustParsePrefix("10.0.0.7/24")}}
	if causeOf(addrs[:1], links) != base {
		t.Error("other links and addresses are another cause")
	}
}

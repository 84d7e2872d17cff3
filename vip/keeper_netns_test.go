//go:build linux

package vip_test

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/vip"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestNetnsTakeAndRelease(t *testing.T) {
	l := newLab(t)
	s := l.sniff()
	k, gate := l.keeper(30 * time.Second)
	w := vip.Wanted{Own: true, Term: 1, Addresses: v0("10.0.0.5/24", "fd00::5/64", "10.7.0.5/24"), Schedule: vip.Schedule{Repeat: 2}}
	w.Addresses[0].Label, w.Addresses[0].Scope = "v0:vip", 253
	w.Addresses[2].Broadcast = netip.MustParseAddr("10.7.0.255")
	k.Set(w)
	l.eventually("announced", func() bool { return k.Status().Announced4 == 4 && k.Status().Announced6 == 2 })

	a, ok := l.address("v0", "10.0.0.5/32")
	if !ok || a.Label != "v0:vip" || a.Scope != 253 || a.Flags&unix.IFA_F_NOPREFIXROUTE == 0 || a.ValidLft < 28 || a.ValidLft > 30 {
		t.Errorf("10.0.0.5: %v %+v", ok, a)
	}
	a, ok = l.address("v0", "fd00::5/128")
	if !ok || a.Flags&unix.IFA_F_NODAD == 0 || a.Flags&unix.IFA_F_TENTATIVE != 0 || a.PreferedLft != 0 || a.ValidLft < 28 {
		t.Errorf("fd00::5: %v %+v", ok, a)
	}
	a, ok = l.address("v0", "10.7.0.5/24")
	if !ok || !a.Broadcast.Equal(net.IPv4(10, 7, 0, 255)) {
		t.Errorf("10.7.0.5: %v %+v", ok, a)
	}
	if routes := l.ip("route"); !strings.Contains(routes, "10.7.0.0/24 dev v0") {
		t.Errorf("no prefix route for the lone address: %s", routes)
	}
	links, err := l.host.Links()
	l.must(err)
	ours := 0
	for _, link := range links {
		for _, a := range link.Addresses {
			if a.Protocol == vip.AddrProtocol {
				ours++
			}
		}
	}
	if ours != 3 {
		t.Errorf("%d addresses carry our mark, want 3", ours)
	}

	// The other side, by kernel and on the wire.
	link, err := netlink.LinkByName("v0")
	l.must(err)
	mac := link.Attrs().HardwareAddr
	l.atPeer(func() {
		for _, ip := range []string{"10.0.0.5", "fd00::5"} {
			got, found, err := vip.ProbeConflict(t.Context(), "p0", netip.MustParseAddr(ip))
			if err != nil || !found || got.String() != mac.String() {
				t.Errorf("probe for %s: %s, %v, %v; want %s", ip, got, found, err, mac)
			}
		}
	})
	frames, _ := s.announcements("10.0.0.5")
	m := hex.EncodeToString(mac)
	if len(frames) < 2 || hex.EncodeToString(frames[0]) != "ffffffffffff"+m+"08060001080006040001"+m+"0a000005"+"ffffffffffff0a000005" {
		t.Errorf("gratuitous ARP: %d, %x", len(frames), frames)
	}
	frames, _ = s.announcements("fd00::5")
	if len(frames) < 2 || len(frames[0]) != 86 || !strings.HasPrefix(hex.EncodeToString(frames[0]), "333300000001"+m+"86dd6000000000203aff") ||
		frames[0][58] != 0x20 || hex.EncodeToString(frames[0][78:]) != "0201"+m {
		t.Errorf("neighbour advertisement: %d, %x", len(frames), frames)
	}

	gate.Shut()
	if err := k.Release(t.Context()); err != nil {
		t.Error(err)
	}
	for _, p := range []string{"10.0.0.5/32", "fd00::5/128", "10.7.0.5/24"} {
		if l.has("v0", p) {
			t.Errorf("%s is still there", p)
		}
	}
	if !l.has("v0", "10.0.0.1/24") || !l.has("v0", "fd00::1/64") {
		t.Error("the operator's addresses are gone")
	}
}

func TestNetnsRouterFlag(t *testing.T) {
	l := newLab(t)
	l.must(os.WriteFile("/proc/sys/net/ipv6/conf/v0/forwarding", []byte("1\n"), 0))
	s := l.sniff()
	k, _ := l.keeper(0)
	k.Set(vip.Wanted{Own: true, Term: 1, Addresses: v0("fd00::5/64"), Schedule: quick})
	l.eventually("announced", func() bool { f, _ := s.announcements("fd00::5"); return len(f) == 1 })
	if f, _ := s.announcements("fd00::5"); f[0][58] != 0xa0 {
		t.Errorf("flags %#x, want router and override", f[0][58])
	}
	for n, step := range []struct {
		conf, value string
		want        byte
	}{{"v0", "0", 0x20}, {"all", "1", 0xa0}, {"all", "0", 0x20}} {
		l.must(os.WriteFile("/proc/sys/net/ipv6/conf/"+step.conf+"/forwarding", []byte(step.value), 0))
		time.Sleep(20 * time.Millisecond) // the kernel's message
		k.Announce("test")
		l.eventually("announced", func() bool { f, _ := s.announcements("fd00::5"); return len(f) == n+2 })
		if f, _ := s.announcements("fd00::5"); f[n+1][58] != step.want {
			t.Errorf("%s/forwarding %s: flags %#x, want %#x", step.conf, step.value, f[n+1][58], step.want)
		}
	}
}

func TestNetnsRemovedBySomeoneElse(t *testing.T) {
	l := newLab(t)
	s := l.sniff()
	k, _ := l.keeper(30 * time.Second)
	k.Set(vip.Wanted{Own: true, Term: 1, Addresses: v0("10.0.0.5/24", "fd00::5/64"), Schedule: quick})
	l.eventually("there", func() bool { return l.has("v0", "10.0.0.5/32") && l.has("v0", "fd00::5/128") })
	var worst time.Duration
	for range 8 { // ten of one address within a minute are a tug of war
		time.Sleep(60 * time.Millisecond) // the pause between two re-adds
		for _, p := range []string{"10.0.0.5/32", "fd00::5/128"} {
			n := k.Status().Readded
			link, err := netlink.LinkByName("v0")
			l.must(err)
			a, err := netlink.ParseAddr(p)
			l.must(err)
			start := time.Now()
			l.must(netlink.AddrDel(link, a))
			l.eventually(p+" is back", func() bool { return k.Status().Readded > n })
			worst = max(worst, time.Since(start))
			if !l.has("v0", p) {
				t.Errorf("%s is not back", p)
			}
		}
	}
	t.Logf("16 deletions by someone else: back after at most %v", worst)
	if worst > 100*time.Millisecond {
		t.Errorf("back after %v", worst)
	}
	l.eventually("announced again", func() bool { f, _ := s.announcements("10.0.0.5"); return len(f) >= 4 }) // the first three at once
}

func TestNetnsLinkDownAndUp(t *testing.T) {
	l := newLab(t)
	s := l.sniff()
	k, _ := l.keeper(30 * time.Second)
	k.Set(vip.Wanted{Own: true, Term: 1, Addresses: v0("10.0.0.5/24", "fd00::5/64"), Schedule: quick})
	l.eventually("announced", func() bool { return k.Status().Announced4+k.Status().Announced6 == 2 })
	l.ip("link set v0 down")
	l.eventually("IPv6 is gone", func() bool { return !l.has("v0", "fd00::5/128") })
	l.eventually("known to be gone", func() bool { return k.Status().Addresses[1].State == vip.StateNoLink })
	l.ip("link set v0 up")
	l.eventually("announced again", func() bool {
		f4, _ := s.announcements("10.0.0.5")
		f6, _ := s.announcements("fd00::5")
		return len(f4) == 2 && len(f6) == 2
	})
	l.atPeer(func() {
		_, found, err := vip.ProbeConflict(t.Context(), "p0", netip.MustParseAddr("fd00::5"))
		if err != nil || !found {
			t.Errorf("fd00::5 does not answer after the flap: %v", err)
		}
	})
}

func TestNetnsLinkMadeAnew(t *testing.T) {
	l := newLab(t)
	k, _ := l.keeper(30 * time.Second)
	k.Set(vip.Wanted{Own: true, Term: 1, Addresses: v0("10.0.0.5/24"), Schedule: quick})
	l.eventually("there", func() bool { return l.has("v0", "10.0.0.5/32") })
	l.ip("link del v0")
	l.eventually("known to be gone", func() bool { return k.Status().Addresses[0].State == vip.StateNoLink })
	l.veth()
	l.eventually("there again", func() bool { return k.Status().Addresses[0].State == vip.StatePresent })
	// It may have been put as written, before the link had its other address.
	if !l.has("v0", "10.0.0.5/32") && !l.has("v0", "10.0.0.5/24") {
		t.Error("not on the kernel")
	}
}

func TestNetnsForeignIsLeftAlone(t *testing.T) {
	l := newLab(t)
	l.ip("addr add 10.0.0.5/24 dev v0")
	l.ip("addr add fd00::5/64 dev v0 nodad")
	s := l.sniff()
	k, gate := l.keeper(30 * time.Second)
	k.Set(vip.Wanted{Own: true, Term: 1, Addresses: v0("10.0.0.5/24", "fd00::5/64"), Schedule: quick})
	l.eventually("seen", func() bool { return k.Status().Applied })
	time.Sleep(50 * time.Millisecond)
	for _, a := range k.Status().Addresses {
		if a.State != vip.StateForeign {
			t.Errorf("%s is %v", a.Prefix, a.State)
		}
	}
	gate.Shut()
	l.must(k.Release(t.Context()))
	if _, err := vip.RemoveLeftovers(l.host, "", nil); err != nil {
		t.Error(err)
	}
	if !l.has("v0", "10.0.0.5/24") || !l.has("v0", "fd00::5/64") {
		t.Error("the operator's addresses are gone")
	}
	if f, _ := s.announcements("10.0.0.5"); len(f) != 0 {
		t.Errorf("announced %d times", len(f))
	}
}

// Deleting a primary address takes its secondaries along (promote_secondaries=0):
// the operator's have to stay.
func TestNetnsDeleteSparesSecondaries(t *testing.T) {
	l := newLab(t)
	const sysctl = "/proc/sys/net/ipv4/conf/v0/promote_secondaries"
	l.must(os.WriteFile("/proc/sys/net/ipv4/conf/all/promote_secondaries", []byte("0\n"), 0))
	l.must(os.WriteFile(sysctl, []byte("0\n"), 0))
	k, gate := l.keeper(30 * time.Second)
	k.Set(vip.Wanted{Own: true, Term: 1, Addresses: v0("10.7.0.5/24"), Schedule: quick})
	l.eventually("there", func() bool { return l.has("v0", "10.7.0.5/24") })
	l.ip("addr add 10.7.0.9/24 dev v0")
	gate.Shut()
	l.must(k.Release(t.Context()))
	if l.has("v0", "10.7.0.5/24") || !l.has("v0", "10.7.0.9/24") {
		t.Errorf("after the release: %s", l.ip("addr show dev v0"))
	}
	if b, _ := os.ReadFile(sysctl); string(b) != "0\n" {
		t.Errorf("promote_secondaries was left at %q", b)
	}
}

func TestNetnsLifetime(t *testing.T) {
	l := newLab(t)
	k, gate := l.keeper(2 * time.Second)
	k.Set(vip.Wanted{Own: true, Term: 1, Addresses: v0("10.0.0.5/24", "fd00::5/64"), Schedule: quick})
	l.eventually("there", func() bool { return l.has("v0", "10.0.0.5/32") && l.has("v0", "fd00::5/128") })
	for range 30 {
		time.Sleep(100 * time.Millisecond)
		if !l.has("v0", "10.0.0.5/32") || !l.has("v0", "fd00::5/128") {
			t.Fatal("an address expired while it was owned")
		}
	}
	if n := k.Status().Readded; n != 0 {
		t.Errorf("%d addresses were lost and put back", n)
	}
	gate.Shut() // and nobody tells the keeper: as a daemon that is frozen
	took := l.eventually("expired", func() bool { return !l.has("v0", "10.0.0.5/32") && !l.has("v0", "fd00::5/128") })
	t.Logf("lifetime 2 s: gone %v after the gate was shut", took)
}

func TestNetnsLeftovers(t *testing.T) {
	l := newLab(t)
	link, err := netlink.LinkByName("v0")
	l.must(err)
	change := func(kind vip.ChangeKind, link int, a vip.KernelAddress) error {
		return errors.Join(l.host.Change([]vip.Change{{Kind: kind, Link: link, Address: a}})...)
	}
	for _, p := range []string{"10.0.0.5/32", "fd00::5/128", "10.7.0.5/24"} {
		prefix := netip.MustParsePrefix(p)
		l.must(change(vip.AddAddress, link.Attrs().Index, vip.KernelAddress{Prefix: prefix, Protocol: vip.AddrProtocol}))
		if err := change(vip.AddAddress, link.Attrs().Index, vip.KernelAddress{Prefix: prefix}); !errors.Is(err, vip.ErrExists) {
			t.Errorf("added twice: %v", err)
		}
	}
	l.ip("addr add 10.0.0.6/32 dev v0")
	removed, err := vip.RemoveLeftovers(l.host, filepath.Join(t.TempDir(), "none"), nil)
	if err != nil || len(removed) != 3 {
		t.Errorf("removed %v, %v", removed, err)
	}
	for p, want := range map[string]bool{"10.0.0.5/32": false, "fd00::5/128": false, "10.7.0.5/24": false, "10.0.0.6/32": true, "10.0.0.1/24": true, "fd00::1/64": true} {
		if l.has("v0", p) != want {
			t.Errorf("%s is there: %v", p, !want)
		}
	}
	gone := vip.KernelAddress{Prefix: netip.MustParsePrefix("10.0.0.5/32")}
	if err := change(vip.DeleteAddress, link.Attrs().Index, gone); !errors.Is(err, vip.ErrGone) {
		t.Errorf("delete of what is not there: %v", err)
	}
	gone.Prefix = netip.MustParsePrefix("fd00::5/128")
	for _, index := range []int{link.Attrs().Index, 12345} {
		if err := change(vip.DeleteAddress, index, gone); !errors.Is(err, vip.ErrGone) {
			t.Errorf("delete of what is not there on %d: %v", index, err)
		}
	}
	if err := change(vip.AddAddress, 12345, gone); !errors.Is(err, vip.ErrGone) {
		t.Errorf("add to no link: %v", err)
	}
}

func TestNetnsProbeConflict(t *testing.T) {
	l := newLab(t)
	l.atPeer(func() {
		l.ip("addr add 10.0.0.7/32 dev p0")
		l.ip("addr add fd00::7/128 dev p0 nodad")
	})
	for ip, want := range map[string]bool{"10.0.0.7": true, "fd00::7": true, "10.0.0.8": false, "fd00::8": false, "10.0.0.1": false, "fd00::1": false} {
		start := time.Now()
		mac, found, err := vip.ProbeConflict(t.Context(), "v0", netip.MustParseAddr(ip))
		took := time.Since(start)
		if err != nil || found != want || found && len(mac) != 6 {
			t.Errorf("probe for %s: %s, %v, %v", ip, mac, found, err)
		}
		if took > time.Second || !want && took < 500*time.Millisecond {
			t.Errorf("probe for %s took %v", ip, took)
		}
		t.Logf("probe for %s: found %v in %v", ip, found, took)
	}
	if _, _, err := vip.ProbeConflict(t.Context(), "v9", netip.MustParseAddr("10.0.0.8")); !errors.Is(err, vip.ErrNoLink) {
		t.Errorf("probe on no link: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := vip.ProbeConflict(ctx, "v0", netip.MustParseAddr("10.0.0.8")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("probe with a short context: %v", err)
	}
}

// A bridge reports the end of a port as RTM_DELLINK; the link itself stays.
func TestNetnsBridgePortIsNotALink(t *testing.T) {
	l := newLab(t)
	k, _ := l.keeper(0)
	k.Set(vip.Wanted{Own: true, Term: 1, Addresses: v0("10.0.0.5/24"), Schedule: quick})
	l.eventually("there", func() bool { return l.has("v0", "10.0.0.5/32") })
	l.ip("link add br0 type bridge")
	defer l.ip("link del br0")
	l.ip("link set v0 master br0")
	l.ip("link set v0 nomaster")
	time.Sleep(50 * time.Millisecond)
	if a := k.Status().Addresses[0]; a.State != vip.StatePresent || a.Readded != 0 {
		t.Errorf("after leaving a bridge: %+v", a)
	}
}

// A full queue, a link that is down or made anew is the announcer's daily bread: it
// never waits, and one and the same goes on.
func TestNetnsAnnouncer(t *testing.T) {
	l := newLab(t)
	ann := vip.NewAnnouncer()
	l.must(ann.Prepare())
	defer func() { l.must(ann.Close()) }()
	v0 := func() vip.Link {
		links, err := l.host.Links()
		l.must(err)
		return links[slices.IndexFunc(links, func(link vip.Link) bool { return link.Name == "v0" })]
	}
	first, addr := v0(), netip.MustParseAddr("10.0.0.5")
	l.must(ann.Announce(first, addr))

	l.ip("link set v0 down")
	if err := ann.Announce(first, addr); !errors.Is(err, unix.ENETDOWN) || errors.Is(err, vip.ErrBusy) {
		t.Errorf("link down: %v", err)
	}
	l.ip("link set v0 up")
	l.eventually("up", func() bool { return ann.Announce(first, addr) == nil })
	l.ip("link del v0")
	if err := ann.Announce(first, addr); !errors.Is(err, unix.ENXIO) {
		t.Errorf("link deleted: %v", err)
	}
	l.veth()
	s := l.sniff()
	again := v0()
	if again.Index == first.Index {
		t.Errorf("index %d again: the test is of no use", again.Index)
	}
	l.must(ann.Announce(again, addr))
	l.eventually("received", func() bool { f, _ := s.announcements("10.0.0.5"); return len(f) == 1 })

	// The socket's buffer is full long before this queue, which lets a frame out
	// every 40 ms.
	if out, err := exec.Command("tc", strings.Fields("qdisc add dev v0 root tbf rate 8kbit burst 1600 limit 100000000")...).CombinedOutput(); err != nil {
		t.Skipf("no tbf: %v: %s", err, out)
	}
	var err error
	for range 100_000 {
		if err = ann.Announce(again, addr); err != nil {
			break
		}
	}
	if !errors.Is(err, vip.ErrBusy) {
		t.Fatalf("queue never full: %v", err)
	}
	start := time.Now()
	for range 1000 {
		if err := ann.Announce(again, addr); err != nil && !errors.Is(err, vip.ErrBusy) {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("1000 attempts at a full queue took %v", took)
	}
	l.ip("link set v0 down") // the queue is dropped
	l.ip("link set v0 up")
	l.eventually("sending again", func() bool { return ann.Announce(again, addr) == nil })
}

// It prints figures and judges none.
func TestNetnsAnnounceCost(t *testing.T) {
	l := newLab(t)
	ann := vip.NewAnnouncer()
	l.must(ann.Prepare())
	defer func() { l.must(ann.Close()) }()
	links, err := l.host.Links()
	l.must(err)
	at := slices.IndexFunc(links, func(link vip.Link) bool { return link.Name == "v0" })
	for _, ip := range []string{"10.0.0.5", "fd00::5"} {
		addr := netip.MustParseAddr(ip)
		l.must(ann.Announce(links[at], addr))
		const frames = 2000
		took := make([]time.Duration, frames)
		allocs := testing.AllocsPerRun(100, func() { l.must(ann.Announce(links[at], addr)) })
		for i := range took {
			start := time.Now()
			l.must(ann.Announce(links[at], addr))
			took[i] = time.Since(start)
		}
		slices.Sort(took)
		t.Logf("%s: one frame in %v (median of %d), 99 %% within %v, %v allocations", ip, took[frames/2], frames, took[frames*99/100], allocs)
	}
}

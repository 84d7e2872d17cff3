package vrrpnet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
	"github.com/raftvip/raftvip/vrrpcompat"
)

// lastOf returns the last packet of a source.
func lastOf(t *testing.T, w *wire, vrid uint8, src netip.Addr) seen {
	t.Helper()
	all := w.of(vrid, src)
	if len(all) == 0 {
		t.Fatalf("nothing of %v", src)
	}
	return all[len(all)-1]
}

// Takeover from a router that dies without a word comes after the down interval, of
// one that says that it leaves long before (RFC 9568 sections 6.1 and 6.4).
func TestTakeover(t *testing.T) {
	testnet.Require(t)
	t.Parallel()
	for _, v := range []rival{
		{"v2", vrrpcompat.V2, false, time.Second, nil, false},
		{"v3", vrrpcompat.V3, false, 500 * time.Millisecond, nil, false},
		{"v3-ipv6", vrrpcompat.V3, true, 500 * time.Millisecond, nil, false},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			l := testnet.ForTest(t, testnet.Options{Nodes: 2})
			needKeepalived(t)
			us, them := l.Node(0), l.Node(1)
			w := watchWire(t, l.Observer(), "eth0")
			own, peer := v.source(us, 51), v.source(them, 51)
			vip := virtual(l, 51, v.ipv6)
			config := keepalivedGlobals + instance(51, 250, v.version, v.interval, vip)
			down := func(prio uint8) time.Duration {
				return 3*v.interval + vrrpcompat.SkewTime(v.version, prio, v.interval)
			}
			start := func(prio uint8) *routers {
				c := ourConfig(51, prio, v, vip, netip.Addr{})
				c.SinkDelay = 50 * time.Millisecond
				return startRouters(t, l, us, map[string]routerConfig{"r": c})
			}
			// gap waits for the successor, and returns the time since the last word of the
			// one before.
			gap := func(before, after netip.Addr) time.Duration {
				t.Helper()
				last := lastOf(t, w, 51, before)
				next := w.first(51, after, fmt.Sprintf("%v to take over", after), func(s seen) bool { return s.at.After(last.at) })
				return next.at.Sub(last.at)
			}

			// We die.
			rs := start(254)
			rs.waitState("r", vrrpcompat.Master)
			ka, err := l.StartKeepalived(them, config)
			if err != nil {
				t.Fatal(err)
			}
			w.settle(51, own, v.interval)
			// Until it listens it cannot wait for us; then it hears us before we die.
			testnet.MustWait(t, 10*time.Second, "keepalived to listen", logged(ka, "VRRP sockpool"))
			time.Sleep(v.interval + v.interval/2)
			rs.kill()
			if got := gap(own, peer); got < down(250)-v.interval/10 {
				t.Errorf("the peer took over %v after our last advertisement, before %v", got, down(250))
			}
			// We come back, are better, and leave.
			rs = start(254)
			rs.waitState("r", vrrpcompat.Master)
			w.settle(51, own, v.interval)
			told := rs.do(order{Router: "r", Do: "shutdown"}).Told
			w.first(51, own, "we to say that we leave", func(s seen) bool { return s.priority() == 0 })
			gap(own, peer)
			testnet.MustWait(t, 10*time.Second, "keepalived to have heard it", logged(ka, "Backup received priority 0 advertisement"))
			last := lastOf(t, w, 51, own)
			if last.priority() != 0 {
				t.Errorf("our last advertisement has priority %d", last.priority())
			}
			if n := len(told); n == 0 || told[n-1].Reason != "shut down" || !told[n-1].At.Before(last.at) {
				t.Errorf("the owner was told %+v, the others at %v", told, last.at)
			}
			if s := rs.status("r"); s.State != vrrpcompat.Initialize || s.Until != 0 {
				t.Errorf("after shutdown: %+v", s.Status)
			}
			// We start again, worse than the peer, which says that it leaves.
			rs.do(order{Router: "r", Do: "priority", Priority: 240})
			rs.do(order{Router: "r", Do: "startup"})
			rs.wait("r", "to follow", func(s report) error {
				if s.Other == nil || s.Other.Addr != peer || s.Priority != 240 {
					return fmt.Errorf("other %+v, priority %d", s.Other, s.Priority)
				}
				return nil
			})
			if err := ka.Term(); err != nil {
				t.Fatal(err)
			}
			if s := rs.waitState("r", vrrpcompat.Master); !strings.HasSuffix(s.Reason, "resigned") {
				t.Errorf("master because %s", s.Reason)
			}
			w.first(51, peer, "the peer to say that it leaves", func(s seen) bool { return s.priority() == 0 })
			if last := lastOf(t, w, 51, peer); last.priority() != 0 {
				t.Errorf("the peer's last advertisement has priority %d", last.priority())
			}
			gap(peer, own)
			// It comes back, takes over, and dies.
			if _, err := ka.Wait(20 * time.Second); err != nil {
				t.Fatal(err)
			}
			if ka, err = l.StartKeepalived(them, config); err != nil {
				t.Fatal(err)
			}
			w.settle(51, peer, v.interval)
			rs.waitState("r", vrrpcompat.Backup)
			killAll(t, ka)
			s := rs.waitState("r", vrrpcompat.Master)
			if got := gap(peer, own); got < down(240)-v.interval/10 {
				t.Errorf("we took over %v after the peer's last advertisement, before %v", got, down(240))
			}
			if s.Renewed == 0 || s.Masters < 3 {
				t.Errorf("renewed %d times, %d times master", s.Renewed, s.Masters)
			}
			rs.end()
		})
	}
}

// killAll kills a keepalived so that it says nothing any more: its parent, frozen,
// starts no new child, and its child does not see the parent die.
func killAll(t *testing.T, ka *testnet.Proc) {
	t.Helper()
	tree := ka.Tree()
	if err := ka.Stop(); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(tree)
	for _, pid := range tree {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	<-ka.Done()
}

// logged tells whether a program has said something.
func logged(p *testnet.Proc, text string) func() error {
	return func() error {
		if !strings.Contains(p.Output(), text) {
			return fmt.Errorf("no %q", text)
		}
		return nil
	}
}

// A master that was frozen while a better one took over looks at what has arrived
// before it says anything.
func TestThaw(t *testing.T) {
	t.Parallel()
	l := testnet.ForTest(t, testnet.Options{Nodes: 2})
	needKeepalived(t)
	us, them := l.Node(0), l.Node(1)
	w := watchWire(t, l.Observer(), "eth0")
	const interval = 300 * time.Millisecond
	v := rival{version: vrrpcompat.V3, interval: interval}
	own, peer := us.Addr4(testnet.Front), them.Addr4(testnet.Front)
	rs := startRouters(t, l, us, map[string]routerConfig{"r": ourConfig(52, 50, v, l.VIP4(152), netip.Addr{})})
	// silentAfter waits until the peer alone speaks. We may have taken over once more, if
	// it was held up, but not before a down interval.
	silentAfter := func(thaw time.Time) {
		t.Helper()
		w.settle(52, peer, interval)
		for _, s := range w.of(52, own) {
			if after := s.at.Sub(thaw); after > 0 && after < 3*interval {
				t.Errorf("spoke %v after it was thawed, with priority %d", after, s.priority())
			}
		}
	}
	for range 3 {
		rs.waitState("r", vrrpcompat.Master)
		if err := rs.proc.Stop(); err != nil {
			t.Fatal(err)
		}
		ka, err := l.StartKeepalived(them, keepalivedGlobals+instance(52, 100, 3, interval, l.VIP4(152)))
		if err != nil {
			t.Fatal(err)
		}
		w.settle(52, peer, interval)
		thaw := time.Now()
		if err := rs.proc.Cont(); err != nil {
			t.Fatal(err)
		}
		s := rs.waitState("r", vrrpcompat.Backup)
		if s.Other == nil || s.Other.Addr != peer {
			t.Errorf("other master %+v", s.Other)
		}
		silentAfter(thaw)
		if err := ka.Term(); err != nil {
			t.Fatal(err)
		}
		if _, err := ka.Wait(20 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	// A Backup that was frozen does not take the silence for its master's.
	if _, err := l.StartKeepalived(them, keepalivedGlobals+instance(52, 100, 3, interval, l.VIP4(152))); err != nil {
		t.Fatal(err)
	}
	w.settle(52, peer, interval)
	rs.waitState("r", vrrpcompat.Backup)
	if err := rs.proc.Stop(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * interval)
	thaw := time.Now()
	if err := rs.proc.Cont(); err != nil {
		t.Fatal(err)
	}
	silentAfter(thaw)
}

// Hybrid: two members of one cluster, of which Raft says who speaks, beside a
// keepalived that hears one continuous master.
func TestHybrid(t *testing.T) {
	t.Parallel()
	l := testnet.ForTest(t, testnet.Options{Nodes: 3})
	needKeepalived(t)
	w := watchWire(t, l.Observer(), "eth0")
	const interval = 500 * time.Millisecond
	v := rival{version: vrrpcompat.V3, interval: interval}
	peer := l.Node(2).Addr4(testnet.Front)
	var rs []*routers
	var own []netip.Addr
	for _, h := range l.Nodes()[:2] {
		c := ourConfig(53, 150, v, l.VIP4(153), netip.Addr{})
		c.Machine.Hybrid = true
		c.SinkDelay = 20 * time.Millisecond
		rs = append(rs, startRouters(t, l, h, map[string]routerConfig{"r": c}))
		own = append(own, h.Addr4(testnet.Front))
	}
	for _, r := range rs {
		r.do(order{Router: "r", Do: "fellows", Addrs: own})
	}
	ka, err := l.StartKeepalived(l.Node(2), keepalivedGlobals+instance(53, 100, 3, interval, l.VIP4(153)))
	if err != nil {
		t.Fatal(err)
	}
	// Nobody is entitled: both listen.
	w.settle(53, peer, interval)
	for _, r := range rs {
		r.wait("r", "to know the peer", func(s report) error {
			if s.Other == nil || s.Other.Addr != peer || s.Entitled || s.State != vrrpcompat.Backup {
				return fmt.Errorf("%v, other %+v", s.State, s.Other)
			}
			return nil
		})
	}
	// The owner takes over at once: it is better.
	if s := rs[0].do(order{Router: "r", Do: "entitle"}); s.State != vrrpcompat.Master || !s.Entitled {
		t.Fatalf("%v: %s", s.State, s.Reason)
	}
	w.settle(53, own[0], interval)

	// Handed over: the peer hears the one after the other, and nothing between.
	from := time.Now()
	s := rs[0].do(order{Router: "r", Do: "disentitle", HandedOver: true})
	if n := len(s.Told); n == 0 || s.State != vrrpcompat.Backup || s.Told[n-1].At.Before(from) {
		t.Errorf("%v, told %+v", s.State, s.Told)
	}
	if s := rs[1].do(order{Router: "r", Do: "entitle", Fellow: true}); s.State != vrrpcompat.Master {
		t.Fatalf("%v: %s", s.State, s.Reason)
	}
	w.settle(53, own[1], interval)
	heard := from
	for _, p := range w.of(53, netip.Addr{}) {
		switch {
		case p.at.Before(from):
		case p.src != peer && p.priority() == 150:
			heard = p.at
		case p.src != peer || p.at.Sub(heard) < 3*interval: // unless both were stalled
			t.Errorf("%v spoke with priority %d while it was handed over", p.src, p.priority())
		}
	}
	// Lost without a successor: the peer takes over in its skew time.
	s = rs[1].do(order{Router: "r", Do: "disentitle"})
	last := w.first(53, own[1], "to say that it leaves", func(s seen) bool { return s.priority() == 0 })
	w.first(53, peer, "the peer to take over", func(s seen) bool { return s.at.After(last.at) })
	testnet.MustWait(t, 10*time.Second, "keepalived to have heard it", logged(ka, "Backup received priority 0 advertisement"))
	if last := lastOf(t, w, 53, own[1]); last.priority() != 0 {
		t.Errorf("the last advertisement has priority %d", last.priority())
	}
	if n := len(s.Told); n == 0 || !s.Told[n-1].At.Before(last.at) {
		t.Errorf("the owner was told %+v, the others at %v", s.Told, last.at)
	}
	for _, r := range rs {
		r.end()
	}
}

// Two who should not both speak: members of one cluster that are both entitled, and
// routers that have the same address.
func TestDuplicates(t *testing.T) {
	t.Parallel()
	l := testnet.ForTest(t, testnet.Options{Nodes: 2})
	const interval = 200 * time.Millisecond
	v := rival{version: vrrpcompat.V3, interval: interval}
	both := []netip.Addr{l.Node(0).Addr4(testnet.Front), l.Node(1).Addr4(testnet.Front)}
	// The kernel drops IPv4 packets from an address of its own before they get here.
	shared, v6 := netip.MustParseAddr("fe80::9"), v
	v6.ipv6 = true
	var rs []*routers
	for i, h := range l.Nodes() {
		member := ourConfig(54, 150, v, l.VIP4(154), both[i])
		member.Machine.Hybrid = true
		mustExec(t, h, fmt.Sprintf("ip addr add %v/64 dev eth0 nodad", shared))
		same := ourConfig(55, 150, v6, virtual(l, 55, true), shared)
		rs = append(rs, startRouters(t, l, h, map[string]routerConfig{"member": member, "same": same}))
	}
	for _, r := range rs {
		r.do(order{Router: "member", Do: "fellows", Addrs: both})
		r.do(order{Router: "member", Do: "entitle", Fellow: true})
	}
	for i, r := range rs {
		s := r.wait("member", "to name the other", func(s report) error {
			if s.Duplicate == nil || s.State != vrrpcompat.Master {
				return fmt.Errorf("%v, duplicate %v", s.State, s.Duplicate)
			}
			return nil
		})
		if s.Duplicate.Addr != both[1-i] || s.Duplicate.Count < 2 {
			t.Errorf("duplicate %+v, want %v", s.Duplicate, both[1-i])
		}
		r.wait("same", "to note the same address", func(s report) error {
			for _, n := range s.Notes {
				if n.Reason == ReasonSameAddress && n.Sender == shared && n.Dropped && s.Drops["own"] > 0 {
					return nil
				}
			}
			return fmt.Errorf("notes %+v, drops %v", s.Notes, s.Drops)
		})
	}
}

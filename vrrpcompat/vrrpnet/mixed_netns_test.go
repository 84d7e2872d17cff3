package vrrpnet

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
	"github.com/raftvip/raftvip/vrrpcompat"
)

// masters returns who speaks for a virtual router with a priority that is not 0, at
// least twice within four intervals, sorted.
func (w *wire) masters(vrid uint8, interval time.Duration) []netip.Addr {
	from := time.Now().Add(-4 * interval)
	said := map[netip.Addr]int{}
	for _, s := range w.of(vrid, netip.Addr{}) {
		if s.at.After(from) && s.priority() > 0 {
			said[s.src]++
		}
	}
	maps.DeleteFunc(said, func(_ netip.Addr, n int) bool { return n < 2 })
	return slices.SortedFunc(maps.Keys(said), netip.Addr.Compare)
}

// Three implementations are one virtual router. However they are cut off from one
// another, each side has one master, its best; together again the best of all is.
func TestThreeMixed(t *testing.T) {
	testnet.Require(t)
	t.Parallel()
	needKeepalived(t)
	const vrid, interval = 61, 500 * time.Millisecond
	v := rival{version: vrrpcompat.V3, interval: interval}
	l := testnet.ForTest(t, testnet.Options{Nodes: 3})
	us, ka, frr := l.Node(0), l.Node(1), l.Node(2)
	vip := virtual(l, vrid, false)
	w := watchWire(t, l.Observer(), "eth0")

	if _, err := l.StartKeepalived(ka, keepalivedGlobals+instance(vrid, 120, v.version, interval, vip)); err != nil {
		t.Fatal(err)
	}
	addMacvlan(t, frr, vrid, false, vip)
	if _, err := l.StartFRR(frr, fmt.Sprintf("interface eth0\n vrrp %[1]d version 3\n vrrp %[1]d priority 100\n vrrp %[1]d advertisement-interval %[2]d\n vrrp %[1]d ip %[3]v\n",
		vrid, interval.Milliseconds(), vip)); err != nil {
		t.Fatal(err)
	}
	rs := startRouters(t, l, us, map[string]routerConfig{"r": ourConfig(vrid, 150, v, vip, netip.Addr{})})

	masters := func(when string, want ...*testnet.Host) {
		t.Helper()
		var addrs []netip.Addr
		for _, h := range want {
			addrs = append(addrs, h.Addr4(testnet.Front))
		}
		slices.SortFunc(addrs, netip.Addr.Compare)
		testnet.MustWait(t, 30*time.Second, fmt.Sprintf("%s: masters %v", when, addrs), func() error {
			if got := w.masters(vrid, interval); !slices.Equal(got, addrs) {
				return fmt.Errorf("masters are %v", got)
			}
			return nil
		})
	}
	split := func(sides ...[]*testnet.Host) {
		t.Helper()
		for i, a := range sides {
			for _, b := range sides[i+1:] {
				if err := l.Split(a, b); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	heal := func(best *testnet.Host) {
		t.Helper()
		if err := l.Heal(); err != nil {
			t.Fatal(err)
		}
		masters("together again", best)
	}
	side := func(hosts ...*testnet.Host) []*testnet.Host { return hosts }

	masters("at first", us)
	split(side(us), side(ka, frr))
	masters("we alone", us, ka)
	heal(us)
	split(side(frr), side(us, ka))
	masters("FRR alone", us, frr)
	heal(us)
	split(side(ka), side(us, frr))
	masters("keepalived alone", us, ka)
	heal(us)
	split(side(us), side(ka), side(frr))
	masters("everybody alone", us, ka, frr)
	heal(us)
	rs.kill()
	masters("we are dead", ka)
	split(side(ka), side(frr))
	masters("two that are left, alone", ka, frr)
	heal(ka)
}

package operate

import (
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/vip"
)

// TestTwins: another machine uses this node's own address. Nothing is defended, and
// what this machine itself sends, on whatever interface, is no other machine.
func TestTwins(t *testing.T) {
	own, second, virtual := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.1.1"), netip.MustParseAddr("10.0.0.100")
	mac := func(last byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, last} }
	vrrp := net.HardwareAddr{0, 0, 0x5e, 0, 1, 51}
	at := func(a netip.Addr) []vip.KernelAddress { return []vip.KernelAddress{{Prefix: netip.PrefixFrom(a, 24)}} }
	links := []vip.Link{
		{Index: 2, Name: "eth0", MAC: mac(1), Addresses: at(own)},
		{Index: 3, Name: "eth1", MAC: mac(2), Addresses: at(second)}, // also in that LAN
		{Index: 4, Name: "macvlan0", MAC: mac(3)},
		{Index: 5, Name: "bond-port", MAC: mac(4), Port: true},
	}
	c := &Claims{
		log:    slog.New(slog.DiscardHandler),
		serves: func(int, netip.Addr) bool { return false },
		defend: func(int, netip.Addr) { t.Error("the address is defended") },
		links: func(fresh bool) []vip.Link {
			if fresh {
				return append(links[:4:4], vip.Link{Index: 6, Name: "veth-new", MAC: mac(5)})
			}
			return links
		},
		member:   func(m string) string { return map[string]string{mac(9).String(): "lb2"}[m] },
		took:     func() time.Duration { return boottime.Now() },
		port:     func(int, []byte) string { return "" },
		listener: vip.NewClaimListener(nil, func(vip.Claim) {}),
	}
	c.setOwn([]netip.Addr{own})
	for _, none := range []vip.Claim{
		{Addr: own, MAC: mac(1), Link: 2},
		{Addr: own, MAC: mac(2), Link: 2}, // its other interfaces answer for it
		{Addr: own, MAC: mac(3), Link: 2},
		{Addr: own, MAC: mac(4), Link: 2},
		{Addr: own, MAC: mac(5), Link: 2}, // one that was made a moment ago
		{Addr: own, MAC: vrrp, Link: 2},
		{Addr: own, MAC: mac(8), Link: 3}, // on another network that has it too
		{Addr: second, MAC: mac(8), Link: 3},
		{Addr: virtual, MAC: mac(8), Link: 2},
	} {
		c.heard(none)
	}
	if got := c.twinsNow(); len(got) != 0 {
		t.Fatalf("twins: %+v", got)
	}
	c.asked = 0 // a second later
	for range 3 {
		c.heard(vip.Claim{Addr: own, MAC: mac(8), Link: 2})
	}
	c.heard(vip.Claim{Addr: own, MAC: mac(7), Link: 2}) // the links were listed before: may be a new one
	c.asked = 0
	c.heard(vip.Claim{Addr: own, MAC: mac(9), Link: 2}) // a member, at whatever time
	got, told := c.twinsNow(), c.TwinHints()
	if len(got) != 2 || len(told) != 2 || got[0].Member != "lb2" || got[1].Count != 3 || got[1].MAC != mac(8).String() {
		t.Fatalf("twins: %+v, told %+v", got, told)
	}
	if virtualClaims, n := c.now(); n != 0 || len(virtualClaims) != 0 {
		t.Errorf("counted as claims of virtual addresses: %+v", virtualClaims)
	}
	for itself, want := range map[string]string{
		"this one":   "two machines use the address 10.0.0.1 of node lb1: this one and 02:00:00:00:00:08 on eth0, heard 3 times since ",
		"lb1 itself": "two machines use the address 10.0.0.1 of node lb1: lb1 itself and 02:00:00:00:00:08 on eth0, heard 3 times since ",
	} {
		w := twinWarnings([]api.Node{{Name: "lb1", AddressClaims: apiTwins("lb1", itself, got)}})
		if len(w) != 2 || !strings.HasPrefix(w[1], want) || !strings.Contains(w[1], "raftvip node move-here") {
			t.Errorf("warnings %q, want %q", w, want)
		}
	}
	if tr := twinTroubles("lb1", got); len(tr) != 2 || !tr[0].Serious || !strings.Contains(tr[0].Do, "move-here") {
		t.Errorf("troubles: %+v", tr)
	}
}

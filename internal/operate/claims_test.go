package operate

import (
	"fmt"
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

// TestClaimBook judges claims of one address; this node owns since 100 s.
func TestClaimBook(t *testing.T) {
	a := netip.MustParseAddr("10.0.0.100")
	wall := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const took = 100 * time.Second
	var b claimBook
	for i, st := range []struct {
		at           time.Duration
		mac, member  string
		counts, tell bool
		count        uint64
	}{
		{101 * time.Second, "m1", "lb2", false, false, 0}, // what the old owner sent before
		{102 * time.Second, "x", "", true, true, 1},       // a stranger at any time
		{103 * time.Second, "x", "", true, false, 2},
		{104 * time.Second, "m1", "lb2", true, true, 1}, // it goes on
		{105 * time.Second, "m1", "lb2", true, false, 2},
		{161 * time.Second, "x", "", true, false, 3},
		{162 * time.Second, "x", "", true, true, 4}, // a line a minute
		{163 * time.Second, "x", "lb3", true, true, 5},
	} {
		seen, counts, tell := b.note(st.at, took, wall, claimant{a, st.mac}, "eth0", st.member)
		if counts != st.counts || tell != st.tell || counts && seen.count != st.count {
			t.Errorf("claim %d: counts %v, tell %v, %+v; want %+v", i, counts, tell, seen, st)
		}
	}
	if b.total != 7 {
		t.Errorf("%d in all, want 7", b.total)
	}
	got := b.recent(164 * time.Second)
	if len(got) != 2 || got[0].Member == "" || got[1].Member == "" {
		t.Errorf("recent: %+v", got)
	}
	if got = b.recent(105*time.Second + claimShown); len(got) != 1 || got[0].MAC != "x" {
		t.Errorf("recent, later: %+v", got)
	}
	// Strangers without number do not fill the memory, nor the hints.
	for i := range 500 {
		b.note(200*time.Second+time.Duration(i), took, wall, claimant{a, fmt.Sprint("y", i)}, "eth0", "")
	}
	if len(b.seen) != maxClaims || len(b.recent(201*time.Second)) != maxClaimHints {
		t.Errorf("%d remembered, %d told", len(b.seen), len(b.recent(201*time.Second)))
	}
}

// TestClaimsHeard: what is this node's own, or is not served here, is none.
func TestClaimsHeard(t *testing.T) {
	a := netip.MustParseAddr("10.0.0.100")
	mac := func(last byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, last} }
	defended, asked := 0, 0
	// Whoever is asked may ask for the hints beneath a lock of its own.
	var c *Claims
	c = &Claims{
		log:    slog.New(slog.DiscardHandler),
		serves: func(link int, ip netip.Addr) bool { return link == 2 && ip == a },
		defend: func(int, netip.Addr) { defended++ },
		links: func(fresh bool) []vip.Link {
			c.Hints()
			links := []vip.Link{{Index: 2, Name: "eth0", MAC: mac(1)}, {Index: 3, Name: "vrrp.51", MAC: mac(2)}}
			if fresh {
				asked++
				links[0].MAC = mac(3) // the card was exchanged a moment ago
			}
			return links
		},
		member: func(m string) string { c.Hints(); return map[string]string{mac(9).String(): "lb2"}[m] },
		took:   func() time.Duration { return boottime.Now() - time.Minute },
		port:   func(int, []byte) string { c.Hints(); return "port7" },
	}
	for _, m := range []byte{1, 2, 3} {
		c.heard(vip.Claim{Addr: a, MAC: mac(m), Link: 2})
	}
	c.heard(vip.Claim{Addr: a, MAC: mac(8), Link: 3})                                 // on another network
	c.heard(vip.Claim{Addr: netip.MustParseAddr("10.0.0.101"), MAC: mac(8), Link: 2}) // not served here
	if got, n := c.now(); n != 0 || len(got) != 0 || defended != 0 {
		t.Errorf("%d claims: %+v", n, got)
	}
	for range 3 {
		c.heard(vip.Claim{Addr: a, MAC: mac(8), Link: 2})
	}
	c.heard(vip.Claim{Addr: a, MAC: mac(9), Link: 2})
	got, n := c.now()
	if n != 4 || len(got) != 2 || got[0].Member != "lb2" || got[1].Count != 3 || got[1].Port != "port7" || defended != 4 {
		t.Errorf("%d claims, defended %d times: %+v", n, defended, got)
	}
	if asked > 2 {
		t.Errorf("the interfaces were listed %d times", asked)
	}
	nodes := []api.Node{{Name: "lb1", Claims: apiClaims(got)}}
	for members, want := range map[bool]string{
		true:  "TWO NODES CLAIM 10.0.0.100: lb1 owns it, and 10.0.0.100 is claimed by lb2 (02:00:00:00:00:09) on eth0, bridge port port7: once",
		false: "10.0.0.100 is claimed by 02:00:00:00:00:08 on eth0, bridge port port7: 3 times",
	} {
		if w := claimWarnings(nodes, members); len(w) != 1 || !strings.Contains(w[0], want) {
			t.Errorf("warnings %q, want %q", w, want)
		}
	}
	if n := len(claimTroubles(got)); n != 2 {
		t.Errorf("%d troubles", n)
	}
}

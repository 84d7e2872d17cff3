package port

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestPlaces(t *testing.T) {
	var evicted []string
	p := newPlaces(4, 3)
	held := make(map[string]*place)
	take := func(name, source string) {
		held[name] = p.take(netip.MustParsePrefix(source), func() { evicted = append(evicted, name) })
	}
	expect := func(want ...string) {
		t.Helper()
		if !slices.Equal(evicted, want) {
			t.Errorf("evicted %q, want %q", evicted, want)
		}
		evicted = nil
	}
	take("a1", "192.0.2.1/32")
	take("a2", "192.0.2.1/32")
	take("a3", "192.0.2.1/32")
	expect()
	take("a4", "192.0.2.1/32") // its own oldest
	expect("a1")
	take("b1", "192.0.2.2/32")
	expect()
	take("c1", "192.0.2.3/32") // full: the most crowded source's oldest
	expect("a2")
	take("d1", "192.0.2.4/32")
	expect("a3")
	take("e1", "192.0.2.5/32") // all alike: the oldest of all
	expect("a4")
	held["b1"].leave()
	held["b1"].leave()
	take("f1", "192.0.2.6/32")
	expect()
	if p.count != 4 || len(p.held) != 4 {
		t.Errorf("%d places of %d sources", p.count, len(p.held))
	}
	var none *place
	none.leave()
}

func TestSources(t *testing.T) {
	for _, tt := range []struct{ ip, want string }{
		{"192.0.2.1", "192.0.2.1/32"},
		{"::ffff:192.0.2.1", "192.0.2.1/32"},
		{"2001:db8::1", "2001:db8::/64"},
		{"fe80::1%eth0", "fe80::1/128"},
	} {
		if got := sourceOf(netip.MustParseAddr(tt.ip)); got.String() != tt.want {
			t.Errorf("%s: %s, want %s", tt.ip, got, tt.want)
		}
	}
}

func TestLimiter(t *testing.T) {
	now := time.Now()
	l := NewLimiter(1, 3, 10, 5, true)
	source := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)
	}
	try := func(i int) bool {
		ok := l.Allows(source(i), now)
		if ok {
			l.Spend(source(i), now)
		}
		return ok
	}
	for i, want := range []bool{true, true, true, false} {
		if got := try(1); got != want {
			t.Errorf("attempt %d: %v", i, got)
		}
	}
	if first, second, third := try(2), try(2), try(2); !first || !second || third {
		t.Error("the bound of all does not hold for a source that has failed")
	}
	if !try(3) {
		t.Error("a source that has not failed is shut out by others")
	}
	now = now.Add(time.Second)
	if first, second := try(1), try(1); !first || second {
		t.Error("one more after a second, and one only")
	}
	for i := range 2 * maxSources {
		l.Spend(source(i), now)
	}
	if len(l.sources) > maxSources {
		t.Errorf("%d sources are remembered", len(l.sources))
	}
	if l.Allows(source(4000), now) {
		t.Error("with all sources in use, one more is not held to the bound of all")
	}
	now = now.Add(time.Hour)
	l.Spend(source(4001), now)
	if len(l.sources) > 1 {
		t.Errorf("%d sources are remembered after an hour", len(l.sources))
	}
}

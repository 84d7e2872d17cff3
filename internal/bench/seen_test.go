package main

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
	"github.com/raftvip/raftvip/internal/testnet"
)

var (
	vipA = netip.MustParseAddr("10.99.1.1")
	vipB = netip.MustParseAddr("10.99.1.2")
	vipC = netip.MustParseAddr("10.99.1.3")
	vip6 = netip.MustParseAddr("fd00:99::1:1")
)

func ans(at time.Duration, holder string, vip netip.Addr) testnet.Answer {
	return testnet.Answer{At: at, Holder: holder, VIP: vip}
}

func ann(at time.Duration, holder string, vip netip.Addr) testnet.Announcement {
	return testnet.Announcement{At: at, Holder: holder, Addr: vip}
}

// TestTakeoverOf: n2 takes three addresses, of which A and C are asked for.
func TestTakeoverOf(t *testing.T) {
	answers := []testnet.Answer{
		ans(98*ms, "n1", vipA), ans(100*ms, "n1", vipC), ans(103*ms, "n2", vipA), ans(110*ms, "n2", vipC), ans(111*ms, "n2", vipA),
	}
	anns := []testnet.Announcement{
		ann(50*ms, "n2", vipB), // from an earlier turn as owner
		ann(60*ms, "n1", vipB), ann(102*ms, "n2", vipA), ann(105*ms, "n2", vipB), ann(112*ms, "n2", vipC), ann(115*ms, "n2", vipB),
		ann(101*ms, "n2", vip6), // of another family
	}
	got, err := takeoverOf(answers, anns, 90*ms, "n2", 2, 3, netip.Addr.Is4)
	// C answers before it is announced: that it does is what counts.
	want := takeover{first: 2 * ms, median: 5 * ms, last: 10 * ms, silent: true, spread: 8 * ms}
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := takeoverOf(answers, anns[:5], 90*ms, "n2", 2, 4, netip.Addr.Is4); !errors.Is(err, errIncomplete) {
		t.Errorf("an address that was never announced: %v", err)
	}
	if _, err := takeoverOf(answers[:3], anns, 90*ms, "n2", 2, 3, netip.Addr.Is4); !errors.Is(err, errIncomplete) {
		t.Errorf("an address that never answered: %v", err)
	}
	// The old owner goes on answering: the time since is not known, the spread is.
	two := append(slices.Clone(answers), ans(120*ms, "n1", vipA))
	if got, err := takeoverOf(two, anns, 90*ms, "n2", 2, 3, netip.Addr.Is4); err != nil || got.silent || got.spread != 8*ms {
		t.Errorf("with two that answer: %+v, %v", got, err)
	}
}

func TestTaking(t *testing.T) {
	var k taking
	k.add(takeover{spread: ms, silent: true, first: ms, median: ms, last: 2 * ms}, nil, 0)
	k.add(takeover{spread: 3 * ms}, nil, 0)
	k.add(takeover{}, errIncomplete, 0)
	row := k.row(trial.Keepalived{}, many{1000, "IPv4", false}, "again", ms)
	if row.Spread.All.N != 2 || row.Last.All.N != 1 || len(row.Problems) != 1 || row.Count != 1000 || row.Ours {
		t.Errorf("%+v", row)
	}
}

// TestTakenAt: what is a failover, seen from outside.
func TestTakenAt(t *testing.T) {
	run := func(holder string, from, to time.Duration) (out []testnet.Answer) {
		for at := from; at < to; at += 5 * ms {
			out = append(out, ans(at, holder, vipA))
		}
		return out
	}
	for _, tt := range []struct {
		name string
		as   []testnet.Answer
		want []time.Duration
	}{
		{"nothing happens", run("n1", 0, 1000*ms), nil},
		{"there and back", slices.Concat(run("n1", 0, 200*ms), run("n2", 250*ms, 500*ms), run("n1", 505*ms, 1000*ms)), []time.Duration{250 * ms}},
		{"both answer", slices.Concat(run("n1", 0, 1000*ms), run("n2", 300*ms, 600*ms)), []time.Duration{300 * ms}},
		{"twice", slices.Concat(run("n1", 0, 1000*ms), run("n2", 300*ms, 400*ms), run("n2", 600*ms, 700*ms)), []time.Duration{300 * ms, 600 * ms}},
		{"another, then a third", slices.Concat(run("n2", 300*ms, 400*ms), run("n3", 400*ms, 500*ms)), []time.Duration{300 * ms, 400 * ms}},
		{"nobody for a while", slices.Concat(run("n1", 0, 200*ms), run("n1", 700*ms, 900*ms)), nil},
	} {
		if got := takenAt(tt.as, "n1"); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestMatching(t *testing.T) {
	for h, advert := range map[time.Duration]time.Duration{
		30 * ms: 10 * ms, 50 * ms: 10 * ms, 100 * ms: 30 * ms, 300 * ms: 80 * ms, 1000 * ms: 280 * ms,
	} {
		if got := matching(h); got.Advert != advert || got.Version != 3 {
			t.Errorf("%v: %+v with detection %v, want advert %v", h, got, got.Detection(), advert)
		}
	}
}

// TestWindows: each raftvip has its match, and each keepalived asked for runs once.
func TestWindows(t *testing.T) {
	b := &bench{options: options{
		loadHeartbeats: []time.Duration{1000 * ms, 300 * ms, 30 * ms},
		adverts:        []trial.Keepalived{{Version: 2, Advert: time.Second}, {Version: 3, Advert: 100 * ms}, {Version: 3, Advert: 10 * ms}},
	}}
	var got [][]string
	for _, w := range b.windows() {
		var names []string
		for _, p := range w {
			names = append(names, p.Name())
		}
		got = append(got, names)
	}
	want := [][]string{
		{"raftvip H=1s", "keepalived v3 280ms", "keepalived v2 1s"},
		{"raftvip H=300ms", "keepalived v3 80ms", "keepalived v3 100ms"},
		{"raftvip H=30ms", "keepalived v3 10ms"}, // the match is the one asked for
	}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%v, want %v", got, want)
	}
	b.adverts = nil
	for _, w := range b.windows() {
		if len(w) != 1 {
			t.Errorf("without keepalived: %d products at once", len(w))
		}
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/chaos/trial"
	"github.com/raftvip/raftvip/internal/testnet"
)

// A addresses row is how long a takeover of many addresses takes, seen from
// outside. All addresses are announced, and each announcement is seen; some of
// them, the first and the last of the list among them, are asked for all the time.
type addresses struct {
	Product   string `json:"product"`
	Ours      bool   `json:"ours"`
	Count     int    `json:"count"`
	Family    string `json:"family"`
	Instances bool   `json:"an_instance_each"`
	// Kind is "fresh" where the node never had the addresses, "again" where it had
	// lost them before, of which the kernel keeps traces for IPv6.
	Kind string `json:"kind"`
	// First, Median and Last are of all addresses, from the last answer of the old
	// owner; they are known where the old one is silent before. Last includes the
	// answers of those that are asked for.
	First  timing `json:"first"`
	Median timing `json:"median"`
	Last   timing `json:"last"`
	// Spread is from the first sign of the new owner to the last address.
	Spread timing `json:"spread"`
	// Ratio is keepalived's median Spread by that of raftvip.
	Ratio    float64  `json:"keepalived_by_raftvip,omitempty"`
	Problems []string `json:"problems,omitempty"`
}

// A takeover is one node's taking of all addresses from another.
type takeover struct {
	first, median, last time.Duration // from the old owner's last answer
	silent              bool          // the old owner was silent before
	spread              time.Duration
}

var errIncomplete = errors.New("not all addresses were seen")

// takeoverOf finds a takeover by the new owner in what was seen from an instant on:
// when it first announced each of the count addresses, and first answered for those
// that were asked for.
func takeoverOf(answers []testnet.Answer, anns []testnet.Announcement, from time.Duration, newOwner string, asked, count int, family func(netip.Addr) bool) (takeover, error) {
	announced, answered := map[netip.Addr]time.Duration{}, map[netip.Addr]time.Duration{}
	note := func(m map[netip.Addr]time.Duration, a netip.Addr, at time.Duration) {
		if _, ok := m[a]; !ok {
			m[a] = at
		}
	}
	for _, a := range anns {
		if a.At >= from && a.Holder == newOwner && family(a.Addr) {
			note(announced, a.Addr, a.At)
		}
	}
	last := time.Duration(0) // of the old owner
	for _, a := range answers {
		switch {
		case !family(a.VIP):
		case a.Holder != newOwner:
			last = max(last, a.At)
		case a.At >= from:
			note(answered, a.VIP, a.At)
		}
	}
	if len(announced) != count || len(answered) != asked {
		return takeover{}, fmt.Errorf("%w: %d of %d announced, %d of %d answer", errIncomplete, len(announced), count, len(answered), asked)
	}
	var times []time.Duration
	for a, at := range announced {
		// Whichever comes first shows that the address is there.
		if known, ok := answered[a]; ok {
			at = min(at, known)
		}
		times = append(times, at)
	}
	slices.Sort(times)
	end := times[len(times)-1]
	for _, at := range answered {
		end = max(end, at)
	}
	t := takeover{spread: end - times[0], silent: last > 0 && last < times[0]}
	t.first, t.median, t.last = times[0]-last, times[len(times)/2]-last, end-last
	return t, nil
}

// many is one case of this section.
type many struct {
	count     int
	family    string
	instances bool
}

func (m many) setup() trial.Setup {
	s := trial.Setup{V4: m.count, Instances: m.instances, Interval: 2 * time.Millisecond}
	if m.family == "IPv6" {
		s.V4, s.V6 = 1, m.count
	}
	return s
}

func (m many) of(a netip.Addr) bool { return a.Is6() == (m.family == "IPv6") }

func (m many) String() string {
	s := fmt.Sprintf("%d %s addresses", m.count, m.family)
	if m.instances {
		s += ", each of an instance of its own"
	}
	return s
}

// fresh is in how many clusters a case is measured: only the first takeover in
// each is by a node that never had the addresses.
const fresh = 3

// manyAddresses is a step: planned moves there and back, in several clusters.
func (b *bench) manyAddresses(p trial.Product, detection time.Duration, m many, n int) step {
	clusters := min(fresh, n)
	trials := max(1, (n+2*clusters-1)/(2*clusters)) // each has two takeovers
	per := b.trialTakes(p, detection) + announcing
	return step{
		section: "addresses", theirs: !ours(p), name: fmt.Sprintf("%s: %v", p.Name(), m),
		takes: time.Duration(clusters) * (2*opening + per*time.Duration(trials)),
		run: func(ctx context.Context) error {
			kinds := map[string]*taking{"fresh": {}, "again": {}}
			var errs []error
			for range clusters {
				err := b.takeovers(ctx, p, m, trials, per, kinds)
				errs = append(errs, err)
				if ctx.Err() != nil || err != nil && !ours(p) {
					break // one that cannot settle with so many never will
				}
			}
			for _, kind := range []string{"fresh", "again"} {
				if k := kinds[kind]; k.any() {
					b.rep.Addresses = append(b.rep.Addresses, k.row(p, m, kind, b.threshold))
				}
			}
			return errors.Join(errs...)
		},
	}
}

// announcing is how long the announcements of many addresses are waited for.
const announcing = 1500 * time.Millisecond

// taking gathers takeovers of one kind.
type taking struct {
	first, median, last, spread []sample
	problems                    []string
}

func (k *taking) any() bool { return len(k.spread)+len(k.problems) > 0 }

func (k *taking) row(p trial.Product, m many, kind string, threshold time.Duration) addresses {
	return addresses{
		Product: p.Name(), Ours: ours(p), Count: m.count, Family: m.family, Instances: m.instances, Kind: kind,
		First: timingOf(k.first, threshold), Median: timingOf(k.median, threshold), Last: timingOf(k.last, threshold),
		Spread: timingOf(k.spread, threshold), Problems: k.problems,
	}
}

func (k *taking) add(t takeover, err error, stall time.Duration) {
	if err != nil {
		k.problems = append(k.problems, err.Error())
		return
	}
	k.spread = append(k.spread, sample{t.spread, stall})
	if t.silent {
		k.first = append(k.first, sample{t.first, stall})
		k.median = append(k.median, sample{t.median, stall})
		k.last = append(k.last, sample{t.last, stall})
	}
}

// takeovers moves the addresses of one cluster there and back.
func (b *bench) takeovers(ctx context.Context, p trial.Product, m many, trials int, per time.Duration, kinds map[string]*taking) (err error) {
	r, err := trial.Open(ctx, p, m.setup())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b.plan.advance(2 * opening)
	move := "transfer"
	if !ours(p) {
		move = "term"
	}
	faults, err := trial.Find(move)
	if err != nil {
		return err
	}
	asked := 0
	for _, v := range r.VIPs {
		if m.of(v) {
			asked++
		}
	}
	had := map[string]bool{}
	for range trials {
		res, err := r.Try(ctx, faults[0], announcing)
		if err != nil {
			return err
		}
		if err := pause(ctx, announcing); err != nil { // the way back is announced as well
			return err
		}
		b.rep.addOverlap(p, res)
		b.plan.advance(per)
		answers, anns := r.Prober.Since(res.Began), r.Capture.Announcements(netip.Addr{})
		had[res.From] = true
		for _, leg := range []struct {
			from, to time.Duration
			owner    string
		}{{res.Began, res.Healed, res.During}, {res.Healed, boottime.Now(), res.To}} {
			kind := "fresh"
			if had[leg.owner] {
				kind = "again"
			}
			had[leg.owner] = true
			until := slices.DeleteFunc(slices.Clone(answers), func(a testnet.Answer) bool { return a.At > leg.to })
			t, err := takeoverOf(until, anns, leg.from, leg.owner, asked, m.count, m.of)
			stall := r.Control.Within(leg.from, leg.to)
			kinds[kind].add(t, err, stall)
			b.plan.note("%-24s %v, %s: first to last in %s ms, stall %s ms %s", p.Name(), m, kind, trial.Millis(t.spread), trial.Millis(stall), brief(err))
		}
		if res.Problem != "" {
			return errors.New(res.Problem)
		}
	}
	return nil
}

// compareAddresses sets the ratios.
func (r *report) compareAddresses() {
	for i := range r.Addresses {
		a := &r.Addresses[i]
		a.Ratio = 0
		for _, k := range r.Addresses {
			if a.Ours && !k.Ours && k.Count == a.Count && k.Family == a.Family && k.Instances == a.Instances && k.Kind == a.Kind {
				a.Ratio = ratio(k.Spread.All.Median, a.Spread.All.Median)
			}
		}
	}
}

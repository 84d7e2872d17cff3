package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
	"github.com/raftvip/raftvip/internal/chaos/trial"
	"github.com/raftvip/raftvip/internal/testnet"
)

// A load row is what one product did during a window in which nothing was broken
// and the processors were busy. All products of a window run at the same time,
// each in a lab of its own: what the machine does to one it does to all, which
// windows one after another cannot promise on a machine that stalls now and then.
type load struct {
	Window    string        `json:"window"`
	Product   string        `json:"product"`
	Ours      bool          `json:"ours"`
	Default   bool          `json:"default_timeout"`
	Variant   string        `json:"variant,omitempty"`
	Detection time.Duration `json:"detection_ns"`
	For       time.Duration `json:"over_ns"`
	// Failovers is how often another node than the owner began to answer.
	Failovers int `json:"false_failovers"`
	// Excused is how many of them came while the machine stood still for half of
	// the detection time or more.
	Excused int `json:"during_stalls"`
	// Terms is how many began, of raftvip: elections, where the addresses may have
	// stayed, and hand-overs, as when they go back.
	Terms uint64 `json:"terms"`
	// Silences are times in which the client got no answer, whatever the reason;
	// the longest in Silent.
	Silences int           `json:"silences"`
	Silent   time.Duration `json:"longest_silence_ns"`
	Overlap  time.Duration `json:"overlap_ns"`
	// Stalls is how often the machine stood still for longer than the threshold.
	Stalls int           `json:"machine_stalls"`
	Stall  time.Duration `json:"machine_stall_worst_ns"`
}

// loadInterval is how often the observers of a window ask: there are several at
// a time, and what they use the products lack.
const loadInterval = 5 * time.Millisecond

// busyLoops is how many programs compete for the processors.
const busyLoops = 4

// windowStep is a step: all products at once under load.
func (b *bench) windowStep(section, name string, products []trial.Product, d time.Duration) step {
	return step{
		section: section, name: name, takes: opening*time.Duration(len(products)) + d,
		run: func(ctx context.Context) error {
			ls, err := b.window(ctx, name, products, d)
			b.rep.Load = append(b.rep.Load, ls...)
			return err
		},
	}
}

// window runs the products, then the load beside them, and counts.
func (b *bench) window(ctx context.Context, name string, products []trial.Product, d time.Duration) (ls []load, err error) {
	var rigs []*trial.Rig
	defer func() {
		for _, r := range rigs {
			err = errors.Join(err, r.Close())
		}
	}()
	var owners []*testnet.Host
	for _, p := range products {
		r, err := trial.Open(ctx, p, trial.Setup{V4: 1, Interval: loadInterval})
		if err != nil {
			return nil, err
		}
		rigs = append(rigs, r)
		b.plan.advance(opening)
	}
	before := make([]uint64, len(rigs))
	for i, r := range rigs {
		o, err := r.Settle(ctx)
		if err != nil {
			return nil, err
		}
		owners = append(owners, o)
		if before[i], err = electionsOf(ctx, r, o); err != nil {
			return nil, err
		}
	}
	stop, err := burn(rigs[0].Lab.Client(0))
	if err != nil {
		return nil, err
	}
	from := boottime.Now()
	err = pause(ctx, d)
	to := boottime.Now()
	stop()
	if err != nil {
		return nil, err
	}
	// What happened last is seen and told a moment later.
	if err := pause(ctx, time.Second); err != nil {
		return nil, err
	}
	for i, r := range rigs {
		l := load{
			Window: name, Product: r.Product.Name(), Ours: ours(r.Product), Detection: r.System.Detection(), For: to - from,
		}
		if p, ok := r.Product.(trial.Raftvip); ok {
			l.Default, l.Variant = p.Heartbeat == 0 || p.Heartbeat == defaultHeartbeat, p.Variant
		}
		l.observe(r, owners[i].Name(), from, to, b.threshold)
		now, err := electionsOf(ctx, r, owners[i])
		if err != nil {
			b.plan.note("%s: %v", l.Product, err)
		} else {
			l.Terms = now - before[i]
		}
		b.plan.note("%-24s %d false failovers (%d during stalls), %d new terms, silent for %s ms at most", l.Product, l.Failovers, l.Excused, l.Terms, trial.Millis(l.Silent))
		ls = append(ls, l)
	}
	return ls, nil
}

// electionsOf returns how many there have been, 0 where there is no such thing.
func electionsOf(ctx context.Context, r *trial.Rig, h *testnet.Host) (uint64, error) {
	if e, ok := r.System.(trial.Elector); ok {
		return e.Election(ctx, h)
	}
	return 0, nil
}

// observe fills in what was seen from outside.
func (l *load) observe(r *trial.Rig, owner string, from, to, threshold time.Duration) {
	answers := r.Prober.Since(from)
	for _, at := range takenAt(answers, owner) {
		l.Failovers++
		if r.Control.Total(at-2*l.Detection, at) >= l.Detection/2 {
			l.Excused++
		}
	}
	for _, o := range r.Client.Outages(from) {
		if o.From < to {
			l.Silences++
			l.Silent = max(l.Silent, o.Gap)
		}
	}
	l.Overlap = testnet.CheckP1(answers, loadInterval).Overlap
	for _, s := range r.Control.Stalls() {
		if s.To >= from && s.From <= to && s.To-s.From > threshold {
			l.Stalls++
			l.Stall = max(l.Stall, s.To-s.From)
		}
	}
}

// apartAnswers is how far answers of one node must be apart for it to have begun
// anew, where two answer at a time.
const apartAnswers = 100 * time.Millisecond

// takenAt returns when nodes other than the owner began to answer.
func takenAt(answers []testnet.Answer, owner string) []time.Duration {
	var out []time.Duration
	last := map[string]time.Duration{}
	answers = slices.Clone(answers)
	slices.SortStableFunc(answers, func(a, b testnet.Answer) int { return cmp.Compare(a.At, b.At) })
	for _, a := range answers {
		before, seen := last[a.Holder]
		last[a.Holder] = a.At
		if a.Holder != owner && (!seen || a.At-before > apartAnswers) {
			out = append(out, a.At)
		}
	}
	return out
}

// burn starts the busy loops in a host, each a process of its own, and returns
// what ends them.
func burn(h *testnet.Host) (stop func(), err error) {
	var procs []*testnet.Proc
	stop = sync.OnceFunc(func() {
		for _, p := range procs {
			_ = p.Kill()
			_, _ = p.Wait(5 * time.Second)
		}
	})
	for range busyLoops {
		p, err := h.Start(testnet.Cmd{Name: "busy", Args: []string{"sh", "-c", "while :; do :; done"}})
		if err != nil {
			stop()
			return nil, err
		}
		procs = append(procs, p)
	}
	return stop, nil
}

// pause is time.Sleep that a context can end.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// matching returns the keepalived that notices a failure about as soon as raftvip
// with the heartbeat timeout: adverts are in hundredths of a second.
func matching(h time.Duration) trial.Keepalived {
	const unit = 10 * time.Millisecond
	best := trial.Keepalived{Version: 3, Advert: unit}
	for a := unit; a <= h; a += unit {
		if k := (trial.Keepalived{Version: 3, Advert: a}); apart(k.Detection(), h) < apart(best.Detection(), h) {
			best = k
		}
	}
	return best
}

// windows is what runs at the same time as raftvip with each heartbeat timeout:
// the keepalived that matches it, and each that was asked for beside the timeout
// nearest to its own.
func (b *bench) windows() [][]trial.Product {
	var out [][]trial.Product
	for _, h := range b.loadHeartbeats {
		ps := []trial.Product{b.raftvip(h)}
		if len(b.adverts) > 0 {
			ps = append(ps, matching(h))
		}
		out = append(out, ps)
	}
	for _, k := range b.adverts {
		best := 0
		for i, h := range b.loadHeartbeats {
			if apart(k.Detection(), h) < apart(k.Detection(), b.loadHeartbeats[best]) {
				best = i
			}
		}
		if len(out) > 0 && !slices.ContainsFunc(out[best], func(p trial.Product) bool { return p == trial.Product(k) }) {
			out[best] = append(out[best], k)
		}
	}
	return out
}

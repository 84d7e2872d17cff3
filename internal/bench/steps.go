package main

import (
	"context"
	"time"

	"github.com/raftvip/raftvip/internal/chaos/trial"
	"github.com/raftvip/raftvip/internal/testnet"
)

// failures and moves are what is done to the owner. keepalived has no transfer and
// no drain.
var (
	failures   = []string{"kill", "power", "freeze", "partition"}
	moves      = []string{"term", "transfer", "drain", "check", "priority"}
	theirMoves = []string{"term", "check", "priority"}
)

// raftvip is the product with a heartbeat timeout, or the default if it is 0.
func (b *bench) raftvip(h time.Duration) trial.Raftvip {
	return trial.Raftvip{Binary: b.binary, PinDir: b.pins, Heartbeat: h, Ranked: true, Env: b.env}
}

// opening is about how long it takes until a product runs and has settled.
const opening = 4 * time.Second

// trialTakes is about how long a trial takes: until the failure is noticed, until
// the product has been started again, and until it has been quiet for a while.
func (b *bench) trialTakes(p trial.Product, detection time.Duration) time.Duration {
	if ours(p) {
		return detection + 1500*time.Millisecond
	}
	return detection*3/2 + min(detection, 2*time.Second) + 1200*time.Millisecond
}

// steps are those of all sections asked for.
func (b *bench) steps() ([]step, error) {
	var out []step
	add := func(s ...step) { out = append(out, s...) }
	var faults [3][]trial.Fault
	for i, names := range [][]string{failures, moves, theirMoves} {
		var err error
		if faults[i], err = trial.Find(names...); err != nil {
			return nil, err
		}
	}
	sofar := 0
	if b.has("gaps") {
		for _, h := range b.heartbeats {
			add(b.gapSeries("gaps", b.raftvip(h), h, faults[0], b.n))
			sofar += b.n * len(faults[0])
		}
		for _, k := range b.adverts {
			add(b.gapSeries("gaps", k, k.Detection(), faults[0], b.trialsOf(k)))
		}
	}
	if b.has("moves") {
		add(b.gapSeries("moves", b.raftvip(0), defaultHeartbeat, faults[1], b.n))
		for _, k := range b.adverts {
			add(b.gapSeries("moves", k, k.Detection(), faults[2], b.trialsOf(k)))
		}
	}
	if b.has("elections") {
		add(b.moreElections(b.elections, sofar))
	}
	if b.has("addresses") {
		add(b.addressSteps()...)
	}
	if b.has("load") {
		for _, ps := range b.windows() {
			add(b.windowStep("load", ps[0].Name(), ps, b.busyFor))
		}
	}
	if b.has("tuning") {
		ts, err := b.tunings(100*time.Millisecond, max(1, b.n/2))
		if err != nil {
			return nil, err
		}
		add(ts...)
	}
	if b.has("idle") {
		for _, n := range []int{1, 250} {
			for _, voters := range []int{1, 3, 5} {
				p := b.raftvip(0)
				p.Voters = voters
				add(b.costStep(p, n))
			}
			for _, k := range b.adverts {
				add(b.costStep(k, n))
			}
		}
	}
	if b.has("groups") {
		add(b.groupSteps()...)
	}
	if b.has("size") {
		add(b.sizeStep(b.n))
	}
	return out, nil
}

// addressSteps has one keepalived, with its default advert interval: with adverts
// every tenth of a second, a pair that has 1000 addresses to announce between them
// may never settle.
func (b *bench) addressSteps() []step {
	var out []step
	theirs := trial.Keepalived{Version: 3, Advert: time.Second}
	for _, m := range []many{{1000, "IPv4", false}, {1000, "IPv6", false}, {250, "IPv4", true}} {
		out = append(out, b.manyAddresses(b.raftvip(0), defaultHeartbeat, m, b.n))
		if len(b.adverts) > 0 {
			out = append(out, b.manyAddresses(theirs, theirs.Detection(), m, b.trialsOf(theirs)))
		}
	}
	return out
}

// emptyLab is a lab in which no product runs.
func (b *bench) emptyLab(ctx context.Context) (*testnet.Lab, error) {
	return testnet.New(ctx, testnet.Options{Nodes: 1})
}

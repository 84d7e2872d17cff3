package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Peers meet the runs of one node, and tell one another. However the handshakes and
// the notes follow one another, runs that follow one another are never taken for two
// holders nor to have lost what they acknowledged, and two that live at the same time are
// found once both have spoken after the other was known.
func TestHoldersAreToldApart(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var now time.Duration
		clock := func() time.Duration { now++; return now }
		peers := make([]*holders, 3)
		for i := range peers {
			peers[i] = newHolders(fmt.Sprintf("p%d", i), Run{Boot: newBoot()}, clock, func() {})
		}
		everyone := func(string) bool { return true }
		tell := func() {
			a, b := peers[rng.IntN(3)], peers[rng.IntN(3)]
			if rng.IntN(2) == 0 {
				b.learn(a.notes(), everyone)
				return
			}
			a.learn(b.notes(), everyone)
			b.learn(a.notes(), everyone)
		}
		// A handshake begins, and that it is complete is noticed after something else has
		// happened: the process may be gone by then, and its successor known.
		type handshake struct {
			at    *holders
			run   Run
			begun time.Duration
		}
		live := []Run{{Boot: newBoot()}}
		var pending []handshake
		begin := func() {
			pending = append(pending, handshake{peers[rng.IntN(3)], live[rng.IntN(len(live))], clock()})
		}
		connected := make(map[*holders]Run)
		finish := func() {
			if len(pending) > 0 {
				i := rng.IntN(len(pending))
				h := pending[i]
				pending = slices.Delete(pending, i, i+1)
				h.at.met("x", h.run, h.begun, "")
				connected[h.at] = h.run
			}
		}
		// Its log grows, and it says so to those that it is connected with.
		disk := Position{1, 1}
		answer := func() {
			disk = Position{disk.Term + uint64(rng.IntN(2)), disk.Index + 1}
			for _, at := range peers {
				if connected[at] == live[0] {
					at.acknowledged("x", "", disk)
				}
			}
		}
		for range 60 {
			switch rng.IntN(7) {
			case 0:
				tell()
			case 1:
				if rng.IntN(3) == 0 {
					live = []Run{{Boot: newBoot(), Start: disk}} // restarted
				}
			case 2, 3:
				begin()
			case 4:
				answer()
			default:
				finish()
			}
		}
		for i, p := range peers {
			for _, f := range p.findings() {
				t.Fatalf("seed %d: peer %d: %+v of runs that follow one another", seed, i, f)
			}
			if f := p.barred("x", live[0].Boot); f != nil {
				t.Fatalf("seed %d: peer %d: %+v of the run that lives", seed, i, f)
			}
		}
		live = append(live, Run{Boot: newBoot(), Start: disk})
		for range 200 {
			begin()
			finish()
			tell()
		}
		for i, p := range peers {
			if f := p.barred("x", live[0].Boot); f == nil || f.Kind != FindingTwo {
				t.Fatalf("seed %d: peer %d: two at once: %+v", seed, i, f)
			}
			if f := p.barred("x", live[1].Boot); f == nil || f.Kind != FindingTwo {
				t.Fatalf("seed %d: peer %d: the second of two: %+v", seed, i, f)
			}
		}
		// The operator has decided: stopped all but one, and moved that one.
		moved := Run{Boot: newBoot(), Claim: 1, Start: disk}
		peers[0].met("x", moved, clock(), "")
		peers[1].learn(peers[0].notes(), everyone)
		for i, p := range peers[:2] {
			if f := p.barred("x", moved.Boot); f != nil {
				t.Fatalf("seed %d: peer %d: moved here: %+v", seed, i, f)
			}
			if f := p.barred("x", live[0].Boot); f == nil || f.Kind != FindingMoved {
				t.Fatalf("seed %d: peer %d: the one before: %+v", seed, i, f)
			}
		}
	}
}

func TestOwnIdentityElsewhere(t *testing.T) {
	now := time.Hour
	h := newHolders("a", Run{Boot: newBoot()}, func() time.Duration { now++; return now }, func() {})
	h.met("a", Run{Boot: newBoot()}, now+1, "")
	if f := h.barred("a", h.run.Boot); f == nil || f.Kind != FindingTwo {
		t.Errorf("a handshake with another process of this node: %+v", f)
	}
	// Another node has seen one that was there before this one: that is a restart.
	h = newHolders("a", Run{Boot: newBoot()}, func() time.Duration { now++; return now }, func() {})
	peer := newHolders("b", Run{Boot: newBoot()}, func() time.Duration { now++; return now }, func() {})
	peer.met("a", Run{Boot: newBoot()}, now+1, "")
	h.learn(peer.notes(), func(string) bool { return true })
	now++
	peer.met("a", h.run, now, "")
	peer.learn(h.notes(), func(string) bool { return true })
	h.learn(peer.notes(), func(string) bool { return true })
	if f := h.findings(); len(f) > 0 {
		t.Errorf("restarted: %+v", f)
	}
	if f := peer.findings(); len(f) > 0 {
		t.Errorf("restarted, by its peer: %+v", f)
	}
}

func TestRolledBackNodeIsFound(t *testing.T) {
	now := time.Hour
	clock := func() time.Duration { now++; return now }
	for _, tt := range []struct {
		name  string
		start Position
		back  bool
	}{
		{"all of it", Position{7, 100}, false},
		{"more", Position{9, 120}, false},
		{"entries are missing", Position{7, 99}, true},
		{"a vote is missing", Position{6, 100}, true},
	} {
		h := newHolders("b", Run{Boot: newBoot()}, clock, func() {})
		h.met("a", Run{Boot: newBoot()}, clock(), "")
		h.acknowledged("a", "", Position{Index: 100})
		h.acknowledged("a", "", Position{Term: 7})
		run := Run{Boot: newBoot(), Start: tt.start}
		h.met("a", run, clock(), "")
		f := h.barred("a", run.Boot)
		if (f != nil) != tt.back || f != nil && f.Kind != FindingBack {
			t.Errorf("%s: %+v", tt.name, f)
		}
		// Those who did not know are told, the node itself first.
		self := newHolders("a", run, clock, func() {})
		self.learn(h.notes(), func(string) bool { return true })
		if f := self.barred("a", run.Boot); (f != nil) != tt.back {
			t.Errorf("%s: at the node itself: %+v", tt.name, f)
		}
	}
}

// A run that is heard of late may have ended long ago: what the node says now is not of it.
func TestAnswersAreOfTheRunThatGaveThem(t *testing.T) {
	now := time.Hour
	clock := func() time.Duration { now++; return now }
	everyone := func(string) bool { return true }
	peer := func() *holders { return newHolders("p", Run{Boot: newBoot()}, clock, func() {}) }
	before := Run{Boot: newBoot(), Start: Position{6, 80}}
	current := Run{Boot: newBoot(), Start: Position{7, 100}}
	knows := peer()
	knows.met("a", before, clock(), "")
	h := peer()
	h.met("a", current, clock(), "")
	h.learn(knows.notes(), everyone)
	h.acknowledged("a", "", Position{8, 120}) // an answer that was under way
	h.lost("a")
	h.met("a", current, clock(), "")
	if f := h.barred("a", current.Boot); f != nil {
		t.Errorf("it has all that it had: %+v", f)
	}
	// And what is known to be of the present one counts.
	h.acknowledged("a", "", Position{8, 130})
	h.met("a", Run{Boot: newBoot(), Start: Position{8, 129}}, clock(), "")
	if f := h.barred("a", ""); f == nil || f.Kind != FindingBack {
		t.Errorf("it has lost an entry: %+v", f)
	}
}

func TestRunText(t *testing.T) {
	want := Run{Boot: newBoot(), Claim: 3, Start: Position{4, 5}}
	if got, ok := parseRun(want.text()); !ok || got != want {
		t.Errorf("got %+v", got)
	}
	for _, bad := range []string{"", "x", "0123456789abcdef", "0123456789abcdef.1.2", "0123456789ABCDEF.1.2.3", "0123456789abcdef.-1.2.3", "0123456789abcdef.1.2.3.4", "0123456789abcdef.1.2.99999999999999999999"} {
		if _, ok := parseRun(bad); ok {
			t.Errorf("%q: read", bad)
		}
	}
}

func FuzzLearn(f *testing.F) {
	f.Add("a", "0123456789abcdef", uint64(1), "fedcba9876543210", uint64(7))
	f.Fuzz(func(t *testing.T, id, boot string, claim uint64, after string, index uint64) {
		h := newHolders("a", Run{Boot: newBoot()}, func() time.Duration { return time.Hour }, func() {})
		note := map[string]IdentityNote{id: {Runs: []HolderNote{{Run: Run{Boot: boot, Claim: claim}, Acknowledged: Position{Index: index}, After: []string{after, boot}}}}}
		for range 3 {
			h.learn(note, func(string) bool { return true })
			h.findings()
			h.barred(id, boot)
		}
		for id, n := range h.notes() {
			if len(n.Runs) > maxRuns {
				t.Errorf("%q: %d runs", id, len(n.Runs))
			}
		}
	})
}

package identity

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
		peers := make([]*Holders, 3)
		for i := range peers {
			peers[i] = New(fmt.Sprintf("p%d", i), Run{Boot: NewBoot()}, clock, func() {})
		}
		everyone := func(string) bool { return true }
		tell := func() {
			a, b := peers[rng.IntN(3)], peers[rng.IntN(3)]
			if rng.IntN(2) == 0 {
				b.Learn(a.Notes(), everyone)
				return
			}
			a.Learn(b.Notes(), everyone)
			b.Learn(a.Notes(), everyone)
		}
		// A handshake begins, and that it is complete is noticed after something else has
		// happened: the process may be gone by then, and its successor known.
		type handshake struct {
			at    *Holders
			run   Run
			begun time.Duration
		}
		live := []Run{{Boot: NewBoot()}}
		var pending []handshake
		begin := func() {
			pending = append(pending, handshake{peers[rng.IntN(3)], live[rng.IntN(len(live))], clock()})
		}
		connected := make(map[*Holders]Run)
		finish := func() {
			if len(pending) > 0 {
				i := rng.IntN(len(pending))
				h := pending[i]
				pending = slices.Delete(pending, i, i+1)
				h.at.Met("x", h.run, h.begun, "")
				connected[h.at] = h.run
			}
		}
		// Its log grows, and it says so to those that it is connected with.
		disk := Position{1, 1}
		answer := func() {
			disk = Position{disk.Term + uint64(rng.IntN(2)), disk.Index + 1}
			for _, at := range peers {
				if connected[at] == live[0] {
					at.Acknowledged("x", "", disk)
				}
			}
		}
		for range 60 {
			switch rng.IntN(7) {
			case 0:
				tell()
			case 1:
				if rng.IntN(3) == 0 {
					live = []Run{{Boot: NewBoot(), Start: disk}} // restarted
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
			for _, f := range p.Findings() {
				t.Fatalf("seed %d: peer %d: %+v of runs that follow one another", seed, i, f)
			}
			if f := p.Barred("x", live[0].Boot); f != nil {
				t.Fatalf("seed %d: peer %d: %+v of the run that lives", seed, i, f)
			}
		}
		live = append(live, Run{Boot: NewBoot(), Start: disk})
		for range 200 {
			begin()
			finish()
			tell()
		}
		for i, p := range peers {
			if f := p.Barred("x", live[0].Boot); f == nil || f.Kind != FindingTwo {
				t.Fatalf("seed %d: peer %d: two at once: %+v", seed, i, f)
			}
			if f := p.Barred("x", live[1].Boot); f == nil || f.Kind != FindingTwo {
				t.Fatalf("seed %d: peer %d: the second of two: %+v", seed, i, f)
			}
		}
		// The operator has decided: stopped all but one, and moved that one.
		moved := Run{Boot: NewBoot(), Claim: 1, Start: disk}
		peers[0].Met("x", moved, clock(), "")
		peers[1].Learn(peers[0].Notes(), everyone)
		for i, p := range peers[:2] {
			if f := p.Barred("x", moved.Boot); f != nil {
				t.Fatalf("seed %d: peer %d: moved here: %+v", seed, i, f)
			}
			if f := p.Barred("x", live[0].Boot); f == nil || f.Kind != FindingMoved {
				t.Fatalf("seed %d: peer %d: the one before: %+v", seed, i, f)
			}
		}
	}
}

func TestOwnIdentityElsewhere(t *testing.T) {
	now := time.Hour
	h := New("a", Run{Boot: NewBoot()}, func() time.Duration { now++; return now }, func() {})
	h.Met("a", Run{Boot: NewBoot()}, now+1, "")
	if f := h.Barred("a", h.Run.Boot); f == nil || f.Kind != FindingTwo {
		t.Errorf("a handshake with another process of this node: %+v", f)
	}
	// Another node has seen one that was there before this one: that is a restart.
	h = New("a", Run{Boot: NewBoot()}, func() time.Duration { now++; return now }, func() {})
	peer := New("b", Run{Boot: NewBoot()}, func() time.Duration { now++; return now }, func() {})
	peer.Met("a", Run{Boot: NewBoot()}, now+1, "")
	h.Learn(peer.Notes(), func(string) bool { return true })
	now++
	peer.Met("a", h.Run, now, "")
	peer.Learn(h.Notes(), func(string) bool { return true })
	h.Learn(peer.Notes(), func(string) bool { return true })
	if f := h.Findings(); len(f) > 0 {
		t.Errorf("restarted: %+v", f)
	}
	if f := peer.Findings(); len(f) > 0 {
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
		h := New("b", Run{Boot: NewBoot()}, clock, func() {})
		h.Met("a", Run{Boot: NewBoot()}, clock(), "")
		h.Acknowledged("a", "", Position{Index: 100})
		h.Acknowledged("a", "", Position{Term: 7})
		run := Run{Boot: NewBoot(), Start: tt.start}
		h.Met("a", run, clock(), "")
		f := h.Barred("a", run.Boot)
		if (f != nil) != tt.back || f != nil && f.Kind != FindingBack {
			t.Errorf("%s: %+v", tt.name, f)
		}
		// Those who did not know are told, the node itself first.
		self := New("a", run, clock, func() {})
		self.Learn(h.Notes(), func(string) bool { return true })
		if f := self.Barred("a", run.Boot); (f != nil) != tt.back {
			t.Errorf("%s: at the node itself: %+v", tt.name, f)
		}
	}
}

// A run that is heard of late may have ended long ago: what the node says now is not of it.
func TestAnswersAreOfTheRunThatGaveThem(t *testing.T) {
	now := time.Hour
	clock := func() time.Duration { now++; return now }
	everyone := func(string) bool { return true }
	peer := func() *Holders { return New("p", Run{Boot: NewBoot()}, clock, func() {}) }
	before := Run{Boot: NewBoot(), Start: Position{6, 80}}
	current := Run{Boot: NewBoot(), Start: Position{7, 100}}
	knows := peer()
	knows.Met("a", before, clock(), "")
	h := peer()
	h.Met("a", current, clock(), "")
	h.Learn(knows.Notes(), everyone)
	h.Acknowledged("a", "", Position{8, 120}) // an answer that was under way
	h.Lost("a")
	h.Met("a", current, clock(), "")
	if f := h.Barred("a", current.Boot); f != nil {
		t.Errorf("it has all that it had: %+v", f)
	}
	// And what is known to be of the present one counts.
	h.Acknowledged("a", "", Position{8, 130})
	h.Met("a", Run{Boot: NewBoot(), Start: Position{8, 129}}, clock(), "")
	if f := h.Barred("a", ""); f == nil || f.Kind != FindingBack {
		t.Errorf("it has lost an entry: %+v", f)
	}
}

func TestRunText(t *testing.T) {
	want := Run{Boot: NewBoot(), Claim: 3, Start: Position{4, 5}}
	if got, ok := ParseRun(want.Text()); !ok || got != want {
		t.Errorf("got %+v", got)
	}
	for _, bad := range []string{"", "x", "0123456789abcdef", "0123456789abcdef.1.2", "0123456789ABCDEF.1.2.3", "0123456789abcdef.-1.2.3", "0123456789abcdef.1.2.3.4", "0123456789abcdef.1.2.99999999999999999999"} {
		if _, ok := ParseRun(bad); ok {
			t.Errorf("%q: read", bad)
		}
	}
}

func FuzzLearn(f *testing.F) {
	f.Add("a", "0123456789abcdef", uint64(1), "fedcba9876543210", uint64(7))
	f.Fuzz(func(t *testing.T, id, boot string, claim uint64, after string, index uint64) {
		h := New("a", Run{Boot: NewBoot()}, func() time.Duration { return time.Hour }, func() {})
		note := map[string]IdentityNote{id: {Runs: []HolderNote{{Run: Run{Boot: boot, Claim: claim}, Acknowledged: Position{Index: index}, After: []string{after, boot}}}}}
		for range 3 {
			h.Learn(note, func(string) bool { return true })
			h.Findings()
			h.Barred(id, boot)
		}
		for id, n := range h.Notes() {
			if len(n.Runs) > maxRuns {
				t.Errorf("%q: %d runs", id, len(n.Runs))
			}
		}
	})
}

package cluster

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// Peers meet the runs of one node, and tell one another. However the handshakes and
// the notes follow one another, runs that follow one another are never taken for two
// holders, and two that live at the same time are found once both have spoken after
// the other was known.
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
		// A handshake begins, and is complete after something else has happened.
		type handshake struct {
			at    *holders
			begun time.Duration
		}
		live := []Run{{Boot: newBoot()}}
		meet := func() {
			h := handshake{peers[rng.IntN(3)], clock()}
			run := live[rng.IntN(len(live))]
			if rng.IntN(3) == 0 {
				tell()
			}
			h.at.met("x", run, h.begun, "")
		}
		for range 40 {
			switch rng.IntN(4) {
			case 0:
				tell()
			case 1:
				if rng.IntN(4) == 0 {
					live = []Run{{Boot: newBoot()}} // restarted
				}
			default:
				meet()
			}
		}
		for i, p := range peers {
			for _, f := range p.findings() {
				t.Fatalf("seed %d: peer %d: %+v of runs that follow one another", seed, i, f)
			}
		}
		live = append(live, Run{Boot: newBoot()})
		for range 200 {
			meet()
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
		moved := Run{Boot: newBoot(), Claim: 1}
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

func TestDivergedStatesAreFound(t *testing.T) {
	same := func() *stateMachine { return newStateMachine(newBroadcast(), testLog(t, "fsm")) }
	a, b := same(), same()
	a.kept.self, b.kept.self = "a", "b"
	put := func(m *stateMachine, index uint64, name string) {
		s, err := m.state.Load().apply(Command{PutNode: &NodeRecord{ID: name, Name: name}, Found: nil}, index)
		if err != nil {
			t.Fatal(err)
		}
		m.state.Store(s)
		m.kept.keep(index, s)
	}
	for _, m := range []*stateMachine{a, b} {
		s, err := m.state.Load().apply(Command{Found: &Founding{ClusterID: "c", Node: NodeRecord{ID: "a", Name: "a"}, Heartbeat: time.Second}}, 1)
		if err != nil {
			t.Fatal(err)
		}
		m.state.Store(s)
		m.kept.keep(1, s)
	}
	put(a, 2, "x")
	index, sum := a.kept.newest()
	if b.kept.compare("a", "a", index, sum) || len(b.kept.findings()) > 0 {
		t.Error("an entry that is not here yet is a difference")
	}
	put(b, 2, "x")
	if b.kept.compare("a", "a", index, sum) {
		t.Error("equal states differ")
	}
	put(a, 3, "y")
	put(b, 3, "z")
	index, sum = a.kept.newest()
	put(b, 4, "w") // and it has gone on
	if !b.kept.compare("a", "a", index, sum) || len(b.kept.findings()) != 1 || b.kept.compare("a", "a", index, sum) {
		t.Error("states that differ are no news, once")
	}
}

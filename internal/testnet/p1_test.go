package testnet

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	vipA = netip.MustParseAddr("10.99.0.100")
	vipB = netip.MustParseAddr("fd00:99::100")
)

const ms = time.Millisecond

// timeline makes answers out of text: one letter for each probe that was
// answered, the holder; "." for none, "(ab)" for two answers to one probe.
func timeline(s string, withProbes bool) []Answer {
	var as []Answer
	var probe uint64
	var group bool
	var inGroup time.Duration
	for _, c := range s {
		switch c {
		case ' ':
			continue
		case '(':
			group, inGroup = true, 0
			probe++
			continue
		case ')':
			group = false
			continue
		}
		if !group {
			probe++
		}
		if c == '.' {
			continue
		}
		a := Answer{At: time.Duration(probe)*ms + inGroup, VIP: vipA, Holder: string(c)}
		if group {
			inGroup += 30 * time.Microsecond
		}
		if withProbes {
			a.Probe = probe
		}
		as = append(as, a)
	}
	return as
}

func TestCheckP1(t *testing.T) {
	tests := []struct {
		name, line string
		violations int
		overlap    time.Duration
	}{
		{"nobody", "......", 0, 0},
		{"one holder", "aaaaaa", 0, 0},
		{"one holder, lost probes", "aa..a.aa...aa", 0, 0},
		{"clean change with a pause", "aaa...bbb", 0, 0},
		{"clean change without a pause", "aaabbb", 0, 0},
		{"there and back", "aaabbbaaa", 0, 0},
		{"there and back, two probes", "aaabbaaa", 0, 0},
		{"back after a pause", "aaa..b..aaa", 0, 0},
		{"three owners in turn", "aabbccaabbcc", 0, 0},

		{"both answer one probe", "aaa(ab)bbb", 1, 30 * time.Microsecond},
		{"both answer one probe, other order", "aaa(ba)bbb", 1, 30 * time.Microsecond},
		{"only one probe, both answer", "...(ab)...", 1, 30 * time.Microsecond},
		{"both answer for a while", "aa(ab)(ab)(ab)(ab)bb", 1, 3*ms - 30*time.Microsecond},
		{"both answer all the time", "(ab)(ab)(ab)", 1, 2 * ms},
		{"one stray answer within a run", "aaabaaa", 1, 0},
		{"in turn", "ababab", 1, 3 * ms},
		{"two separate overlaps", "a(ab)a......b(ab)b", 2, 0},
		{"three at once", "(abc)(abc)", 3, 0},
		{"one holds on, another comes twice", "a(ab)aaaa(ab)a", 2, 0},
	}
	for _, tt := range tests {
		for _, probes := range []bool{false, true} {
			as := timeline(tt.line, probes)
			rep := CheckP1(as, ms)
			if len(rep.Violations) != tt.violations {
				t.Errorf("%s, probes known %v: %q: %d violations, want %d: %v", tt.name, probes, tt.line, len(rep.Violations), tt.violations, rep.Violations)
			}
			if (rep.Err() != nil) != (tt.violations > 0) {
				t.Errorf("%s: Err %v", tt.name, rep.Err())
			}
			if tt.overlap > 0 && (rep.Overlap-tt.overlap).Abs() > 40*time.Microsecond {
				t.Errorf("%s, probes known %v: %q: overlap %v, want %v", tt.name, probes, tt.line, rep.Overlap, tt.overlap)
			}
			// The order of the answers must not matter.
			rand.Shuffle(len(as), func(i, j int) { as[i], as[j] = as[j], as[i] })
			if again := CheckP1(as, ms); len(again.Violations) != len(rep.Violations) || again.Overlap != rep.Overlap {
				t.Errorf("%s: shuffled: %v, want %v", tt.name, again.Violations, rep.Violations)
			}
		}
	}
}

func TestCheckP1ViolationIsExact(t *testing.T) {
	rep := CheckP1(timeline("aaaa(ab)(ab)(ab)bbbb", true), ms)
	if len(rep.Violations) != 1 {
		t.Fatalf("got %v", rep.Violations)
	}
	v := rep.Violations[0]
	// First answer of b: probe 5. Last answer of a: probe 7.
	if v.VIP != vipA || v.Holders != [2]string{"a", "b"} || v.From != 5*ms+30*time.Microsecond || v.To != 7*ms {
		t.Errorf("got %+v", v)
	}
	if rep.Answers[vipA]["a"] != 7 || rep.Answers[vipA]["b"] != 7 {
		t.Errorf("counts %v", rep.Answers)
	}
	if err := rep.Err(); !strings.Contains(err.Error(), "10.99.0.100: a and b") {
		t.Errorf("got %v", err)
	}
}

// A change between two probes that were sent late and are close together is
// clean if the questions are known to be different, and cannot be told from an
// overlap if not.
func TestCheckP1CloseProbes(t *testing.T) {
	as := []Answer{
		{At: 10 * ms, VIP: vipA, Holder: "a", Probe: 10},
		{At: 10*ms + 200*time.Microsecond, VIP: vipA, Holder: "b", Probe: 11},
	}
	if rep := CheckP1(as, ms); rep.Err() != nil {
		t.Errorf("different questions: %v", rep.Err())
	}
	as[1].Probe = 0
	if rep := CheckP1(as, ms); rep.Err() == nil {
		t.Error("questions not known: no violation")
	}
	// An answer delayed on the way is still to the same question.
	as[1].Probe, as[1].At = 10, 14*ms
	if rep := CheckP1(as, ms); rep.Err() == nil {
		t.Error("late answer to the same question: no violation")
	}
}

// An observer that stalls asks nothing meanwhile. The overlap goes on through the
// stall if both answer the questions before and after; a move is not made an
// overlap by it.
func TestCheckP1ObserverStalls(t *testing.T) {
	stalled := func(line string) []Answer {
		as := timeline(line, true)
		for i := range as {
			if as[i].Probe > 4 {
				as[i].At += 40 * ms
			}
		}
		return as
	}
	if rep := CheckP1(stalled("(ab)(ab)(ab)(ab) (ab)(ab)(ab)"), ms); len(rep.Violations) != 1 || rep.Overlap < 45*ms {
		t.Errorf("both hold: %v", rep.Violations)
	}
	if rep := CheckP1(stalled("aaaa bbbb"), ms); rep.Err() != nil {
		t.Errorf("move: %v", rep.Err())
	}
	if rep := CheckP1(stalled("aaab bbaa"), ms); rep.Err() != nil {
		t.Errorf("there and back: %v", rep.Err())
	}
}

func TestCheckP1AddressesApart(t *testing.T) {
	as := timeline("aaaaaa", true)
	for _, a := range timeline("bbbbbb", true) {
		a.VIP = vipB
		as = append(as, a)
	}
	if rep := CheckP1(as, ms); rep.Err() != nil {
		t.Errorf("two addresses, two holders: %v", rep.Err())
	}
}

// Answers to different questions can still overlap: a answered after b had.
func TestCheckP1LateAnswer(t *testing.T) {
	as := timeline("aaaaabbbbb", true)
	as[4].At += 1200 * time.Microsecond // to probe 5, later than b's to probe 6
	if rep := CheckP1(as, ms); len(rep.Violations) != 1 || rep.Overlap != 200*time.Microsecond {
		t.Errorf("got %v", rep.Violations)
	}
}

func TestCheckP1OverlapIsCountedOnce(t *testing.T) {
	if got := CheckP1(timeline("(abc)(abc)(abc)(abc)", true), ms).Overlap; got < 3*ms || got > 3*ms+100*time.Microsecond {
		t.Errorf("three holders for 3 ms: overlap %v", got)
	}
}

func TestCheckHolds(t *testing.T) {
	h := func(holder string, from, to int) Hold {
		return Hold{VIP: vipA, Holder: holder, From: time.Duration(from) * ms, To: time.Duration(to) * ms}
	}
	tests := []struct {
		name       string
		holds      []Hold
		violations int
		overlap    time.Duration
	}{
		{"none", nil, 0, 0},
		{"one after another", []Hold{h("a", 0, 10), h("b", 10, 20), h("a", 20, 30)}, 0, 0},
		{"one instant too early", []Hold{h("a", 0, 10), h("b", 9, 20)}, 1, ms},
		{"inside", []Hold{h("a", 0, 100), h("b", 40, 50), h("c", 60, 65)}, 2, 15 * ms},
		{"a long one, then many", []Hold{h("a", 0, 100), h("a", 1, 2), h("a", 3, 4), h("b", 99, 101)}, 1, ms},
		{"same holder twice", []Hold{h("a", 0, 10), h("a", 5, 20)}, 0, 0},
		{"empty hold", []Hold{h("a", 0, 10), h("b", 5, 5)}, 0, 0},
	}
	for _, tt := range tests {
		rep := CheckHolds(tt.holds)
		if len(rep.Violations) != tt.violations || rep.Overlap != tt.overlap {
			t.Errorf("%s: %v, overlap %v; want %d and %v", tt.name, rep.Violations, rep.Overlap, tt.violations, tt.overlap)
		}
	}
}

func TestHoldChecker(t *testing.T) {
	var c HoldChecker
	if rep := c.Check(0); rep.Err() != nil {
		t.Fatal(rep.Err())
	}
	c.Begin(1*ms, vipA, "a")
	c.Begin(1*ms, vipB, "b")
	c.Begin(5*ms, vipA, "b") // said before a has ended, at the same instant
	c.End(5*ms, vipA, "a")
	if rep := c.Check(6 * ms); rep.Err() != nil {
		t.Fatalf("change at one instant: %v", rep.Err())
	}
	c.Begin(8*ms, vipA, "a")
	if rep := c.Check(8 * ms); rep.Err() != nil {
		t.Fatalf("nothing has lasted yet: %v", rep.Err())
	}
	if rep := c.Check(10 * ms); len(rep.Violations) != 1 || rep.Overlap != 2*ms {
		t.Fatalf("not over: %v", rep.Violations)
	}
	c.EndAll(12*ms, "b")
	rep := c.Check(20 * ms)
	if len(rep.Violations) != 1 || rep.Violations[0] != (Violation{VIP: vipA, Holders: [2]string{"a", "b"}, From: 8 * ms, To: 12 * ms}) {
		t.Fatalf("over: %v", rep.Violations)
	}
}

// Both forms of the judgement agree on random histories.
func TestHoldCheckerAgreesWithCheckHolds(t *testing.T) {
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(os.Getenv("RAFTVIP_SEED"), 10, 64); err == nil {
		seed = s
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		var c HoldChecker
		var holds []Hold
		since := map[string]time.Duration{}
		now := time.Duration(0)
		for range 30 {
			now += time.Duration(rng.IntN(3)) * ms
			h := string(rune('a' + rng.IntN(3)))
			if from, ok := since[h]; ok {
				c.End(now, vipA, h)
				holds = append(holds, Hold{VIP: vipA, Holder: h, From: from, To: now})
				delete(since, h)
			} else {
				c.Begin(now, vipA, h)
				since[h] = now
			}
		}
		for h, from := range since {
			holds = append(holds, Hold{VIP: vipA, Holder: h, From: from, To: now})
		}
		got, want := c.Check(now), CheckHolds(holds)
		if got.Overlap != want.Overlap || len(got.Violations) != len(want.Violations) {
			t.Fatalf("RAFTVIP_SEED=%d: checker %v %v, holds %v %v", seed, got.Overlap, got.Violations, want.Overlap, want.Violations)
		}
	}
}

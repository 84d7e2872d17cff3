package policy

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// seed returns the seed of a random test, from RAFTVIP_SEED if set.
func seed(t *testing.T) uint64 {
	s := rand.Uint64()
	if v := os.Getenv("RAFTVIP_SEED"); v != "" {
		var err error
		if s, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("RAFTVIP_SEED: %v", err)
		}
	}
	t.Logf("RAFTVIP_SEED=%d", s)
	return s
}

func randomNode(r *rand.Rand, id string) Node {
	rare := func() bool { return r.IntN(6) == 0 }
	n := Node{
		ID: id, Voter: !rare(), Connected: !rare(), CaughtUp: !rare(), Ready: !rare(),
		Witness: rare(), Drained: rare(), Degraded: rare(), NoPreempt: rare(), Held: rare(),
		Priority:  98 + r.IntN(5),
		ReportAge: time.Duration(r.IntN(4000)) * ms,
	}
	if rare() {
		n.Faults = []string{"script chk failed (exited with status 1)"}
	}
	if rare() {
		n.Take = Take{Wanted: 4, Missing: 1 + r.IntN(3), Reason: "x"}
	}
	if rare() {
		n.PreemptDelay = time.Duration(r.IntN(8)) * sec
	}
	return n
}

// TestRandomSteps walks through random inputs and asserts what must hold of each
// single decision.
func TestRandomSteps(t *testing.T) {
	r := rand.New(rand.NewPCG(seed(t), 1))
	transfers := 0
	for range 2000 {
		var s State
		var now time.Duration
		owner := "n0"
		for range 30 {
			var nodes []Node
			for i := range 1 + r.IntN(5) {
				nodes = append(nodes, randomNode(r, fmt.Sprint("n", i)))
			}
			owning := r.IntN(3) > 0
			var d Decision
			s, d = Step(s, now, owner, owning, nodes)
			now += time.Duration(r.IntN(3000)) * ms
			var self, to Node
			for _, n := range nodes {
				if n.ID == owner {
					self = n
					self.Self = true
				}
				if n.ID == d.To {
					to = n
				}
			}
			if d.NextCheck <= 0 || d.Reason == "" || d.Transfer != (d.To != "") || d.Transfer && d.Release {
				t.Fatalf("malformed decision %+v", d)
			}
			if d.Release && self.barred() == "" && (self.Ready || owning) {
				t.Fatalf("released although %+v may own", self)
			}
			if !d.Transfer {
				continue
			}
			transfers++
			if ok, why := Eligible(to); !ok || to.ID == owner {
				t.Fatalf("transfer to %s, which %s: %+v", to.ID, why, d)
			}
			if ok, _ := Eligible(self); ok && (to.Take.Missing > self.Take.Missing || to.Take.Missing == self.Take.Missing && to.Priority <= self.Priority) {
				t.Fatalf("transfer to a node that is not better: %+v\nself %+v\nto %+v", d, self, to)
			}
			if ok, _ := Eligible(self); ok && owning && !self.Degraded && (to.NoPreempt || to.Held) && to.Take.Missing == self.Take.Missing {
				t.Fatalf("nopreempt was not respected: %+v", d)
			}
			if r.IntN(2) == 0 {
				owner = d.To
			}
		}
	}
	if transfers < 1000 {
		t.Errorf("only %d transfers: the test tests nothing", transfers)
	}
}

// TestRandomSettles carries decisions out with constant inputs: after few moves
// nothing moves any more, and no two nodes play ping-pong.
func TestRandomSettles(t *testing.T) {
	r := rand.New(rand.NewPCG(seed(t), 2))
	moved := 0
	for range 5000 {
		var nodes []Node
		for i := range 2 + r.IntN(4) {
			n := randomNode(r, fmt.Sprint("n", i))
			n.ReportAge = time.Duration(r.IntN(3)) * sec
			nodes = append(nodes, n)
		}
		var s State
		owner := "n0"
		var path []string
		for now := time.Duration(0); now < time.Minute; {
			owning := false
			for _, n := range nodes {
				if n.ID == owner {
					owning = n.barred() == "" && n.Ready
				}
			}
			var d Decision
			s, d = Step(s, now, owner, owning, nodes)
			now += d.NextCheck
			if d.Transfer {
				path = append(path, owner)
				owner = d.To
				moved++
			}
		}
		seen := map[string]bool{owner: true}
		for _, id := range path {
			if seen[id] {
				t.Fatalf("%s owned twice with constant inputs: %v, %s\n%+v", id, path, owner, nodes)
			}
			seen[id] = true
		}
	}
	if moved < 1000 {
		t.Errorf("only %d moves: the test tests nothing", moved)
	}
}

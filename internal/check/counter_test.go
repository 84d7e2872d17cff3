package check

import "testing"

// TestCounter has the sentences of keepalived's rise and fall. A result is s or
// f, the state after it + (OK) or - (KO).
func TestCounter(t *testing.T) {
	for _, tt := range []struct {
		name       string
		rise, fall int
		results    string
		states     string // + or -, one for each result
		changes    string // x where the result changed the state or made it known
	}{
		{"the first success makes it OK whatever rise is", 3, 3, "s", "+", "x"},
		{"the first failure makes it KO whatever fall is", 3, 3, "f", "-", "x"},
		{"fall failures are needed later", 3, 3, "sfff", "+++-", "x..x"},
		{"rise successes are needed later", 3, 3, "fsss", "---+", "x..x"},
		{"fall 3, fails from the start: KO at once, recovery needs 3, failure needs 3", 3, 3, "fsssfff", "---+++-", "x..x..x"},
		{"a single success while OK resets the fall side", 2, 2, "sfsfsff", "++++++-", "x.....x"},
		{"a single failure while KO resets the rise side", 2, 2, "fsfsfss", "------+", "x.....x"},
		{"success at OK resets however often", 1, 3, "ssssffsfff", "+++++++++-", "x........x"},
		{"defaults: each result decides", 1, 1, "sfsf", "+-+-", "xxxx"},
		{"numbers below 1 are 1", 0, -1, "sfs", "+-+", "xxx"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCounter(tt.rise, tt.fall)
			if c.ok || c.known {
				t.Fatal("OK or known before the first result")
			}
			states, changes := "", ""
			for _, r := range tt.results {
				if c.add(r == 's') {
					changes += "x"
				} else {
					changes += "."
				}
				if c.ok {
					states += "+"
				} else {
					states += "-"
				}
			}
			if states != tt.states || changes != tt.changes {
				t.Errorf("results %s: states %s changes %s, want %s %s", tt.results, states, changes, tt.states, tt.changes)
			}
		})
	}
}

func TestCounterLimitsChange(t *testing.T) {
	c := newCounter(1, 5)
	c.add(true)
	for range 4 {
		c.add(false)
	}
	c.setLimits(1, 2)
	if !c.ok {
		t.Fatal("a smaller fall alone changed the state")
	}
	if c.add(false); c.ok {
		t.Error("still OK after another failure with a smaller fall")
	}
	c = newCounter(1, 1)
	c.setLimits(4, 4)
	if c.add(true); !c.ok {
		t.Error("the first success does not make it OK after a change of rise")
	}
}

package policy

import (
	"strings"
	"testing"
	"time"
)

const (
	sec = time.Second
	ms  = time.Millisecond
)

// node returns a healthy node with a report that is 200 ms old.
func node(id string, priority int, change ...func(*Node)) Node {
	n := Node{
		ID: id, Voter: true, Connected: true, CaughtUp: true, Ready: true,
		Priority: priority, ReportAge: 200 * ms,
	}
	for _, c := range change {
		c(&n)
	}
	return n
}

func faulty(reasons ...string) func(*Node) { return func(n *Node) { n.Faults = reasons } }
func aged(d time.Duration) func(*Node)     { return func(n *Node) { n.ReportAge = d } }
func lowered(why string) func(*Node)       { return func(n *Node) { n.Lowered = why } }
func delayed(d time.Duration) func(*Node)  { return func(n *Node) { n.PreemptDelay = d } }

func drained(n *Node)      { n.Drained = true }
func witness(n *Node)      { n.Witness = true }
func degraded(n *Node)     { n.Degraded = true }
func settling(n *Node)     { n.Settling = "has heard nobody yet on eth0" }
func noPreempt(n *Node)    { n.NoPreempt = true }
func held(n *Node)         { n.Held = true }
func unready(n *Node)      { n.Ready = false }
func notVoter(n *Node)     { n.Voter = false }
func disconnected(n *Node) { n.Connected = false }
func behind(n *Node)       { n.CaughtUp = false }

func TestEligible(t *testing.T) {
	const chk = "script chk_lb failed (exited with status 1)"
	for _, tt := range []struct {
		name string
		node Node
		why  string
	}{
		{"healthy", node("a", 100), ""},
		{"witness never owns", node("a", 100, witness), "is a witness"},
		{"drained does not own", node("a", 100, drained), "is drained"},
		{"fault does not own", node("a", 100, faulty(chk)), "fault: " + chk},
		{"all faults are named", node("a", 100, faulty("x", "y")), "fault: x, y"},
		{"a non-voter cannot lead", node("a", 100, notVoter), "is not a voter"},
		{"not connected", node("a", 100, disconnected), "is not connected"},
		{"not caught up", node("a", 100, behind), "has not caught up with the log"},
		{"checks without result", node("a", 100, unready), "waits for the first result of its checks"},
		{"report of 3 s is believed", node("a", 100, aged(3*sec)), ""},
		{"older report is not", node("a", 100, aged(3100*ms)), "last report is 3.1s old"},
		{"a weighted failure does not make ineligible", node("a", 1, degraded), ""},
		{"oneself is always current", Node{ID: "a", Self: true, Ready: true, ReportAge: time.Hour}, ""},
		{"oneself can be barred", Node{ID: "a", Self: true, Ready: true, Drained: true}, "is drained"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ok, why := Eligible(tt.node)
			if why != tt.why || ok != (tt.why == "") {
				t.Errorf("Eligible = %v, %q; want %q", ok, why, tt.why)
			}
		})
	}
}

func TestRank(t *testing.T) {
	for _, tt := range []struct {
		name  string
		owner string
		nodes []Node
		want  string
	}{
		{"highest priority first", "", []Node{node("a", 100), node("b", 102), node("c", 101)}, "b c a"},
		{"ties: owner first", "c", []Node{node("a", 100), node("b", 100), node("c", 100)}, "c a b"},
		{"ties: then by ID", "", []Node{node("c", 100), node("a", 100), node("b", 100)}, "a b c"},
		{"the owner is not favoured otherwise", "c", []Node{node("a", 101), node("c", 100)}, "a c"},
		{"only eligible ones", "", []Node{node("a", 100, drained), node("b", 90)}, "b"},
		{"nobody", "", []Node{node("a", 100, drained)}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(Rank(tt.nodes, tt.owner), " "); got != tt.want {
				t.Errorf("Rank = %q, want %q", got, tt.want)
			}
		})
	}
}

// TestStep has one case for each sentence of the rules. The leader is "a", owns,
// and has led for an hour unless the case says otherwise.
func TestStep(t *testing.T) {
	const chk = "script chk_lb failed (exited with status 1)"
	for _, tt := range []struct {
		name     string
		idle     bool          // the leader does not own
		led      time.Duration // 0: an hour
		nodes    []Node
		transfer string // node handed to
		release  bool
		reason   string
	}{
		// Rule 1.
		{name: "fault: to the best eligible, at once", nodes: []Node{node("a", 107, faulty(chk)), node("b", 100), node("c", 106)},
			transfer: "c", reason: "fault of a: " + chk + "; best eligible c with priority 106"},
		{name: "fault: nopreempt and preempt_delay do not matter", nodes: []Node{node("a", 107, faulty(chk)), node("b", 100, noPreempt, delayed(time.Hour))},
			transfer: "b", reason: "fault of a: " + chk + "; best eligible b with priority 100"},
		{name: "drained: hand over", nodes: []Node{node("a", 107, drained), node("b", 100)},
			transfer: "b", reason: "a is drained; best eligible b with priority 100"},
		{name: "witness: hand over", idle: true, nodes: []Node{node("a", 107, witness), node("b", 100)},
			transfer: "b", reason: "a is a witness; best eligible b with priority 100"},
		{name: "fault, nobody eligible: release", nodes: []Node{node("a", 107, faulty(chk)), node("b", 100, faulty("x"))},
			release: true, reason: "fault of a: " + chk + "; no other node is eligible"},
		{name: "drained, nobody eligible: release", nodes: []Node{node("a", 107, drained), node("w", 100, witness)},
			release: true, reason: "a is drained; no other node is eligible"},
		{name: "witness, nobody eligible: release", nodes: []Node{node("a", 107, witness)},
			release: true, reason: "a is a witness; no other node is eligible"},
		{name: "a fault before checks are ready counts", nodes: []Node{node("a", 107, faulty("interface eth0 is down"), unready), node("b", 100)},
			transfer: "b", reason: "fault of a: interface eth0 is down; best eligible b with priority 100"},

		// Rule 2.
		{name: "not ready, owning: stay", nodes: []Node{node("a", 101, unready), node("b", 106)},
			reason: "a waits for the first result of its checks"},
		{name: "not ready, owning nothing: do not own", idle: true, led: 10 * ms, nodes: []Node{node("a", 101, unready), node("b", 106, aged(0))},
			release: true, reason: "a waits for the first result of its checks"},
		{name: "not ready, owning nothing, after the grace: hand over", idle: true, led: ReadyGrace, nodes: []Node{node("a", 101, unready), node("b", 90)},
			transfer: "b", reason: "a waits for the first result of its checks; best eligible b with priority 90"},
		{name: "not ready, owning nothing, nobody else: do not own", idle: true, led: time.Minute, nodes: []Node{node("a", 101, unready), node("b", 106, unready)},
			release: true, reason: "a waits for the first result of its checks; no other node is eligible"},

		// Rule 3.
		{name: "strictly better: hand over", nodes: []Node{node("a", 101), node("b", 106)},
			transfer: "b", reason: "b has priority 106, higher than 101 of a"},
		{name: "strictly better, as a check of the owner fails: it is named", nodes: []Node{node("a", 101, degraded, lowered("chk_lb failing: 107 to 101")), node("b", 106)},
			transfer: "b", reason: "b has priority 106, higher than 101 of a (chk_lb failing: 107 to 101)"},
		{name: "an operator moved the addresses here: that is no nopreempt", nodes: []Node{node("a", 101), node("b", 106, held)},
			reason: "b has priority 106, higher than 101 of a, but an operator moved the addresses to a: they stay until a check fails or the next move"},
		{name: "an operator moved the addresses here, and a check fails", nodes: []Node{node("a", 101, degraded), node("b", 106, held)},
			transfer: "b", reason: "b has priority 106, higher than 101 of a"},
		{name: "the best of several", nodes: []Node{node("a", 101), node("b", 106), node("c", 110)},
			transfer: "c", reason: "c has priority 110, higher than 101 of a"},
		{name: "names are used where known", nodes: []Node{node("a", 101, func(n *Node) { n.Name = "lb1" }), node("b", 106, func(n *Node) { n.Name = "lb2" })},
			transfer: "b", reason: "lb2 has priority 106, higher than 101 of lb1"},
		{name: "preempt_delay has not passed", nodes: []Node{node("a", 101), node("b", 106, delayed(10*sec))},
			reason: "b has priority 106, higher than 101 of a, but must wait 10s more (preempt_delay 10s)"},
		{name: "the next best need not wait", nodes: []Node{node("a", 101), node("b", 106, delayed(10*sec)), node("c", 103)},
			transfer: "c", reason: "c has priority 103, higher than 101 of a"},

		// Rule 4.
		{name: "nopreempt: stay while healthy", nodes: []Node{node("a", 101), node("b", 106, noPreempt)},
			reason: "b has priority 106, higher than 101 of a, but has nopreempt"},
		{name: "nopreempt is a matter of the candidate", nodes: []Node{node("a", 101, noPreempt), node("b", 106)},
			transfer: "b", reason: "b has priority 106, higher than 101 of a"},
		{name: "nopreempt does not protect a failing owner", nodes: []Node{node("a", 101, degraded), node("b", 106, noPreempt)},
			transfer: "b", reason: "b has priority 106, higher than 101 of a"},
		{name: "preempt_delay does not protect a failing owner", nodes: []Node{node("a", 101, degraded), node("b", 106, delayed(time.Hour))},
			transfer: "b", reason: "b has priority 106, higher than 101 of a"},
		{name: "nopreempt does not hold if nobody owns", idle: true, nodes: []Node{node("a", 101), node("b", 106, noPreempt)},
			transfer: "b", reason: "b has priority 106, higher than 101 of a"},
		{name: "a better one without nopreempt does not wait for one with", nodes: []Node{node("a", 101), node("b", 106, noPreempt), node("c", 103)},
			transfer: "c", reason: "c has priority 103, higher than 101 of a"},

		// Rule 5.
		{name: "equal is not better", nodes: []Node{node("b", 100), node("a", 100)},
			reason: "no eligible node is better than a with priority 100"},
		{name: "a failing owner stays if nobody is better", nodes: []Node{node("a", 101, degraded), node("b", 100)},
			reason: "no eligible node is better than a with priority 101"},
		{name: "a failing owner with equals stays", nodes: []Node{node("a", 100, degraded), node("b", 100, degraded)},
			reason: "no eligible node is better than a with priority 100"},
		{name: "weighted failures never release", nodes: []Node{node("a", 1, degraded)},
			reason: "no eligible node is better than a with priority 1"},

		// Who can be handed to.
		{name: "not to one whose link has just come up", nodes: []Node{node("a", 101), node("b", 106, settling)},
			reason: "b has priority 106, higher than 101 of a, but has heard nobody yet on eth0"},
		{name: "nor from a failing owner", nodes: []Node{node("a", 101, degraded), node("b", 106, settling)},
			reason: "b has priority 106, higher than 101 of a, but has heard nobody yet on eth0"},
		{name: "nor before anybody owns", idle: true, nodes: []Node{node("a", 101), node("b", 106, settling)},
			reason: "b has priority 106, higher than 101 of a, but has heard nobody yet on eth0"},
		{name: "if both links have just come up and nobody owns, priorities decide", idle: true, nodes: []Node{node("a", 101, settling), node("b", 106, settling)},
			transfer: "b", reason: "b has priority 106, higher than 101 of a"},
		{name: "if both links have just come up, the owner stays", nodes: []Node{node("a", 101, settling), node("b", 106, settling)},
			reason: "b has priority 106, higher than 101 of a, but has heard nobody yet on eth0"},
		{name: "the next best need not settle", nodes: []Node{node("a", 101), node("b", 106, settling), node("c", 103)},
			transfer: "c", reason: "c has priority 103, higher than 101 of a"},
		{name: "fault: to one that is reached", nodes: []Node{node("a", 107, faulty(chk)), node("b", 106, settling), node("c", 100)},
			transfer: "c", reason: "fault of a: " + chk + "; best eligible c with priority 100"},
		{name: "fault, and nobody else: at once", nodes: []Node{node("a", 107, faulty(chk)), node("b", 106, settling)},
			transfer: "b", reason: "fault of a: " + chk + "; best eligible b with priority 106"},
		{name: "not to a faulty node", nodes: []Node{node("a", 101), node("b", 106, faulty("x"))}, reason: "no eligible node is better than a with priority 101"},
		{name: "not to a drained node", nodes: []Node{node("a", 101), node("b", 106, drained)}, reason: "no eligible node is better than a with priority 101"},
		{name: "not to a witness", nodes: []Node{node("a", 101), node("b", 106, witness)}, reason: "no eligible node is better than a with priority 101"},
		{name: "not to a non-voter", nodes: []Node{node("a", 101), node("b", 106, notVoter)}, reason: "no eligible node is better than a with priority 101"},
		{name: "not to a disconnected node", nodes: []Node{node("a", 101), node("b", 106, disconnected)}, reason: "no eligible node is better than a with priority 101"},
		{name: "not to one that is behind", nodes: []Node{node("a", 101), node("b", 106, behind)}, reason: "no eligible node is better than a with priority 101"},
		{name: "not on a stale report", nodes: []Node{node("a", 101), node("b", 106, aged(3001*ms))}, reason: "no eligible node is better than a with priority 101"},
		{name: "not before its checks are known", nodes: []Node{node("a", 101), node("b", 106, unready)}, reason: "no eligible node is better than a with priority 101"},
		{name: "not on a report from before this leadership", led: 100 * ms, nodes: []Node{node("a", 101), node("b", 106)}, reason: "no eligible node is better than a with priority 101"},
		{name: "on a report made since", led: 200 * ms, nodes: []Node{node("a", 101), node("b", 106)},
			transfer: "b", reason: "b has priority 106, higher than 101 of a"},

		{name: "a leader that is no member decides nothing", nodes: []Node{node("b", 106)}, reason: "the leader is not a member"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			led := tt.led
			if led == 0 {
				led = time.Hour
			}
			s, _ := Step(State{}, 5*sec, "a", !tt.idle, nil)
			_, d := Step(s, 5*sec+led, "a", !tt.idle, tt.nodes)
			if d.Transfer != (tt.transfer != "") || d.To != tt.transfer || d.Release != tt.release || d.Reason != tt.reason {
				t.Errorf("got  %+v\nwant transfer to %q, release %v, reason %q", d, tt.transfer, tt.release, tt.reason)
			}
			if d.NextCheck <= 0 {
				t.Errorf("NextCheck = %v, want a positive time", d.NextCheck)
			}
		})
	}
}

// TestPreemptDelayCounts: the delay counts from when the node was first seen
// better, and starts again when it has stopped being better.
func TestPreemptDelayCounts(t *testing.T) {
	up := []Node{node("a", 101), node("b", 106, delayed(10*sec))}
	low := []Node{node("a", 101), node("b", 100, delayed(10*sec))}
	gone := []Node{node("a", 101), node("b", 106, delayed(10*sec), disconnected)}
	s, _ := Step(State{}, 0, "a", true, up[:1])
	for _, step := range []struct {
		at    time.Duration
		nodes []Node
		move  bool
		next  time.Duration
	}{
		{1 * sec, up, false, 1 * sec},
		{10 * sec, up, false, 1 * sec},
		{10*sec + 500*ms, up, false, 500 * ms},
		{10*sec + 600*ms, low, false, 1 * sec},
		{11 * sec, up, false, 1 * sec}, // counts anew
		{20 * sec, gone, false, 1 * sec},
		{21 * sec, up, false, 1 * sec}, // and again
		{30*sec + 999*ms, up, false, 1 * ms},
		{31 * sec, up, true, 1 * sec},
	} {
		var d Decision
		s, d = Step(s, step.at, "a", true, step.nodes)
		if d.Transfer != step.move || d.NextCheck != step.next {
			t.Errorf("at %v: %+v, want transfer %v and next check %v", step.at, d, step.move, step.next)
		}
	}
}

// TestStepKeepsItsArgument: a decision is a function of its arguments.
func TestStepKeepsItsArgument(t *testing.T) {
	up := []Node{node("a", 101), node("b", 106, delayed(10*sec))}
	s0, _ := Step(State{}, 0, "a", true, up)
	s1, _ := Step(s0, 1*sec, "a", true, up)
	Step(s1, 2*sec, "a", true, up[:1])
	if _, d := Step(s1, 11*sec, "a", true, up); !d.Transfer {
		t.Errorf("a step in between changed the state it was given: %+v", d)
	}
}

// TestNoPingPongOnOldReport is the story of the freshness rule: a's check fails,
// it hands over to b, and b has not yet heard of the failure.
func TestNoPingPongOnOldReport(t *testing.T) {
	s, _ := Step(State{}, 0, "a", true, nil)
	_, d := Step(s, time.Minute, "a", true, []Node{node("a", 101, degraded), node("b", 106)})
	if d.To != "b" {
		t.Fatalf("the failed check moved nothing: %+v", d)
	}
	before := []Node{node("a", 107, aged(800*ms)), node("b", 106)}
	s, d = Step(State{}, 0, "b", true, before)
	if d.Transfer {
		t.Fatalf("handed back on the old report: %+v", d)
	}
	if d.NextCheck > 100*ms {
		t.Errorf("next check in %v, want soon: a newer report is awaited", d.NextCheck)
	}
	after := []Node{node("a", 101, degraded, aged(0)), node("b", 106)}
	if _, d = Step(s, 20*ms, "b", true, after); d.Transfer {
		t.Fatalf("handed back to the failing node: %+v", d)
	}
	// The check recovers: the new report moves it back.
	if _, d = Step(s, 30*ms, "b", true, []Node{node("a", 107, aged(0)), node("b", 106)}); d.To != "a" {
		t.Fatalf("the recovery moved nothing: %+v", d)
	}
}

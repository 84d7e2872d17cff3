package lease

import (
	"slices"
	"testing"
	"time"
)

const ms = time.Millisecond

func TestLength(t *testing.T) {
	if got := Length(300 * ms); got != 270*ms {
		t.Errorf("got %v", got)
	}
}

func TestUntil(t *testing.T) {
	const now, length = 1000 * ms, 90 * ms
	type acks map[string]time.Duration
	for _, c := range []struct {
		name   string
		self   string
		voters []string
		acks   acks
		want   time.Duration // 0: none
	}{
		{"one voter", "a", []string{"a"}, nil, now + length},
		{"one voter, not self", "a", []string{"b"}, acks{"b": 990 * ms}, 990*ms + length},
		{"one voter, not self, silent", "a", []string{"b"}, nil, 0},
		{"two voters, alone", "a", []string{"a", "b"}, nil, 0},
		{"two voters", "a", []string{"a", "b"}, acks{"b": 990 * ms}, 990*ms + length},
		{"three voters, alone", "a", []string{"a", "b", "c"}, nil, 0},
		{"three voters, one more", "a", []string{"a", "b", "c"}, acks{"b": 980 * ms}, 980*ms + length},
		{"three voters, the newer counts", "a", []string{"a", "b", "c"}, acks{"b": 980 * ms, "c": 995 * ms}, 995*ms + length},
		{"four voters need three", "a", []string{"a", "b", "c", "d"}, acks{"b": 980 * ms}, 0},
		{"five voters need three", "a", []string{"a", "b", "c", "d", "e"}, acks{"b": 990 * ms}, 0},
		{"five voters", "a", []string{"a", "b", "c", "d", "e"}, acks{"b": 990 * ms, "c": 900 * ms, "d": 950 * ms}, 950*ms + length},
		{"leader is no voter", "a", []string{"b", "c", "d"}, acks{"b": 990 * ms}, 0},
		{"leader is no voter, two others", "a", []string{"b", "c", "d"}, acks{"b": 990 * ms, "d": 970 * ms}, 970*ms + length},
		{"who is no voter does not count", "a", []string{"a", "b", "c"}, acks{"x": 999 * ms, "y": 999 * ms}, 0},
		{"a removed voter does not count", "a", []string{"a", "b"}, acks{"c": 999 * ms}, 0},
		{"no voters", "a", nil, acks{"b": 999 * ms}, 0},
		{"no evidence from the future", "a", []string{"a", "b", "c"}, acks{"b": now + time.Hour}, now + length},
	} {
		var l Ledger
		for v, at := range c.acks {
			l.Acknowledge(3, v, at, length)
		}
		if got := l.Until(3, now, c.self, c.voters, length); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestLedgerTerms(t *testing.T) {
	voters := []string{"a", "b", "c"}
	until := func(l *Ledger, term uint64) time.Duration { return l.Until(term, 100*ms, "a", voters, 90*ms) }
	var l Ledger
	l.Acknowledge(3, "b", 50*ms, 90*ms)
	if l.Acknowledge(2, "c", 60*ms, 90*ms) {
		t.Error("evidence of an older term counts")
	}
	if l.Acknowledge(3, "b", 40*ms, 90*ms) {
		t.Error("older evidence counts")
	}
	if got := until(&l, 4); got != 0 {
		t.Errorf("evidence of term 3 in term 4: %v", got)
	}
	l.Acknowledge(4, "c", 70*ms, 90*ms)
	if got := until(&l, 4); got != 160*ms {
		t.Errorf("a new term starts empty: %v, want 160 ms", got)
	}
	if got := until(&l, 3); got != 0 {
		t.Errorf("the old term has a lease: %v", got)
	}
	l.Revoke(4)
	if l.Acknowledge(4, "b", 90*ms, 90*ms) || until(&l, 4) != 0 {
		t.Error("evidence revived a revoked term")
	}
	l.Revoke(2)
	if until(&l, 4) != 0 {
		t.Error("revoking an older term revived a newer one")
	}
	var alone Ledger
	alone.Revoke(5)
	if got := alone.Until(5, 100*ms, "a", []string{"a"}, 90*ms); got != 0 {
		t.Errorf("a lone voter's revoked term has a lease: %v", got)
	}
}

// A changed promise counts only with what was heard under it.
func TestLedgerLengths(t *testing.T) {
	voters := []string{"a", "b", "c"}
	var l Ledger
	until := func(now, length time.Duration) time.Duration { return l.Until(3, now, "a", voters, length) }
	l.Acknowledge(3, "b", 100*ms, 90*ms)
	if got := until(150*ms, 9000*ms); got != 190*ms {
		t.Errorf("evidence of a promise of before it grew: lease until %v, want 190 ms", got)
	}
	l.Acknowledge(3, "b", 160*ms, 9000*ms)
	if got := until(170*ms, 9000*ms); got != 9160*ms {
		t.Errorf("evidence of a promise that has grown: lease until %v, want 9160 ms", got)
	}
	if got := until(170*ms, 90*ms); got != 260*ms {
		t.Errorf("this node itself counts by the shorter one from now on: lease until %v, want 260 ms", got)
	}
	l.Acknowledge(3, "b", 180*ms, 90*ms)
	l.Acknowledge(3, "c", 180*ms, 90*ms)
	five := []string{"b", "d", "e"}
	l.Acknowledge(3, "d", 180*ms, 9000*ms)
	if got := l.Until(3, 190*ms, "x", five, 90*ms); got != 9160*ms {
		t.Errorf("a promise that runs does not end sooner because the next ones are shorter: lease until %v, want 9160 ms", got)
	}
	l.Shorten(90 * ms)
	if got := l.Until(3, 190*ms, "x", five, 90*ms); got != 270*ms {
		t.Errorf("shortened: lease until %v, want 270 ms", got)
	}
	if at, ok := l.Newest(3, "b"); !ok || at != 180*ms {
		t.Errorf("newest evidence %v, want 180 ms", at)
	}
}

func TestLedgerBind(t *testing.T) {
	voters := []string{"a", "b", "c"}
	var l Ledger
	l.Acknowledge(3, "b", 50*ms, 90*ms)
	until := func() time.Duration { return l.Until(3, 200*ms, "a", voters, 90*ms) }
	first := l.Release(3, []string{"b", "c"})
	if until() != 0 || !l.Released(3) {
		t.Error("released, and a lease")
	}
	if l.Acknowledge(3, "b", 60*ms, 90*ms) || until() != 0 {
		t.Error("the acknowledgement of a voter that is free counts")
	}
	second := l.Release(3, []string{"b", "c"})
	if second <= first {
		t.Errorf("releases %d and %d do not grow", first, second)
	}
	if l.Bind(3, first, "b", 70*ms, 90*ms) || until() != 0 {
		t.Error("a voter that took the first release back counts after the second")
	}
	if l.Bind(2, second, "b", 70*ms, 90*ms) || l.Bind(4, second, "b", 70*ms, 90*ms) || l.Bind(3, second, "x", 70*ms, 90*ms) {
		t.Error("bound in another term, or who was never told")
	}
	if seq, who := l.Unbound(3); seq != second || !slices.Equal(who, []string{"b", "c"}) {
		t.Errorf("unbound: %v of release %d", who, seq)
	}
	if !l.Bind(3, second, "b", 80*ms, 90*ms) || until() != 170*ms {
		t.Errorf("bound again: lease until %v, want 170 ms", until())
	}
	if l.Acknowledge(3, "c", 190*ms, 90*ms) || until() != 170*ms {
		t.Error("the other one is still free and counts")
	}
	if !l.Acknowledge(3, "b", 100*ms, 90*ms) || until() != 190*ms {
		t.Error("who is bound again does not count")
	}
	l.Revoke(3)
	if l.Bind(3, second, "c", 190*ms, 90*ms) || until() != 0 {
		t.Error("binding revived a revoked term")
	}
	if _, who := l.Unbound(3); who != nil {
		t.Errorf("%v to be bound in a revoked term", who)
	}
}

func TestPromiseVoted(t *testing.T) {
	const length = 100 * ms
	free := func() Promise { // of what the start of the process and term 3 bound it to
		p := NewPromise(0, length, 3)
		p.Heard(10*ms, 3, "a")
		return p
	}
	p := free()
	if p.Voted(109*ms, 4, "b") {
		t.Error("promised b something while bound to a")
	}
	if !p.Voted(110*ms, 4, "b") || p.Bound(120*ms, "c") != 90*ms || p.Bound(120*ms, "b") > 0 {
		t.Error("voted for b, and is not bound to it for a whole length")
	}
	if p.Voted(300*ms, 4, "c") {
		t.Error("voted twice in a term")
	}
	// b has lost: the winner of that term counts on this voter.
	p.Heard(150*ms, 4, "c")
	if p.Bound(160*ms, "b") <= 0 || p.Bound(160*ms, "c") > 0 {
		t.Error("not bound to the leader of the term")
	}
	p.Heard(170*ms, 4, "b")
	if id, _ := p.Holder(); id != "c" {
		t.Errorf("%s took the promise of the term's leader", id)
	}
	p = free()
	p.Voted(110*ms, 4, "b")
	p.Release(4, 1)
	if p.Bound(120*ms, "c") > 0 {
		t.Error("not freed by the release of the node that it voted for")
	}
	if p.Voted(130*ms, 4, "b") {
		t.Error("promised something in a released term")
	}
	p = free()
	p.Release(5, 1) // which overtook everything else of that term
	if p.Voted(130*ms, 5, "b") || p.Voted(130*ms, 4, "b") {
		t.Error("promised something in a term that was released")
	}
	if !p.Voted(130*ms, 6, "b") {
		t.Error("a later term is not bound by the release")
	}
}

func TestPromise(t *testing.T) {
	const length = 100 * ms
	p := NewPromise(0, length, 3)
	for _, c := range []string{"a", "b"} {
		if got := p.Bound(40*ms, c); got != 60*ms {
			t.Errorf("after start: bound for %v towards %s", got, c)
		}
	}
	p.Heard(50*ms, 2, "x")
	if id, _ := p.Holder(); id != "" {
		t.Errorf("bound by %s in a term older than the one at start", id)
	}
	p.Heard(90*ms, 3, "a")
	if p.Bound(120*ms, "b") != 70*ms || p.Bound(120*ms, "a") > 0 {
		t.Error("not bound to a and to nobody else")
	}
	p.Heard(100*ms, 2, "b")
	if id, term := p.Holder(); id != "a" || term != 3 {
		t.Errorf("an older term took the promise: %s %d", id, term)
	}
	p.SetLength(10 * ms)
	p.Heard(110*ms, 3, "a")
	if got := p.Bound(110*ms, "b"); got != 80*ms {
		t.Errorf("a running promise was shortened to %v", got)
	}
	p.Heard(150*ms, 4, "b")
	if p.Bound(150*ms, "a") != 40*ms || p.Bound(150*ms, "b") > 0 {
		t.Error("a newer term does not take the promise")
	}
}

func TestPromiseRelease(t *testing.T) {
	const length = 100 * ms
	p := NewPromise(0, length, 1)
	p.Heard(0, 5, "a")
	p.Release(4, 9)
	if p.Bound(10*ms, "b") <= 0 {
		t.Error("freed by an older term")
	}
	p.Release(5, 1)
	if p.Bound(10*ms, "b") > 0 {
		t.Error("not freed")
	}
	p.Heard(20*ms, 5, "a")
	if p.Bound(20*ms, "b") > 0 {
		t.Error("a heartbeat of the released term bound again")
	}
	if p.Rebind(30*ms, 5, 1, 6, "a") {
		t.Error("bound again after helping a later term")
	}
	if !p.Rebind(30*ms, 5, 1, 5, "a") || p.Bound(30*ms, "b") != length {
		t.Error("not bound again")
	}
	p.Heard(50*ms, 5, "a")
	if p.Bound(50*ms, "b") != length {
		t.Error("a heartbeat does not bind after the release was taken back")
	}
	p.Release(6, 1)
	if p.Rebind(60*ms, 5, 1, 5, "a") {
		t.Error("says that it is bound in term 5, while the release of term 6 keeps it free")
	}
	fresh := NewPromise(0, length, 5)
	fresh.Release(5, 1)
	if fresh.Bound(10*ms, "b") > 0 {
		t.Error("a voter that has just started is not freed by the newest leader it can have followed")
	}
}

func TestPromiseLateRelease(t *testing.T) {
	const length = 100 * ms
	p := NewPromise(0, length, 1)
	p.Heard(0, 5, "a")
	// The request to be bound again overtakes the release that it takes back.
	if !p.Rebind(10*ms, 5, 1, 5, "a") {
		t.Fatal("refused")
	}
	p.Release(5, 1)
	if p.Bound(20*ms, "b") <= 0 {
		t.Error("freed by a release that was taken back before")
	}
	p.Release(5, 2)
	if p.Bound(20*ms, "b") > 0 {
		t.Error("not freed by the next release")
	}
	if p.Rebind(30*ms, 5, 1, 5, "a") {
		t.Error("bound again by an answer to an earlier release")
	}
	p.Release(5, 1)
	p.Heard(40*ms, 5, "a")
	if p.Bound(40*ms, "b") > 0 {
		t.Error("bound in a released term")
	}
}

// Only whom a voter follows, or was freed by, speaks for the leader of a term.
func TestWhoMayFreeAVoter(t *testing.T) {
	p := NewPromise(0, 100*ms, 4)
	speaks := func(term uint64, who string, want bool) {
		t.Helper()
		if got := p.Speaks(term, who); got != want {
			t.Errorf("%s in term %d speaks: %v", who, term, got)
		}
	}
	speaks(4, "a", false)
	speaks(4, "", false)
	p.Heard(200*ms, 5, "a")
	speaks(5, "a", true)
	speaks(5, "b", false)
	speaks(6, "a", false)
	p.Release(5, 1)
	speaks(5, "a", true) // to take it back
	speaks(5, "b", false)
	p.Heard(300*ms, 6, "b")
	speaks(5, "a", true) // which frees nobody any more
	speaks(6, "a", false)
	speaks(6, "b", true)
}

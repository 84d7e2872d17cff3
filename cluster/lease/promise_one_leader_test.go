package lease

import (
	"testing"
	"time"
)

// A term has one leader. Whoever else speaks in it, such as a node that read its
// own term a moment before it won a later one, must not become the one that may
// be helped while the real leader's lease counts on this voter.
func TestPromiseKeepsItsHolderForTheTerm(t *testing.T) {
	p := NewPromise(0, time.Second, 3)
	p.Heard(10*time.Second, 4, "x")
	p.Heard(10*time.Second+1, 4, "b")
	if holder, _ := p.Holder(); holder != "x" {
		t.Errorf("holder is %s, want x", holder)
	}
	if p.Bound(10*time.Second+2, "b") <= 0 {
		t.Error("this voter may help b while x counts on it")
	}
	if p.Rebind(10*time.Second+2, 4, 1, 4, "b") {
		t.Error("says that b can count on it")
	}
	p.Heard(10*time.Second+3, 5, "b")
	if holder, _ := p.Holder(); holder != "b" {
		t.Errorf("a later term's leader is %s, want b", holder)
	}
}

package group

import (
	"testing"
	"time"
)

// Promises are made to a run of a node; who reads of its leaders asks for the node.
func TestHeardLeadersAreNodes(t *testing.T) {
	now := time.Second
	f := newFence("n1", func() time.Duration { return now }, time.Second, time.Second, 1, &recordingSink{})
	g := &Group{fence: f}
	f.heard(2, Speaker{ID: "n2", Boot: "aaaa"}.Key())
	now += time.Second
	f.heard(3, Speaker{ID: "n3", Boot: "bbbb"}.Key())
	f.heard(3, Speaker{ID: "n3", Boot: "bbbb"}.Key())
	want := [2]HeardLeader{{"n3", 3, now}, {"n2", 2, now - time.Second}}
	if got := g.HeardLeaders(); got != want {
		t.Errorf("heard %+v, want %+v", got, want)
	}
	if id, _, _ := g.Holder(); id != "n3" {
		t.Errorf("the holder is %q", id)
	}
}

package cluster

import (
	"testing"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
)

func TestColdMembers(t *testing.T) {
	start := time.Unix(0, 0)
	nodes := map[string]state.NodeRecord{"a": {ID: "a", Address: "10.0.0.1:1"}, "b": {ID: "b", Address: "10.0.0.2:1"}}
	runs := map[string]string{}
	last := make(map[string]warmed)
	reached := false
	for _, step := range []struct {
		what   string
		after  time.Duration // since start
		change func()
		cold   bool
	}{
		{"a member that is new is called at once", 0, nil, true},
		{"and not twice", 10 * time.Millisecond, nil, false},
		{"one that did not answer after a second", time.Second, nil, true},
		{"one that did answer is left alone", 3 * time.Second, func() { reached = true }, false},
		{"its process is a new one", 3100 * time.Millisecond, func() { runs["b"] = "boot2" }, true},
		{"that one is left alone, too", 5 * time.Second, nil, false},
		{"it is at another address", 5100 * time.Millisecond, func() { nodes["b"] = state.NodeRecord{ID: "b", Address: "10.0.0.3:1"} }, true},
		{"connections are used now and then", 40 * time.Second, nil, true},
		{"it is no member any more", 80 * time.Second, func() { delete(nodes, "b") }, false},
	} {
		if step.change != nil {
			step.change()
		}
		if w, ok := last["b"]; ok {
			w.reached = reached
			last["b"] = w
		}
		cold := coldMembers(nodes, "a", runs, last, start.Add(step.after))
		if got := len(cold) == 1 && cold[0].ID == "b"; got != step.cold {
			t.Errorf("%s: cold is %v", step.what, cold)
		}
	}
	if len(last) != 0 {
		t.Errorf("members are not forgotten: %v", last)
	}
}

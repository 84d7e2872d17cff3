package owner

import (
	"testing"
	"time"
)

func TestDoubts(t *testing.T) {
	const lease = 200 * time.Millisecond
	var d doubts
	for i, step := range []struct {
		at     time.Duration
		silent []string
		left   time.Duration
		want   string
	}{
		{1 * time.Second, nil, lease, ""},
		{2 * time.Second, []string{"lb3"}, lease, ""},
		{3 * time.Second, []string{"lb3", "lb2"}, lease, ""},
		{4 * time.Second, []string{"lb2"}, lease, "lb3 answers again"},
		{5 * time.Second, []string{"lb2"}, lease, ""},
		{5500 * time.Millisecond, []string{"lb2"}, 10 * time.Millisecond, ""},
		{6 * time.Second, []string{"lb2"}, lease, "the lease had nearly ended"},
		{7 * time.Second, nil, lease, "lb2 answers again"},
		{60 * time.Second, nil, lease, "this process was stopped"},
		{61 * time.Second, nil, lease, ""},
	} {
		if got := d.look(step.at, step.silent, step.left); got != step.want {
			t.Errorf("step %d: got %q, want %q", i, got, step.want)
		}
	}
}

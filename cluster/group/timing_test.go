package group

import (
	"testing"
	"time"
)

func TestPaceOf(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name                              string
		left, promise, length, unsteadyIn time.Duration
		beat                              bool
		next                              time.Duration
	}{
		{"nothing changes", 200 * ms, 300 * ms, 270 * ms, 0, false, lookAgain},
		{"a longer promise begins", 200 * ms, 7000 * ms, 270 * ms, 0, true, 200 * ms / paceShare},
		{"the lease still has the length of before", 200 * ms, 7000 * ms, 6300 * ms, 7000 * ms, true, 200 * ms / paceShare},
		{"and then the new one", 6300 * ms, 7000 * ms, 6300 * ms, 7000 * ms, true, 900 * ms},
		{"a shorter one, Raft's heartbeats of before", 6000 * ms, 300 * ms, 270 * ms, 2000 * ms, true, 270 * ms / paceShare},
		{"lease ended", -50 * ms, 7000 * ms, 270 * ms, 0, true, 5 * ms},
		{"the shortest", -50 * ms, 300 * ms, 18 * ms, 0, true, 18 * ms / paceShare},
	} {
		beat, next := paceOf(time.Hour, time.Hour+c.left, c.promise, c.length, time.Hour+c.unsteadyIn)
		if beat != c.beat || next != c.next {
			t.Errorf("%s: %v, look again after %v; want %v, %v", c.name, beat, next, c.beat, c.next)
		}
	}
}

package vip

import (
	"testing"
	"time"
)

func TestTug(t *testing.T) {
	for _, tt := range []struct {
		name     string
		gap      time.Duration
		removals int
		war      bool
	}{
		{"a few at once are none", 50 * time.Millisecond, tugAfter - 1, false},
		{"many at once", 50 * time.Millisecond, tugAfter, true},
		{"every few seconds", 6 * time.Second, tugAfter, true},
		{"seldom, however many", 7 * time.Second, 100, false},
		{"each a row of its own", 2 * tugWindow, 100, false},
	} {
		var g tug
		now, told, began := time.Hour, 0, 0
		for range tt.removals {
			line, begins := g.removed(now)
			if line {
				told++
			}
			if begins {
				began++
			}
			now += tt.gap
		}
		if g.war != tt.war || (began == 1) != tt.war || began > 1 || (g.why() != "") != tt.war {
			t.Errorf("%s: war %v, began %d times, %q", tt.name, g.war, began, g.why())
		}
		if want := min(tt.removals, tugQuiet); tt.gap < tugWindow && told != want {
			t.Errorf("%s: %d lines, want %d", tt.name, told, want)
		}
		if g.settle(now+tugWindow) != tt.war || g.total != 0 || g.pause() != readdPause {
			t.Errorf("%s: not over: %+v", tt.name, g)
		}
	}
}

package group

import (
	"testing"
	"time"
)

func TestStandDelay(t *testing.T) {
	const h = 300 * time.Millisecond
	order := []string{"a", "b", "c"}
	for _, tt := range []struct {
		name       string
		order      []string
		self       string
		voters     int
		leaderless time.Duration
		delay      time.Duration
		stand      bool
	}{
		{"nothing known: Raft's own timers", nil, "a", 3, h, 0, true},
		{"the best goes at once", order, "a", 3, h, 0, true},
		{"the next waits a step", order, "b", 3, h, rankStep, true},
		{"and the next two", order, "c", 3, h, 2 * rankStep, true},
		{"five voters: the best may notice later", order, "b", 5, h, rankStep + h/5, true},
		{"five voters, the best", order, "a", 5, h, 0, true},
		{"unfit waits", order, "w", 3, h, 0, false},
		{"unfit, last resort", order, "w", 3, 3 * h, 0, true},
	} {
		delay, stand := standDelay(tt.order, tt.self, tt.voters, h, tt.leaderless)
		if delay != tt.delay || stand != tt.stand {
			t.Errorf("%s: got %v %v, want %v %v", tt.name, delay, stand, tt.delay, tt.stand)
		}
	}
	if _, stand := standDelay(order, "w", 3, 20*time.Millisecond, 100*time.Millisecond); stand {
		t.Error("last resort at a short timeout came before its minimum")
	}
}

func TestHoldDelay(t *testing.T) {
	order := []string{"a", "b", "c"}
	const h = 300 * time.Millisecond
	for _, tt := range []struct {
		self, candidate string
		want            time.Duration
	}{
		{"a", "b", rankStep},
		{"a", "c", 2 * rankStep},
		{"b", "a", 0},
		{"w", "b", 0}, // a voter that cannot own has no claim
		{"a", "w", 0}, // last resort: the log decides
	} {
		if got := holdDelay(order, tt.self, tt.candidate, h); got != tt.want {
			t.Errorf("%s asked by %s: got %v, want %v", tt.self, tt.candidate, got, tt.want)
		}
	}
}

func TestBallot(t *testing.T) {
	const window = 50 * time.Millisecond
	type step struct {
		advance bool // else yield
		better  bool
		at      time.Duration
		left    time.Duration
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"alone", []step{{advance: true, at: 1}, {advance: true, at: 2}}},
		{"gone ahead, a better one waits", []step{{advance: true, at: 0}, {better: true, at: 10 * time.Millisecond, left: 40 * time.Millisecond}}},
		{"gone ahead, a worse one waits", []step{{advance: true, at: 0}, {at: 10 * time.Millisecond, left: 40 * time.Millisecond}}},
		{"gone ahead in vain", []step{{advance: true, at: 0}, {better: true, at: window}}},
		{"yielded to a better one", []step{{better: true, at: 0}, {advance: true, at: 10 * time.Millisecond, left: 40 * time.Millisecond}}},
		{"the better one has had its time", []step{{better: true, at: 0}, {advance: true, at: window}}},
		{"a worse one does not go first", []step{{at: 0}, {advance: true, at: 0}}},
		{"two candidates, one voter", []step{{better: true, at: 0}, {better: true, at: 1}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var b ballot
			for i, s := range test.steps {
				var left time.Duration
				if s.advance {
					left = b.advance(s.at, window)
				} else {
					left = b.yield(s.at, window, s.better)
				}
				if left != s.left {
					t.Errorf("step %d: %v left, want %v", i, left, s.left)
				}
			}
		})
	}
}

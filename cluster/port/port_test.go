package port

import (
	"fmt"
	"testing"
	"time"
)

func TestRefusalsAreNewsOnceAMinute(t *testing.T) {
	var r Refusals
	now := time.Now()
	for _, tt := range []struct {
		what string
		at   time.Duration
		want bool
	}{
		{"a removed", 0, true},
		{"a removed", 59 * time.Second, false},
		{"b removed", 59 * time.Second, true},
		{"a removed", time.Minute, true},
	} {
		if got := r.News(tt.what, now.Add(tt.at)); got != tt.want {
			t.Errorf("%s after %s: got %v", tt.what, tt.at, got)
		}
	}
	for i := range 2 * maxRefusals {
		r.News(fmt.Sprint(i), now.Add(2*time.Minute))
	}
	if len(r.last) > maxRefusals {
		t.Errorf("%d refusals are remembered", len(r.last))
	}
}

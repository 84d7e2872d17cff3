package owner

import (
	"context"
	"testing"
	"time"
)

// Owners hand over a few at a time, and none waits for ever.
func TestTurns(t *testing.T) {
	turns := NewTurns(2)
	first, second, third := &Owner{turns: turns}, &Owner{turns: turns}, &Owner{turns: turns}
	for _, o := range []*Owner{first, second} {
		if may, taken := o.mayHandOver(time.Minute); !may || !taken {
			t.Fatalf("may hand over %v, has a turn %v", may, taken)
		}
	}
	if may, _ := third.mayHandOver(time.Minute); may {
		t.Error("a third one hands over beside two")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if turns.await(ended) {
		t.Error("a turn beside two others")
	}
	if may, taken := third.mayHandOver(time.Minute + turnWait); !may || taken {
		t.Errorf("after %v: may hand over %v, has a turn %v", turnWait, may, taken)
	}
	if may, _ := third.mayHandOver(2 * time.Minute); may {
		t.Error("it waits only once")
	}
	turns.leave()
	if may, taken := third.mayHandOver(2 * time.Minute); !may || !taken {
		t.Errorf("when one is done: may hand over %v, has a turn %v", may, taken)
	}
	if may, taken := (&Owner{}).mayHandOver(time.Minute); !may || !taken {
		t.Error("a lone owner waits for others")
	}
}

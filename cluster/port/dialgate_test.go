package port

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestDialGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := dialGates{now: time.Now}
		refused := errors.New("connection refused")
		attempts := 0
		fail := func() error { attempts++; return refused }

		// Many groups that try all the time are few attempts.
		var groups sync.WaitGroup
		for range 16 {
			groups.Go(func() {
				for range 500 {
					_ = g.through(t.Context(), "b", fail)
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		groups.Wait() // 5 s
		if attempts < 5 || attempts > 12 {
			t.Errorf("%d attempts in 5 s, want one each second in the end", attempts)
		}
		if err := g.through(t.Context(), "b", fail); !errors.Is(err, errJustFailed) {
			t.Errorf("at once after a failure: %v", err)
		}
		if err := g.through(t.Context(), "c", func() error { return nil }); err != nil {
			t.Errorf("another member: %v", err)
		}
		time.Sleep(dialPauseMax)
		if err := g.through(t.Context(), "b", func() error { return nil }); err != nil {
			t.Errorf("after the pause: %v", err)
		}
		if err := g.through(t.Context(), "b", fail); !errors.Is(err, refused) {
			t.Errorf("after a success: %v", err)
		}
		time.Sleep(dialPauseMin)
		if err := g.through(t.Context(), "b", fail); !errors.Is(err, refused) {
			t.Errorf("the first pause is a short one: %v", err)
		}

		// One at a time, and nobody waits for longer than it has.
		hang := make(chan struct{})
		groups.Go(func() { _ = g.through(t.Context(), "d", func() error { <-hang; return nil }) })
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.through(short, "d", func() error { t.Error("two at once"); return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("behind one that hangs: %v", err)
		}
		close(hang)
		groups.Wait()
	})
}

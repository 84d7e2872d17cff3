package tick

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTickersTickTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(123 * time.Millisecond)
		a := New(time.Second)
		defer a.Stop()
		time.Sleep(456 * time.Millisecond)
		b := New(time.Second)
		defer b.Stop()
		for range 3 {
			first, second := <-a.C, <-b.C
			if !first.Equal(second) || first.Nanosecond() != 0 {
				t.Errorf("ticks at %v and %v", first, second)
			}
		}
		time.Sleep(5500 * time.Millisecond)
		if at := <-a.C; time.Since(at) < 4*time.Second {
			t.Errorf("the oldest tick that was not taken was %v ago", time.Since(at))
		}
		if at := <-a.C; time.Since(at) != 0 {
			t.Errorf("more than one tick was kept: one of %v ago", time.Since(at))
		}
		if u := Until(time.Second); u <= 0 || u > time.Second {
			t.Errorf("%v to the next tick", u)
		}
	})
}

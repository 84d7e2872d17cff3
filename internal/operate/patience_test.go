package operate

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestWhileLeads: a leader's answer is waited for as long as it leads, and for a while
// after that.
func TestWhileLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var leads atomic.Bool
		changes := make(chan struct{})
		ctx, cancel := whileLeads(t.Context(), leads.Load, func() <-chan struct{} { return changes })
		defer cancel()
		at := time.Now()
		until := func(d time.Duration, want error) {
			t.Helper()
			time.Sleep(time.Until(at.Add(d)))
			synctest.Wait()
			if got := context.Cause(ctx); !errors.Is(got, want) {
				t.Errorf("after %v: %v, want %v", d, got, want)
			}
		}
		set := func(l bool) { leads.Store(l); changes <- struct{}{} }
		until(answerWait-time.Second, nil)
		set(true)
		until(time.Hour, nil)
		set(false)
		until(time.Hour+answerWait-time.Millisecond, nil)
		changes <- struct{}{} // something else: it begins no new wait
		until(time.Hour+answerWait, errLeaderGone)
	})
}

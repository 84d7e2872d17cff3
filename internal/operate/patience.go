package operate

import (
	"context"
	"errors"
	"time"
)

// answerWait is how long an answer is waited for from a leader that leads no more: one that
// has handed over is about to answer, one that is cut off or frozen never will.
const answerWait = 10 * time.Second

// errLeaderGone is why such a request is given up.
var errLeaderGone = errors.New("the node that was asked does not lead any more, and does not answer")

// whileLeads returns a context that ends when leads has been false for a while. changed is
// for a change of what leads tells. The caller cancels it.
func whileLeads(ctx context.Context, leads func() bool, changed func() <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var gone <-chan time.Time // since it does not lead
		for {
			change := changed()
			switch {
			case leads():
				gone = nil
			case gone == nil:
				gone = time.After(answerWait)
			}
			select {
			case <-change:
			case <-gone:
				cancel(errLeaderGone)
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(nil); <-ended }
}

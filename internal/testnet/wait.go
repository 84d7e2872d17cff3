package testnet

import (
	"context"
	"fmt"
	"time"
)

// WaitFor calls cond until it returns nil. When ctx ends first the error says
// what was waited for, how long, and the last reason cond gave. A context without
// a deadline is given one of 30 s, so that no wait is endless.
func WaitFor(ctx context.Context, what string, cond func() error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
	}
	start := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w after %v; last: %w", what, context.Cause(ctx), time.Since(start).Round(time.Millisecond), err)
		case <-tick.C:
		}
	}
}

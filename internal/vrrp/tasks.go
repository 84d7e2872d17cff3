package vrrp

import (
	"context"
	"errors"
	"sync"
)

// tasks are goroutines that come and go while a part of the daemon runs. The zero
// value is ready.
type tasks struct {
	mu      sync.Mutex
	ctx     context.Context // nil before run
	ended   bool
	waiting []func(context.Context)
	wg      sync.WaitGroup
	errs    []error
}

// start has f run, until the context of run ends or stop is called; stop waits for
// its end. What is started before run begins with it.
func (t *tasks) start(f func(context.Context) error) (stop func()) {
	own, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	begin := func(ctx context.Context) {
		t.wg.Go(func() {
			defer close(done)
			defer context.AfterFunc(ctx, cancel)()
			defer cancel()
			if err := f(own); err != nil {
				t.mu.Lock()
				defer t.mu.Unlock()
				t.errs = append(t.errs, err)
			}
		})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.ended:
		close(done)
	case t.ctx == nil:
		t.waiting = append(t.waiting, begin)
	default:
		begin(t.ctx)
	}
	return func() {
		cancel()
		t.mu.Lock()
		runs := t.ctx != nil
		t.mu.Unlock()
		if runs {
			<-done
		}
	}
}

// run begins what was started and waits for the end of all after that of ctx.
func (t *tasks) run(ctx context.Context) error {
	t.mu.Lock()
	t.ctx = ctx
	for _, begin := range t.waiting {
		begin(ctx)
	}
	t.waiting = nil
	t.mu.Unlock()
	<-ctx.Done()
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	t.wg.Wait()
	return errors.Join(t.errs...)
}

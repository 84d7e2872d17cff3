package store

import "sync"

// A batch does at once what several ask for while the same thing is being done: one
// fdatasync for all that have written before it began.
type batch[T any] struct {
	// do does all of it and returns an error for each, or one for all.
	do func([]T) []error

	mu      sync.Mutex
	waiting []asked[T]
	busy    bool
}

type asked[T any] struct {
	what T
	done chan error
	// lead is closed for the one that is to do what waits.
	lead chan struct{}
}

// add returns when what was asked for has been done, in a call of do that began later.
func (b *batch[T]) add(what T) error {
	a := asked[T]{what, make(chan error, 1), make(chan struct{})}
	b.mu.Lock()
	b.waiting = append(b.waiting, a)
	if b.busy {
		b.mu.Unlock()
		select {
		case err := <-a.done:
			return err
		case <-a.lead:
		}
		b.mu.Lock()
	}
	b.busy = true
	all := b.waiting
	b.waiting = nil
	b.mu.Unlock()
	b.run(all)
	// The next round is the first one's of those who wait: who has what it asked for does
	// not stay to serve them, as they may be followed by others without end.
	b.mu.Lock()
	if b.busy = len(b.waiting) > 0; b.busy {
		close(b.waiting[0].lead)
	}
	b.mu.Unlock()
	return <-a.done
}

func (b *batch[T]) run(all []asked[T]) {
	whats := make([]T, len(all))
	for i, a := range all {
		whats[i] = a.what
	}
	errs := b.do(whats)
	for i, a := range all {
		a.done <- errs[min(i, len(errs)-1)]
	}
}

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
}

// add returns when what was asked for has been done, in a call of do that began later.
func (b *batch[T]) add(what T) error {
	a := asked[T]{what, make(chan error, 1)}
	b.mu.Lock()
	b.waiting = append(b.waiting, a)
	if b.busy {
		b.mu.Unlock()
		return <-a.done
	}
	b.busy = true
	for len(b.waiting) > 0 {
		all := b.waiting
		b.waiting = nil
		b.mu.Unlock()
		b.run(all)
		b.mu.Lock()
	}
	b.busy = false
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
